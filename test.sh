#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is needed on a fresh Debian 12 and passes the tests.
#   ./test.sh              unit, simulator and process tests, then the long ones (cluster, sanitizers)
#   ./test.sh --quick      only `make check`
set -euo pipefail
cd "$(dirname "$0")"
top=$PWD
build=${BALLAST_BUILD_DIR:-$top/build-test}

export BALLAST_BUILD_DIR=$build
export BALLAST_CONFIGURE_ARGS="--enable-werror"
./quickstart.sh --build

# What only the tests need: network namespaces and systemd for the three-machine test, promtool, clang for
# the second compiler and the fuzz targets.
test_packages=(check iproute2 nftables prometheus clang libclang-rt-14-dev systemd python3)
mapfile -t missing < <(for p in "${test_packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || printf '%s\n' "$p"; done)
if [ ${#missing[@]} -gt 0 ]; then
  sudo=(); [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  printf '\n==> Installing for the tests: %s\n' "${missing[*]}"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

cd "$build"
log=$build/check.out
run_make() { # target
  if ! make -j"$(nproc)" "$1" >"$log" 2>&1; then
    tail -n 60 "$log"
    [ ! -f test-suite.log ] || tail -n 200 test-suite.log
    exit 1
  fi
  grep -E '^(PASS|FAIL|SKIP|XFAIL|ERROR):' "$log" || true
  passed=$((passed + $(grep -cE '^PASS:' "$log" || true)))
  skipped=$((skipped + $(grep -cE '^SKIP:' "$log" || true)))
}
passed=0 skipped=0
run_make check
[ "${1:-}" = --quick ] || run_make check-long
echo "$passed passed, 0 failed, $skipped skipped"
