#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang builds everything without a warning, the unit tests pass there, and each fuzz target runs for a while
# (BALLAST_FUZZ_SECONDS each, 0: only the corpora).
set -euo pipefail
top=${BL_TOP_SRCDIR:?run through make check-long}
build=${BL_TOP_BUILDDIR:?}/clang
seconds=${BALLAST_FUZZ_SECONDS:-10}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES BALLAST_LONG # the inner make is its own
command -v clang >/dev/null || { echo "skipped: clang is not installed"; exit 77; }
mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$top/configure" CC=clang CFLAGS="-O1 -g1" --enable-werror --enable-fuzzers \
  --enable-sanitize=address,undefined >configure.out 2>&1 || { tail -n 20 configure.out; exit 1; }
make -j"$(nproc)" all >make.out 2>&1 || { grep -E 'error|warning' make.out | head -n 30; exit 1; }
tests=$(cd "$top" && printf '%s ' tests/unit/test_*.c tests/fuzz/fuzz_*.c | sed 's/\.c / /g')
make -j"$(nproc)" check TESTS="$tests" >check.out 2>&1 || {
  grep -E '^(FAIL|ERROR)|error' check.out | head -n 20 || true
  [ ! -f test-suite.log ] || tail -n 100 test-suite.log
  exit 1
}
grep -E '^# (TOTAL|PASS|FAIL|SKIP|ERROR)' check.out
[ "$seconds" -gt 0 ] || exit 0
fuzzed=0
for target in tests/fuzz/fuzz_*; do
  if [ ! -x "$target" ] || [ ! -f "$target" ]; then continue; fi
  corpus=$(mktemp -d /tmp/ballast-fuzz-XXXXXX)
  name=$(basename "$target")
  "$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 "$corpus" \
    "$top/tests/fuzz/corpus/${name#fuzz_}" >"$name.out" 2>&1 ||
    { tail -n 40 "$name.out"; rm -rf "$corpus"; echo "FAILED: $name"; exit 1; }
  rm -rf "$corpus"
  echo "$name: $(grep -oE '^Done [0-9]+ runs' "$name.out")"
  fuzzed=$((fuzzed + 1))
done
[ "$fuzzed" -gt 0 ] || { echo "no fuzz target was built"; exit 1; }
