#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Ranks that run free (ssp, asp), as real processes: they share every epoch, a slow one and a stopped one get less
# to do, a killed one and a restarted coordinator lose no sample, and all end with the same weights.
. "$(dirname "$0")/lib.sh"
digits 6000 500
digits_job "$work/ssp.yaml" 'sync: {ssp: {staleness: 4}}'
digits_job "$work/asp.yaml" 'sync: asp'
for mode in ssp asp; do
  ballast run "$work/$mode.yaml" --json --servers 2 --workers 2 --set ranks=4 2>"$work/$mode.log" | tail -n 1 >"$work/$mode.json"
  check "$mode: 4 ranks train every sample of 3 epochs once" \
    'd["state"] == "done" and d["samples"] == 3 * 5400 and d["test_accuracy"] > 0.9' "$work/$mode.json"
done

start_coordinator --set coordinator.state_dir="$work/c1"
start_server s1
start_server s2
start_worker w1 2
start_worker w2 2

rank_states() { ballast jobs "$1" --json >"$work/job.json"; }
keep_states() { # JOB: until it ends; the last numbers of every rank
  while rank_states "$1" && [ "$(json "$work/job.json" 'd["state"]')" = running ]; do
    cp "$work/job.json" "$work/last.json"
    sleep 0.1
  done
}
share_of_slowest() { # of what the ranks did since the first numbers; an even share of four is 0.25
  python3 - "$work/first.json" "$work/last.json" <<'END'
import json, sys
a, b = ([r["samples"] for r in json.load(open(f))["rank_states"]] for f in sys.argv[1:])
done = [y - x for x, y in zip(a, b)]
print(min(done) / sum(done))
END
}

for mode in ssp asp; do
  job=$(submit "$work/$mode.yaml" --set ranks=4 --set epochs=100 --set batch=256)
  wait_until 30 "job $job trains" clock_beyond "$job" 0
  mapfile -t tasks < <(task_pids)
  "$top/tests/cluster/slow.py" "${tasks[0]}" 5 &
  slower=$!
  pids+=("$slower")
  wait_until 30 "the ledger has noticed" clock_beyond "$job" $(($(job_field "$job" 'd["clock"]') + 200))
  cp "$work/job.json" "$work/first.json"
  keep_states "$job"
  wait_until 60 "job $job ends" state_is "$job" done
  wait "$slower" 2>/dev/null || true
  share=$(share_of_slowest)
  python3 -c "import sys; sys.exit(not $share < 0.15)" || fail "$mode: the slowed rank did $share of the work"
  note "$mode: a rank that is slowed five times does less than 0.15 of the work of four: $share"
  if [ $mode = ssp ]; then
    check "ssp: no clock was begun more than 4 ahead of the slowest, and some were ahead" \
      'sum(r["lead"][k] for r in d["rank_states"] for k in ("5-8", "9-16", "17-32", "33+")) == 0 and sum(r["lead"][k] for r in d["rank_states"] for k in ("1", "2", "3", "4")) > 0' "$work/last.json"
  fi
done

# A stopped rank holds the others back in ssp, and they say for whom they wait; it goes on where it was.
job=$(submit "$work/ssp.yaml" --set ranks=3 --set epochs=20)
wait_until 30 "job $job trains" clock_beyond "$job" 5
mapfile -t tasks < <(task_pids)
kill -STOP "${tasks[0]}"
others_wait() { rank_states "$job" && json "$work/job.json" '[r["waits_for"] for r in d["rank_states"]]' | grep -q "weights"; }
wait_until 20 "the others wait" others_wait
kill -CONT "${tasks[0]}"
# A killed one is replaced, and the coordinator is killed with leases out.
kill -KILL "${tasks[2]}"
kill -KILL "$(pid_of c1)"
co_port=${coordinator##*:} start_coordinator --set coordinator.state_dir="$work/c1"
wait_until 120 "job $job ends" state_is "$job" done
check "a killed rank and a killed coordinator: the job ends, with one epoch's metrics after the other" \
  'd["state"] == "done" and d["epoch"] == 20 and d["test_accuracy"] > 0.9' "$work/job.json"
