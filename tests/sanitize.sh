#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds a second tree with sanitizers and runs unit tests, the simulator, and one cluster of real processes in it.
#   sanitize.sh address,undefined | thread
# With thread only what has threads or sockets is worth the time.
set -euo pipefail
top=${BL_TOP_SRCDIR:?run through make check-long}
build=${BL_TOP_BUILDDIR:?}/san-${1%%,*}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES BALLAST_LONG # the inner make is its own
mkdir -p "$build"
cd "$build"
# Reports go to files: those of daemons would be seen by nobody.
reports=$build/reports
rm -rf "$reports"
mkdir "$reports"
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:log_path=$reports/address
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports/undefined
export TSAN_OPTIONS="suppressions=$top/tests/support/tsan.supp halt_on_error=1 second_deadlock_stack=1 log_path=$reports/thread"
export BALLAST_SIM_SEEDS=${BALLAST_SIM_SEEDS:-10} CK_TIMEOUT_MULTIPLIER=5 BALLAST_BIG_TENSOR_MIB=16
[ -f Makefile ] || "$top/configure" --enable-sanitize="$1" CFLAGS="-O1 -g1" >configure.out 2>&1 || { tail -n 20 configure.out; exit 1; }
make -j"$(nproc)" all >make.out 2>&1 || { tail -n 30 make.out; exit 1; }

tests=$(cd "$top" && printf '%s\n' tests/unit/test_*.c tests/sim/test_*.c tests/fuzz/fuzz_*.c | sed 's/\.c$//')
if [ "$1" = thread ]; then
  tests=$(grep -E 'test_(base|loop|net|wire|node|agent)$' <<<"$tests")
fi
tests="$(tr '\n' ' ' <<<"$tests")tests/cluster/big_tensor"
code=0
make -j"$(nproc)" check check_PROGRAMS="$tests" TESTS="$tests tests/cluster/run.sh" >check.out 2>&1 || code=$?
for report in "$reports"/*; do
  [ -f "$report" ] || continue
  head -n 80 "$report"
  code=1
done
if [ "$code" -ne 0 ]; then
  grep -E '^(FAIL|ERROR)|error:' check.out | head -n 20 || true
  [ ! -f test-suite.log ] || tail -n 150 test-suite.log
  exit 1
fi
grep -E '^# (TOTAL|PASS|FAIL|SKIP|ERROR)' check.out
grep -qE '^# PASS: +[1-9]' check.out || { echo "no test ran"; exit 1; }
