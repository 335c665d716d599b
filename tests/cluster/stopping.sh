#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Early stopping: a job that overfits ends by itself, and its folder holds the best epoch's model; the same after the
# coordinator was killed and a task with it.
. "$(dirname "$0")/lib.sh"
digits 2000 500
digits_job "$work/job.yaml" "output: $work/best"
sed -i 's/epochs: 3/epochs: 60/; s/validation: 10 %/validation: 40 %/; s/lr: 2e-3/lr: 1e-3/; s/dense 128 relu/dense 512 relu, dense 512 relu/; s/batch: 64/batch: 16/' "$work/job.yaml"
printf 'early_stopping: {metric: validation_loss, patience: 3}\nmetrics: [confusion]\n' >>"$work/job.yaml"
ballast run "$work/job.yaml" --servers 2 --json >"$work/out" 2>"$work/run.log"
tail -n 1 "$work/out" >"$work/result"
check "it stops before its last epoch, three behind the best" 'd["stopped_early"] and d["epochs"] == d["best_epoch"] + 3 < 60' "$work/result"
check "the matrix is that of the best epoch" 'sum(d["test_confusion"][i][i] for i in range(10)) == round(500 * d["test_accuracy"])' "$work/result"
[ -s "$work/best/confusion_test.csv" ] || fail "no confusion_test.csv beside the model"
check "all that was done is counted" 'd["clocks"] == 75 * d["epochs"] and d["samples"] == 1200 * d["epochs"]' "$work/result"

python3 - "$work" <<'EOF'
import csv, json, sys
work = sys.argv[1]
d = json.load(open(work + "/result"))
rows = list(csv.DictReader(open(work + "/best/metrics.csv")))
losses = [float(r["validation_loss"]) for r in rows]
assert len(rows) == d["epochs"], (len(rows), d["epochs"])
assert losses.index(min(losses)) + 1 == d["best_epoch"], (losses, d["best_epoch"])
assert abs(float(rows[d["best_epoch"] - 1]["test_loss"]) - d["test_loss"]) < 1e-6, "not the best epoch's test loss"

def meta(name):
    f = open(work + "/best/" + name, "rb")
    return json.loads(f.read(int.from_bytes(f.read(8), "little")))["__metadata__"]
assert meta("model.safetensors")["epochs"] == str(d["best_epoch"]), meta("model.safetensors")
assert meta("last.safetensors")["epochs"] == str(d["epochs"]) and meta("last.safetensors")["weights_xxh3"] == d["weights_xxh3"]
print("-- the folder holds the model of epoch", d["best_epoch"], "and the last one of epoch", d["epochs"])
EOF
ballast predict --model "$work/best" "$work/data/t10k-images-idx3-ubyte" "$work/data/t10k-labels-idx1-ubyte" 2>"$work/predicted" >/dev/null
json "$work/result" '"accuracy %.4f" % d["test_accuracy"]' >"$work/accuracy"
grep -qF "$(cat "$work/accuracy")" "$work/predicted" || { cat "$work/predicted" "$work/accuracy"; fail "predict has another accuracy"; }
note "what is reported is what predict says"

# Kills on the way change neither the epoch nor a bit.
start_coordinator
co_port=${coordinator##*:}
start_server s1
start_worker w1 1
start_worker w2 1
sed -i "s#output: .*#output: $work/again#" "$work/job.yaml"
submit "$work/job.yaml" >/dev/null
wait_until 60 "the job runs" clock_beyond 1 80
kill -KILL "$(pid_of c1)"
kill -KILL "$(task_pids | head -n 1)"
start_coordinator --set coordinator.http=127.0.0.1:0
wait_until 180 "the job is done" state_is 1 done
ballast jobs 1 --json | python3 -c 'import json,sys; json.dump(json.load(sys.stdin)["result"], sys.stdout)' >"$work/again.json"
for field in epochs best_epoch weights_xxh3 validation_loss; do
  [ "$(json "$work/result" "d['$field']")" = "$(json "$work/again.json" "d['$field']")" ] || fail "$field differs after the kills"
done
cmp -s <(tail -c +4096 "$work/best/model.safetensors") <(tail -c +4096 "$work/again/model.safetensors") || fail "the best models differ"
note "a killed coordinator and a killed task change nothing"
