#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang builds everything without a warning, the unit tests pass there, and each fuzz target runs for a while.
set -euo pipefail
top=${BL_TOP_SRCDIR:?run through make check-long}
build=${BL_TOP_BUILDDIR:?}/clang
command -v clang >/dev/null || { echo "skipped: clang is not installed"; exit 77; }
mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$top/configure" CC=clang CFLAGS="-O1 -g" --enable-werror --enable-fuzzers >configure.out 2>&1 || { tail -n 20 configure.out; exit 1; }
make -j"$(nproc)" all >make.out 2>&1 || { grep -E 'error|warning' make.out | head -n 30; exit 1; }
tests=$(cd "$top" && ls tests/unit/test_*.c | sed 's/\.c$//' | tr '\n' ' ')
make -j"$(nproc)" check TESTS="$tests" >check.out 2>&1 || { grep -E '^(FAIL|ERROR)|error' check.out | head -n 20; tail -n 100 test-suite.log; exit 1; }
grep -E '^# (TOTAL|PASS|FAIL|SKIP)' check.out
for target in tests/fuzz/fuzz_*; do
  [ -x "$target" ] && [ -f "$target" ] || continue
  corpus=$(mktemp -d)
  name=$(basename "$target")
  seeds=$top/tests/fuzz/corpus/${name#fuzz_}
  [ -d "$seeds" ] || seeds=
  # shellcheck disable=SC2086 # no seeds, no argument
  "$target" -max_total_time="${BALLAST_FUZZ_SECONDS:-15}" -rss_limit_mb=2048 -timeout=10 "$corpus" $seeds >"$name.out" 2>&1 ||
    { tail -n 40 "$name.out"; echo "FAILED: $name"; exit 1; }
  echo "$name: $(grep -oE '^Done [0-9]+ runs' "$name.out" || echo ran)"
  rm -rf "$corpus"
done
