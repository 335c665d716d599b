#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nodes that are there before their coordinator, and a task that dies every time.
. "$(dirname "$0")/lib.sh"
digits 4000 100
digits_job "$work/job.yaml" "task_retries: 2"
sed -i 's/epochs: 3/epochs: 400/' "$work/job.yaml"

# A port that nobody listens on now.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
coordinator=tcp://127.0.0.1:$port
start_server s1
start_worker w1 2
lines() { grep -c "ev=coordinator_silent address=$coordinator silent_for=.* next_attempt_in=" "$work/$1.log"; }
said() { [ "$(lines "$1")" -ge "$2" ]; }
wait_until 15 "s1 has said three times whom it misses" said s1 3
wait_until 15 "w1 has said twice whom it misses" said w1 2
python3 - "$work/s1.log" "$work/w1.log" <<'PY' || fail "the intervals do not grow"
import re, sys
from datetime import datetime
for name in sys.argv[1:]:
    t = [datetime.fromisoformat(l.split()[0].replace("Z", "+00:00")) for l in open(name) if "ev=coordinator_silent" in l]
    gaps = [(b - a).total_seconds() for a, b in zip(t, t[1:])]
    print("--", name.rsplit("/", 1)[1], "says it after", [round(g, 1) for g in gaps])
    if not all(b > 1.4 * a for a, b in zip(gaps, gaps[1:])): sys.exit(1)
PY
url=$(json "$work/s1.address" 'd["http"]')
fetch "${url%/}/readyz" >"$work/ready" && fail "a server without a coordinator is ready"
grep -qF "$coordinator" "$work/ready" || fail "/readyz does not say whom it waits for: $(cat "$work/ready")"
co_port=$port
start_coordinator
both_registered() { ballast status --json >"$work/status.json" && grep -q '"s1"' "$work/status.json" && grep -q '"w1"' "$work/status.json"; }
wait_until 10 "both have registered" both_registered
for name in s1 w1; do said $name 12 && fail "$name says it too often"; done

# Every task of the job is killed as soon as it is there: retries end, and the reason has the signal.
job=$(submit "$work/job.yaml")
wait_until 30 "job $job runs" clock_beyond "$job" 5
kills=0
while ! state_is "$job" failed; do
  [ $SECONDS -lt 100 ] || fail "after $kills kills the job is $(job_field "$job" 'd["state"]')"
  for p in $(task_pids); do
    if kill -SEGV "$p" 2>/dev/null; then kills=$((kills + 1)); fi
  done
  sleep 0.05
done
note "after $kills kills: $(job_field "$job" 'd["reason"]')"
grep -q 'SIGSEGV' "$work/job.json" || fail "the reason does not name the signal"
json "$work/job.json" 'd["reason"]' | grep -qE 'rank [01] .*(3 times|crashed).* w1' || fail "the reason does not count the crashes"
json "$work/job.json" 'd["reason"]' | grep -qE 'last words|said nothing' || fail "no last words"
wait_until 10 "the task processes are gone" tasks_are 0
timeout 60 ballast submit "$work/job.yaml" --follow --set epochs=1 2>/dev/null | grep -q done || fail "no job runs afterwards"
