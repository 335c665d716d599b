#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `ballast run`: a private cluster trains digits, writes a model that `ballast predict` reads.
. "$(dirname "$0")/lib.sh"
digits
digits_job "$work/job.yaml" "output: $work/model"
ballast check "$work/job.yaml" --json >"$work/check"
check "what it will cost" 'd["ok"] and d["train_samples"] == 3600 and d["clocks"] == 171 and d["server_bytes"] > 0 and d["seconds"] > 0' "$work/check"
ballast run "$work/job.yaml" --servers 2 --workers 2 --json >"$work/out" 2>"$work/run.log"
tail -n 1 "$work/out" >"$work/result"
check "the job is done" 'd["state"] == "done"' "$work/result"
check "accuracy on pictures it has not seen" 'd["test_accuracy"] > 0.9' "$work/result"
check "all promised fields are there" 'set("job state reason clocks epochs samples seconds samples_per_second train_loss test_loss test_accuracy bytes_pushed bytes_pulled bytes_pushed_dense bytes_pulled_dense weights_xxh3".split()) <= set(d)' "$work/result"
check "every sample once per epoch" 'd["samples"] == 3 * 3600' "$work/result"
check "clocks are epochs times batches" 'd["clocks"] == 3 * 57' "$work/result"
check "float32 costs little more than the numbers" '1 <= d["bytes_pushed"] / d["bytes_pushed_dense"] < 1.05' "$work/result"
[ "$(grep -c '^epoch ' "$work/run.log")" -eq 3 ] || fail "one line per epoch"
for f in job.yaml model.safetensors preprocess.json metrics.csv; do [ -s "$work/model/$f" ] || fail "no $f in the model folder"; done
[ "$(wc -l <"$work/model/metrics.csv")" -eq 4 ] || fail "metrics.csv has one row per epoch and a header"
ballast predict --model "$work/model" "$work/data/t10k-images-idx3-ubyte" >"$work/predictions.csv"
python3 - "$work" <<'EOF'
import csv, sys
work = sys.argv[1]
labels = open(work + "/data/t10k-labels-idx1-ubyte", "rb").read()[8:]
rows = list(csv.DictReader(open(work + "/predictions.csv")))
key = [k for k in rows[0] if k in ("class", "prediction", "label")][0]
right = sum(int(r[key]) == l for r, l in zip(rows, labels))
assert len(rows) == len(labels) == 1000, len(rows)
assert right > 900, right
print("-- predictions agree with the labels in", right, "of 1000")
EOF
ballast run "$work/job.yaml" --set epochs=1 --set compression=float16 --json 2>/dev/null | tail -n 1 >"$work/half"
check "float16 halves the bytes" '0.49 < d["bytes_pushed"] / d["bytes_pushed_dense"] < 0.53 and 0.49 < d["bytes_pulled"] / d["bytes_pulled_dense"] < 0.60' "$work/half"

# What `metrics` asks for, against what predictions say.
digits_job "$work/metrics.yaml" "output: $work/measured"
ballast run "$work/metrics.yaml" --set 'metrics=[top3, log_loss, confusion]' --set accumulate=2 --json >"$work/out" 2>"$work/metrics.log"
tail -n 1 "$work/out" >"$work/result"
grep -q '^epoch .*validation top3 0\.' "$work/metrics.log" || fail "an epoch's line does not show what was asked for"
check "accumulation halves the clocks" 'd["clocks"] == 3 * 29' "$work/result"
check "top3 beats accuracy" 'd["test_accuracy"] < d["test_top3"] < 1 and d["test_log_loss"] == d["test_loss"]' "$work/result"
check "the matrix holds every test sample" 'sum(map(sum, d["test_confusion"])) == 1000' "$work/result"
check "its diagonal is the accuracy" 'sum(d["test_confusion"][i][i] for i in range(10)) == round(1000 * d["test_accuracy"])' "$work/result"
ballast predict --model "$work/measured" "$work/data/t10k-images-idx3-ubyte" "$work/data/t10k-labels-idx1-ubyte" >"$work/predictions.csv" 2>/dev/null
python3 - "$work" <<'EOF'
import csv, math, sys
work = sys.argv[1]
rows = list(csv.DictReader(open(work + "/predictions.csv")))
matrix = [[int(x) for x in line[1:]] for line in list(csv.reader(open(work + "/measured/confusion_test.csv")))[1:]]
own = [[0] * 10 for _ in range(10)]
top = loss = 0
for r in rows:
    own[int(r["target"])][int(r["class"])] += 1
    p = [float(r["p(%d)" % k]) for k in range(10)]
    top += sorted(p)[-3] <= p[int(r["target"])]
    loss -= math.log(max(p[int(r["target"])], 1e-12)) / len(rows)
assert own == matrix, (own, matrix)
last = list(csv.DictReader(open(work + "/measured/metrics.csv")))[-1]
assert abs(float(last["test_top3"]) - top / len(rows)) < 1e-6, (last, top)
assert abs(float(last["test_log_loss"]) - loss) < 1e-3, (last, loss)
print("-- confusion, top-k and log loss agree with the predictions")
EOF
[ -z "$(pgrep -f "$work" || true)" ] || fail "child processes were left behind"
