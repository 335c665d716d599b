#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Daemons that stay: submit, follow, list, cancel; tasks, workers and the coordinator die and come back.
. "$(dirname "$0")/lib.sh"
digits 4000 500
digits_job "$work/job.yaml"
sed -i 's/epochs: 3/epochs: 40/' "$work/job.yaml"
start_coordinator
co_port=${coordinator##*:}
start_server s1
start_server s2
start_worker w1 2
start_worker w2 2

want=$(ballast run "$work/job.yaml" --json 2>/dev/null | tail -n 1 >"$work/reference"; json "$work/reference" 'd["weights_xxh3"]')
note "undisturbed weights: $want"

job=$(ballast submit "$work/job.yaml" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["job"])')
[ "$job" = 1 ] || fail "the first job has number $job"
wait_until 30 "job 1 runs" clock_beyond 1 100
victims=$(task_pids)
victim=${victims%%$'\n'*}
[ -n "$victim" ] || fail "no task process"
kill -SEGV "$victim"
note "killed a task with SIGSEGV"
wait_until 30 "the rank has started again" tasks_are 2
kill -KILL "$(pid_of c1)"
note "killed the coordinator"
start_coordinator
start_before=$(job_field 1 'd["clock"]')
wait_until 30 "training goes on after the coordinator's restart" clock_beyond 1 "$start_before"
timeout 120 ballast wait 1 --json >"$work/done.json" 2>"$work/wait.log" || fail "job 1 did not end well: $(cat "$work/done.json")"
check "job 1 is done" 'd["state"] == "done"' "$work/done.json"
check "the same weights as undisturbed" "d['result']['weights_xxh3'] == '$want'" "$work/done.json"
ballast logs 1 >"$work/logs.txt"
grep -qi 'SIGSEGV' "$work/logs.txt" || ballast jobs 1 --json | grep -qi 'SIGSEGV' || fail "the crash is told nowhere"

# A worker dies: its ranks move.
ballast submit "$work/job.yaml" --json >/dev/null
wait_until 30 "job 2 runs" clock_beyond 2 100
kill -KILL "$(pid_of w1)"
note "killed worker w1"
timeout 150 ballast wait 2 --json >"$work/done.json" || fail "job 2 did not end well: $(cat "$work/done.json")"
check "the same weights after the death of a worker" "d['result']['weights_xxh3'] == '$want'" "$work/done.json"

# Waiting is a sentence; cancel frees.
ballast submit "$work/job.yaml" --set ranks=4 --json >/dev/null
wait_until 10 "job 3 waits" bash -c "ballast jobs 3 --json | grep -q 'waits for'"
job_field 3 'd["waits_for"]' | tee "$work/waits"
grep -qF 'job 3 waits for 2 slots: it needs 4, and the cluster has 2 in all, 0 in use' "$work/waits" || fail "the sentence"
ballast cancel 3 >/dev/null
wait_until 10 "job 3 is cancelled" state_is 3 cancelled
ballast submit "$work/job.yaml" --json >/dev/null
wait_until 30 "job 4 runs" clock_beyond 4 20
ballast cancel 4 >/dev/null
wait_until 10 "job 4 is cancelled" state_is 4 cancelled
wait_until 10 "the task processes are gone" tasks_are 0
expect_failure 1 "99" ballast cancel 99

# A lost server fails the job with its name; the daemons live.
ballast submit "$work/job.yaml" --json >/dev/null
wait_until 30 "job 5 runs" clock_beyond 5 20
kill -KILL "$(pid_of s2)"
wait_until 20 "job 5 has failed" state_is 5 failed
job_field 5 'd["reason"]' | tee "$work/reason"
grep -q s2 "$work/reason" || fail "the reason does not name s2"
start_server s2
ballast submit "$work/job.yaml" --set epochs=1 --follow 2>/dev/null | grep -q 'done' || fail "no job runs after the server came back"

# Clean stop.
for name in w2 s1 c1; do
  kill -TERM "$(pid_of $name)"
  code=0
  wait "$(pid_of $name)" || code=$?
  [ $code -eq 0 ] || fail "$name ended with $code on SIGTERM"
done
