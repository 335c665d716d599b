#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds a second tree with sanitizers and runs unit tests, the simulator, and one cluster of real processes in it.
#   sanitize.sh address,undefined | thread
set -euo pipefail
top=${BL_TOP_SRCDIR:?run through make check-long}
build=${BL_TOP_BUILDDIR:?}/san-${1%%,*}
mkdir -p "$build"
cd "$build"
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="suppressions=$top/tests/support/tsan.supp halt_on_error=1 second_deadlock_stack=1"
export BALLAST_SIM_SEEDS=${BALLAST_SIM_SEEDS:-10}
[ -f Makefile ] || "$top/configure" --enable-sanitize="$1" CFLAGS="-O1 -g" >configure.out 2>&1 || { tail -n 20 configure.out; exit 1; }
make -j"$(nproc)" all >make.out 2>&1 || { tail -n 30 make.out; exit 1; }
tests=$(cd "$top" && ls tests/unit/test_*.c tests/sim/test_*.c | sed 's/\.c$//' | tr '\n' ' ')
[ "${1%%,*}" != thread ] || tests=$(echo "$tests" | tr ' ' '\n' | grep -E 'net|loop|sim|session|shard|server|base|wire' | tr '\n' ' ')
make -j"$(nproc)" check TESTS="$tests tests/cluster/run.sh" >check.out 2>&1 || { grep -E '^(FAIL|ERROR)' check.out; tail -n 150 test-suite.log; exit 1; }
grep -E '^# (TOTAL|PASS|FAIL|SKIP)' check.out
