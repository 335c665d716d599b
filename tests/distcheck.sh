#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make distcheck`: what a release holds builds and passes its tests from a source tree that cannot be written,
# installs, and uninstalls without leaving anything. BALLAST_DISTCHECK_TESTS: which tests run there; by default
# those that read files of the source tree, since the others saw the same code in `make check`.
set -euo pipefail
top=${BL_TOP_SRCDIR:?run through make check-long}
build=${BL_TOP_BUILDDIR:?}/dist
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES BALLAST_LONG # the inner make is its own
default_tests="tests/layers.sh tests/cluster/units.sh tests/cluster/run.sh tests/unit/test_conf tests/unit/test_job
  tests/unit/test_optim tests/unit/test_nn tests/unit/test_coordinator tests/fuzz/fuzz_job_spec tests/fuzz/fuzz_codec"
tests=$(tr -s ' \n' '  ' <<<"${BALLAST_DISTCHECK_TESTS:-$default_tests}")
work=$(mktemp -d /tmp/ballast-dist-XXXXXX)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
fail() { tail -n "${2:-40}" "$1"; exit 1; }

mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$top/configure" >configure.out 2>&1 || fail configure.out
rm -f ballast-*.tar.xz
make dist >dist.out 2>&1 || fail dist.out
releases=(ballast-*.tar.xz)
release=${releases[0]}
mkdir "$work/build"
tar -xf "$release" -C "$work"
# For root every tree can be written, so root lets somebody else do it.
as=()
if [ "$(id -u)" -eq 0 ]; then
  chown -R nobody "$work"
  as=(setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME="$work")
fi
cd "$work/build"
"${as[@]}" ../"${release%.tar.xz}"/configure >"$build/configure2.out" 2>&1 || fail "$build/configure2.out"
"${as[@]}" make -j"$(nproc)" distcheck TESTS="$tests" >"$build/distcheck.out" 2>&1 || {
  find "$work" -name test-suite.log -exec tail -n 100 {} +
  fail "$build/distcheck.out"
}
grep -E '^# (TOTAL|PASS|FAIL|SKIP|ERROR)' "$build/distcheck.out"
grep -qE '^# PASS: +[1-9]' "$build/distcheck.out" || { echo "no test ran"; exit 1; }
