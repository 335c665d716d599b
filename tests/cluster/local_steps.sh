#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Local steps as real processes: the same bits whatever carries the job, far fewer bytes than bsp at about the same
# accuracy, and a task that is killed on the way costs its moments, not the job.
. "$(dirname "$0")/lib.sh"
digits 6000 500
digits_job "$work/bsp.yaml"
digits_job "$work/local.yaml" 'sync: {local: {steps: 8}}'
result() { # FILE options of ballast run: the job's last line
  ballast run "$@" --json 2>"$work/run.log" | tail -n 1 >"$work/result.json"
}

result "$work/bsp.yaml" --servers 1 --workers 2
bsp_bytes=$(json "$work/result.json" 'd["bytes_pushed"]')
bsp_accuracy=$(json "$work/result.json" 'd["test_accuracy"]')

for outer in average '{nesterov: {lr: 0.5, momentum: 0.5}}' '{yogi: {lr: 0.003}}' '{average: null, streams: 3, overlap: 4}'; do
  result "$work/local.yaml" --servers 1 --workers 2 --set "outer=$outer"
  check "outer $outer: every sample of 3 epochs once, 33 rounds" \
    'd["state"] == "done" and d["samples"] == 3 * 5400 and d["clocks"] == 33 and d["test_accuracy"] > 0.8' "$work/result.json"
  want=$(json "$work/result.json" 'd["weights_xxh3"]')
  result "$work/local.yaml" --servers 3 --workers 1 --set "outer=$outer" --cluster-set kernels=scalar
  got=$(json "$work/result.json" 'd["weights_xxh3"]')
  [ "$got" = "$want" ] || fail "outer $outer: weights differ on other machines: $got, expected $want"
  if [ "$outer" = average ]; then
    check "average: within 0.02 of bsp's $bsp_accuracy at less than a seventh of its bytes" \
      "d['test_accuracy'] > $bsp_accuracy - 0.02 and 7 * d['bytes_pushed'] < $bsp_bytes" "$work/result.json"
  fi
done

result "$work/local.yaml" --servers 2 --workers 2 --set 'compression={push: "topk(5%, 2bit)", pull: int8}' --set epochs=6
check "5 % of the differences, two bits a number: less than a hundredth of bsp's bytes per epoch" \
  "d['state'] == 'done' and d['test_accuracy'] > $bsp_accuracy - 0.05 and 50 * d['bytes_pushed'] < $bsp_bytes" "$work/result.json"

start_coordinator --set coordinator.state_dir="$work/c1"
start_server s1
start_worker w1 1
start_worker w2 1
start_worker w3 1
job=$(submit "$work/local.yaml" --set epochs=40 --set "outer={nesterov: {lr: 0.7, momentum: 0.3}}")
wait_until 30 "job $job trains" clock_beyond "$job" 5
kill -KILL "$(task_pids | head -n 1)"
wait_until 120 "job $job ends" state_is "$job" done
check "a killed task: the job ends, with every epoch's metrics" \
  'd["state"] == "done" and d["epoch"] == 40 and d["test_accuracy"] > 0.93' "$work/job.json"
grep -h moments_lost "$work"/w*.log >"$work/lost" || fail "nobody says that a rank lost its moments"
note "$(head -n 1 "$work/lost")"
