#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The coordinator is killed with jobs in every state that people see; after its restart each goes on from there.
. "$(dirname "$0")/lib.sh"
digits 1000 200
digits_job "$work/job.yaml"
digits_job "$work/long.yaml"
sed -i 's/epochs: 3/epochs: 100000/' "$work/long.yaml"
sed "s|train-images|no-images|" "$work/job.yaml" >"$work/bad.yaml"

start_coordinator
co_port=${coordinator##*:}
start_server s1
start_worker w1 2
start_worker w2 2
killed() { # what is true at this moment
  kill -KILL "$(pid_of c1)"
  wait "$(pid_of c1)" 2>/dev/null || true
  note "killed the coordinator with $1"
  start_coordinator
}
ends() { # job state
  timeout 100 ballast wait "$1" --json >"$work/end-$1.json" 2>/dev/null || true
  check "job $1 is $2" "d['state'] == '$2'" "$work/end-$1.json"
}

# done, failed, cancelled: history.
done_job=$(submit "$work/job.yaml")
ends "$done_job" 'done'
weights=$(json "$work/end-$done_job.json" 'd["result"]["weights_xxh3"]')
bad=$(submit "$work/bad.yaml")
ends "$bad" failed
gone=$(submit "$work/long.yaml")
wait_until 30 "job $gone runs" clock_beyond "$gone" 10
ballast cancel "$gone" >/dev/null
killed "a job that is done, one failed, one just cancelled"
for pair in "$done_job:done" "$bad:failed" "$gone:cancelled"; do
  state_is "${pair%%:*}" "${pair##*:}" || fail "job ${pair%%:*} is no longer ${pair##*:}"
done
[ "$(job_field "$done_job" 'd["result"]["weights_xxh3"]')" = "$weights" ] || fail "the result is another"
job_field "$bad" 'd["reason"]' | grep -q no-images || fail "the reason is lost"
wait_until 20 "nothing is left of the cancelled job" tasks_are 0

# loading: workers that are stopped start no task.
for w in w1 w2; do kill -STOP "$(pid_of $w)"; done
loading=$(submit "$work/job.yaml")
[ "$(job_field "$loading" 'd["phase"]')" = loading ] || fail "job $loading is $(job_field "$loading" 'd["phase"]')"
killed "a job that loads its data"
[ "$(job_field "$loading" 'd["phase"]')" = loading ] || fail "job $loading is $(job_field "$loading" 'd["phase"]')"
for w in w1 w2; do kill -CONT "$(pid_of $w)"; done
wait_until 20 "the workers are back" bash -c "ballast status | grep -c alive | grep -qx 3"
ends "$loading" 'done'
check "with the same weights" "d['result']['weights_xxh3'] == '$weights'" "$work/end-$loading.json"

# running, queued with a priority of its own, and recovering.
running=$(submit "$work/long.yaml" --set ranks=4)
wait_until 30 "job $running runs" clock_beyond "$running" 10
first=$(submit "$work/job.yaml")
second=$(submit "$work/job.yaml" --priority 3)
ballast priority "$first" 7 >/dev/null
before=$(job_field "$running" 'd["clock"]')
killed "a job that runs and two that wait"
wait_until 30 "training goes on" clock_beyond "$running" "$before"
[ "$(job_field "$running" 'd["view"]')" = 1 ] || fail "the running job needed a new view"
[ "$(job_field "$first" 'd["priority"], d["place"]')" = "(7, 1)" ] || fail "the first in the queue: $(job_field "$first" 'd["priority"], d["place"]')"
[ "$(job_field "$second" 'd["priority"], d["place"]')" = "(3, 2)" ] || fail "the second in the queue"
job_field "$second" 'd["waits_for"]' | grep -qF "second in the queue behind job $first (priority 7)" || fail "the sentence"
kill -KILL "$(pid_of w2)"
wait_until 20 "job $running recovers" state_is "$running" recovering
killed "a job that recovers"
state_is "$running" recovering || fail "job $running is no longer recovering"
start_worker w2 2
wait_until 40 "job $running runs again" state_is "$running" running
ballast cancel "$running" >/dev/null
ends "$first" 'done'
ends "$second" 'done'
for job in "$first" "$second"; do
  check "job $job has the weights that it has without all this" "d['result']['weights_xxh3'] == '$weights'" "$work/end-$job.json"
done

# finishing, as nearly as a process test gets there: again and again around the end.
for delay in 0 0.1 0.2 0.3; do
  job=$(submit "$work/job.yaml" --set epochs=1)
  wait_until 30 "job $job runs" bash -c "ballast jobs $job --json | grep -qE '\"phase\":\"(running|finishing|done)\"'"
  python3 -c "import time; time.sleep($delay)"
  killed "job $job, $(job_field "$job" 'd["phase"]') a moment before"
  ends "$job" 'done'
done
wait_until 20 "no task is left" tasks_are 0
