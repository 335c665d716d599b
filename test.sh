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
# the second compiler and the fuzz targets, xz for the release.
test_packages=(check iproute2 nftables prometheus clang libclang-rt-14-dev llvm systemd python3 procps xz-utils)
mapfile -t missing < <(for p in "${test_packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || printf '%s\n' "$p"; done)
if [ ${#missing[@]} -gt 0 ]; then
  sudo=(); [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  printf '\n==> Installing for the tests: %s\n' "${missing[*]}"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

cd "$build"
passed=0 failed=0 skipped=0
count() { grep -cE "^($1):" "$log" || true; }
run_make() { # target
  local code=0 n_failed
  log=$build/$1.out
  printf '\n==> make %s\n' "$1"
  rm -f test-suite.log
  make -j"$(nproc)" "$1" >"$log" 2>&1 || code=$?
  grep -E '^(PASS|FAIL|SKIP|XPASS|ERROR):' "$log" || true
  passed=$((passed + $(count PASS)))
  skipped=$((skipped + $(count SKIP)))
  n_failed=$(count 'FAIL|XPASS|ERROR')
  if [ "$code" -ne 0 ] && [ "$n_failed" -eq 0 ]; then
    tail -n 60 "$log" # it did not come to the tests
    n_failed=1
  elif [ "$n_failed" -gt 0 ]; then
    tail -n 300 test-suite.log
  fi
  failed=$((failed + n_failed))
}
run_make check
[ "${1:-}" = --quick ] || run_make check-long
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
