#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# save_every, ballast resume and init_from: a cancelled job goes on from its last output, with sgd to the same bits as one
# that was never stopped; weights come in from folders, files and jobs, and what does not fit is refused with a sentence.
. "$(dirname "$0")/lib.sh"
digits 2000 500
digits_job "$work/job.yaml" "output: $work/model"
cat >>"$work/job.yaml" <<EOF
save_every: 2
schedule: {cosine: {warmup: 20}}
EOF
sed -i 's/epochs: 3/epochs: 30/; s/optimizer: .*/optimizer: {sgd: {lr: 0.1}}/; s/dense 128 relu/dense 512 relu, dropout 0.1, dense 512 relu/' "$work/job.yaml"
ballast run "$work/job.yaml" --set output="$work/straight" --json 2>/dev/null | tail -n 1 >"$work/straight.json"
check "the straight way" 'd["state"] == "done" and d["epochs"] == 30' "$work/straight.json"

start_coordinator
start_server s1
start_server s2
start_worker w1 2
start_worker w2 2
result() { ballast jobs "$1" --json | python3 -c 'import json,sys; json.dump(json.load(sys.stdin)["result"], sys.stdout)' >"$work/result"; }

submit "$work/job.yaml" >/dev/null
expect_failure 1 "job 1 is " ballast resume 1
saved() { [ -s "$work/model/model.safetensors" ]; }
wait_until 60 "something is saved" saved
ballast cancel 1 >/dev/null
wait_until 60 "its tasks are gone" tasks_are 0
[ "$(wc -l <"$work/model/metrics.csv")" -lt 31 ] || fail "the job was over before it was cancelled"
ballast predict --model "$work/model" "$work/data/t10k-images-idx3-ubyte" >/dev/null || fail "what is saved on the way is no model"

ballast resume 1 >"$work/out"
grep -q "job 2 goes on from $work/model; the optimizer's moments start at zero" "$work/out" || fail "resume says: $(cat "$work/out")"
# rank 0 dies once more on the way
wait_until 60 "the job runs" clock_beyond 2 0
kill -KILL "$(task_pids | head -n 1)" 2>/dev/null || true
wait_until 180 "job 2 is done" state_is 2 done
result 2
check "only the rest was done" 'd["epochs"] == 30 and d["samples"] < 30 * 1800 and d["samples"] % 1800 == 0' "$work/result"
[ "$(json "$work/result" 'd["weights_xxh3"]')" = "$(json "$work/straight.json" 'd["weights_xxh3"]')" ] || fail "other bits than without the stop"
note "the same bits as without the stop"
python3 - "$work" <<'EOF'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1] + "/model/metrics.csv")))
straight = list(csv.DictReader(open(sys.argv[1] + "/straight/metrics.csv")))
assert [int(r["epoch"]) for r in rows] == list(range(1, 31)), [r["epoch"] for r in rows]
assert [r["validation_loss"] for r in rows] == [r["validation_loss"] for r in straight]
print("-- metrics.csv has every epoch once")
EOF

expect_failure 1 "30 epochs behind it, and the job asks for 30 in all" ballast resume "$work/model" --follow
ballast resume "$work/model" --epochs 32 --follow >"$work/out" 2>&1 || { cat "$work/out"; fail "a finished job does not go on"; }
grep -q 'done: 32 epochs' "$work/out" || fail "no 32 epochs: $(cat "$work/out")"
note "a finished job goes on with more epochs"

# Fine-tuning: the weights of a job, adam from the start; one epoch is better than one epoch from the seed.
sed -i '/^save_every/d; /^schedule/d; s/epochs: 30/epochs: 1/; s/lr: 0.1/lr: 0.001/' "$work/job.yaml"
ballast submit "$work/job.yaml" --set output="$work/fine" --set 'init_from={job: 2}' --follow >/dev/null 2>&1
last=$(ballast jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["jobs"][-1]["job"])')
result "$last"
check "it starts where job 2 ended" 'd["test_accuracy"] > 0.9 and d["epochs"] == 1' "$work/result"
grep -q "path: $work/model" "$work/fine/job.yaml" || fail "the job number was not resolved: $(grep init_from "$work/fine/job.yaml")"

refused() { expect_failure 1 "$1" ballast submit "$work/job.yaml" --set output="$work/none" --follow "${@:2}"; }
refused "there is no job 99" --set 'init_from={job: 99}'
refused "there is no $work/nowhere/model.safetensors on worker w" --set "init_from=$work/nowhere"
refused "tensor dense1.weight has the shape [784, 512], the model's has [784, 16]" --set "init_from=$work/model" --set 'model.layers=[dense 16 relu, dense 10]'
refused "holds no tensor dense4.weight" --set "init_from=$work/model" --set 'model.layers=[dense 512 relu, dense 512 relu, dense 10 relu, dense 10]'
refused "holds 6 tensors, the model has 4: dense3." --set "init_from=$work/model/model.safetensors" --set 'model.layers=[dense 512 relu, dense 512]'
python3 - "$work/model/model.safetensors" "$work/nan.safetensors" <<'EOF'
import struct, sys
b = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack("<Q", b[:8])[0]
b[8 + n:12 + n] = struct.pack("<f", float("nan"))
open(sys.argv[2], "wb").write(b)
EOF
refused "holds a NaN or infinity" --set "init_from=$work/nan.safetensors"

# Ranks that run free go on, too: the epochs that are left, every sample of each once.
digits_job "$work/free.yaml" "output: $work/free"
echo "save_every: 1" >>"$work/free.yaml"
sed -i 's/epochs: 3/epochs: 30/' "$work/free.yaml"
free_saved() { [ -s "$work/free/model.safetensors" ]; }
for mode in '{ssp: {staleness: 4}}' asp; do
  rm -rf "$work/free"
  job=$(submit "$work/free.yaml" --set "sync=$mode" --set ranks=4)
  wait_until 60 "something is saved in $mode" free_saved
  ballast cancel "$job" >/dev/null
  wait_until 60 "its tasks are gone" tasks_are 0
  ballast resume "$job" >/dev/null
  wait_until 180 "it is done" state_is $((job + 1)) done
  result $((job + 1))
  check "$mode: only the rest was done" \
    'd["epochs"] == 30 and d["samples"] < 30 * 1800 and d["samples"] % 1800 == 0 and d["test_accuracy"] > 0.9' "$work/result"
  [ "$(wc -l <"$work/free/metrics.csv")" = 31 ] || fail "$mode: metrics.csv has not every epoch once"
done

# An average of the weights begins at the weights that come in: an epoch at a rate near zero leaves both as they were.
submit "$work/free.yaml" --set output="$work/average" --set 'average={ema: 0.99}' --set "init_from=$work/free" \
  --set 'optimizer={sgd: {lr: 1e-9}}' --set epochs=1 >"$work/average.job"
wait_until 60 "it is done" state_is "$(cat "$work/average.job")" done
result "$(cat "$work/average.job")"
check "the average begins at the weights that came in" 'd["test_accuracy"] > 0.9' "$work/result"
