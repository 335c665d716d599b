#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Ctrl-C: `ballast run` cancels its job and leaves nothing behind; `ballast submit --follow` detaches.
. "$(dirname "$0")/lib.sh"
digits
digits_job "$work/job.yaml"
sed -i 's/epochs: 3/epochs: 1000/' "$work/job.yaml"

# In a session of its own, as a terminal gives it: shells start background jobs with SIGINT ignored.
interrupt_after() { # TEXT-IN-LOG LOG command...
  local text=$1 log=$2
  shift 2
  python3 - "$text" "$log" "$@" <<'EOF'
import signal, subprocess, sys, time
text, log = sys.argv[1:3]
with open(log, "wb") as out:
    p = subprocess.Popen(sys.argv[3:], stdout=out, stderr=out, start_new_session=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    deadline = time.monotonic() + 30
    while text not in open(log).read():
        assert p.poll() is None and time.monotonic() < deadline, "nothing to interrupt: " + open(log).read()
        time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    sys.exit(p.wait(timeout=30))
EOF
}
code=0
interrupt_after "epoch " "$work/run.log" ballast run "$work/job.yaml" --json || code=$?
[ $code -eq 1 ] || fail "an interrupted run ends with $code"
grep -q 'cancelling the job' "$work/run.log" || fail "an interrupted run does not say so"
tail -n 1 "$work/run.log" >"$work/result"
check "the result says what happened" 'd["state"] == "cancelled"' "$work/result"
[ -z "$(task_pids)" ] || fail "tasks were left behind"

start_coordinator
start_server s1
start_worker w1 2
interrupt_after "epoch " "$work/submit.log" ballast submit "$work/job.yaml" --follow || fail "detaching is no failure"
grep -q 'detached: job 1 goes on' "$work/submit.log" || fail "an interrupted follower does not say that the job goes on"
ballast jobs 1 --json >"$work/job.json"
check "the job goes on" 'd["state"] == "running"' "$work/job.json"
ballast cancel 1
wait_until 10 "its tasks are gone" tasks_are 0
