#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# systemd's own checks of the units.
. "$(dirname "$0")/lib.sh"
command -v systemd-analyze >/dev/null || skip "systemd-analyze is not installed"
cp "$top/systemd/ballast.target" "$work/"
for d in coordinator server worker; do
  unit=$work/ballast-$d.service
  sed "s|@bindir@|$build|g" "$top/systemd/ballast-$d.service.in" >"$unit"
  systemd-analyze verify --man=no --recursive-errors=no "$unit" 2>"$work/out" || { cat "$work/out"; fail "$d: verify"; }
  systemd-analyze security --offline=yes --threshold=25 "$unit" >"$work/out" || { tail -n 1 "$work/out"; fail "$d: exposure"; }
  tail -n 1 "$work/out"
done
