# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Shared by the process tests: sourced, not run. Real daemons, real sockets, loopback ports chosen by the kernel.
# Every wait has a deadline; a test that cannot run here says why and exits 77 (skipped).
set -euo pipefail

top=${BL_TOP_SRCDIR:?run through make check}
build=${BL_TOP_BUILDDIR:?run through make check}
export PATH=$build:$PATH
unset BALLAST_CLUSTER || true
data=${BALLAST_TEST_DATA:-$top/../shared/data}
work=$(mktemp -d /tmp/ballast-cluster-XXXXXX)
export HOME=$work/home
mkdir -p "$HOME"
pids=()

cleanup() {
  local code=$?
  trap - EXIT
  set +e
  if declare -F at_exit >/dev/null; then at_exit; fi # a test's own cleaning up
  if [ ${#pids[@]} -gt 0 ]; then
    kill -TERM "${pids[@]}" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "${pids[@]}" 2>/dev/null || break; sleep 0.05; done
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
  if [ $code -ne 0 ] && [ $code -ne 77 ]; then
    for log in "$work"/*.log; do [ -f "$log" ] && { echo "--- $log"; tail -n 30 "$log"; }; done
  fi
  rm -rf "$work"
  exit $code
}
trap cleanup EXIT

skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAILED: $*" >&2; exit 1; }
note() { echo "-- $*"; }

# json FILE EXPR: python expression over the parsed document d
json() { python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); v=eval(sys.argv[2]); print("" if v is None else v)' "$1" "$2"; }
check() { # what python-condition file
  python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); sys.exit(0 if eval(sys.argv[2]) else 1)' "$3" "$2" ||
    { cat "$3" >&2; fail "$1: $2"; }
  note "$1"
}

# Runs a command that must fail: expect_failure CODE 'part of the sentence' command...
expect_failure() {
  local want=$1 text=$2 code=0
  shift 2
  timeout 60 "$@" >"$work/out" 2>&1 || code=$?
  [ $code -eq "$want" ] || { cat "$work/out" >&2; fail "exit code $code, expected $want: $*"; }
  grep -qF -- "$text" "$work/out" || { cat "$work/out" >&2; fail "no '$text' in the output of: $*"; }
  note "refused as it should: $text"
}

wait_until() { # seconds what command...
  local seconds=$1 what=$2 i
  shift 2
  for ((i = 0; i < seconds * 20; i++)); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.05
  done
  fail "not within $seconds s: $what"
}

# start NAME PROGRAM args...: in the background, log in $work/NAME.log, address file $work/NAME.address. The array
# `through`, when it is not empty, is a command that the program is run by (and replaces: the process stays the same).
through=()
start() {
  local name=$1 program=$2
  shift 2
  rm -f "$work/$name.address"
  "${through[@]}" "$build/$program" --name "$name" --address-file "$work/$name.address" "$@" >>"$work/$name.log" 2>&1 &
  pids+=($!)
  eval "pid_$name=$!"
  wait_until 20 "$name is ready" test -s "$work/$name.address"
}
pid_of() { eval "echo \$pid_$1"; }

start_coordinator() { # [more options]
  start c1 ballast-coordinator --set coordinator.state_dir="$work/c1" --set "coordinator.port=${co_port:-0}" \
    --set coordinator.http=127.0.0.1:0 "$@"
  coordinator=$(json "$work/c1.address" 'd["control"]')
  co_http=$(json "$work/c1.address" 'd["http"]')
  export BALLAST_CLUSTER=$coordinator
}
start_server() { # NAME [more options]
  local name=$1
  shift
  start "$name" ballast-server --set "connect.coordinator=$coordinator" --set server.state_dir="$work/$name" \
    --set server.port=0 --set server.http=127.0.0.1:0 "$@"
}
start_worker() { # NAME SLOTS [more options]
  local name=$1 slots=$2
  shift 2
  start "$name" ballast-worker --set "connect.coordinator=$coordinator" --set worker.state_dir="$work/$name" \
    --set "worker.slots=$slots" --set 'worker.data_roots=[/]' --set 'worker.output_roots=[/]' \
    --set worker.http=127.0.0.1:0 "$@"
}

# Task processes of this test's workers (by their HOME), one per line.
task_pids() {
  local p
  for p in $(pgrep -f -- 'ballast-worker.*--task' || true); do
    grep -zqx "HOME=$HOME" "/proc/$p/environ" 2>/dev/null && echo "$p"
  done
  return 0
}
n_tasks() { task_pids | wc -l; }
tasks_are() { [ "$(n_tasks)" -eq "$1" ]; }

# Jobs on a cluster that is running.
submit() { ballast submit "$@" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["job"])'; }
job_field() { ballast jobs "$1" --json >"$work/job.json" && json "$work/job.json" "$2"; }
state_is() { [ "$(job_field "$1" 'd["state"]')" = "$2" ]; }
clock_beyond() { [ "$(job_field "$1" 'd["clock"] or 0')" -gt "$2" ]; }

fetch() { python3 -c 'import sys,urllib.request as u
try: r=u.urlopen(sys.argv[1], timeout=5); sys.stdout.buffer.write(r.read())
except u.HTTPError as e: sys.stdout.buffer.write(e.read()); sys.exit(22)' "$1"; }

# digits [TRAIN TEST]: draws the digits data set into $work/data
digits() { ballast-digits --out "$work/data" --train "${1:-4000}" --test "${2:-1000}" --seed 5 >/dev/null; }

# digits_job FILE [lines to append]: a small job over $work/data
digits_job() {
  cat >"$1" <<EOF
name: digits
seed: 7
data:
  train: {idx: [$work/data/train-images-idx3-ubyte, $work/data/train-labels-idx1-ubyte]}
  test: {idx: [$work/data/t10k-images-idx3-ubyte, $work/data/t10k-labels-idx1-ubyte]}
  validation: 10 %
model:
  input: [784]
  layers: [dense 128 relu, dense 10]
loss: softmax_cross_entropy
optimizer: {adam: {lr: 2e-3}}
batch: 64
epochs: 3
ranks: 2
EOF
  [ $# -lt 2 ] || printf '%s\n' "$2" >>"$1"
}
