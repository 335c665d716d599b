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
[ -z "$(pgrep -f "$work" || true)" ] || fail "child processes were left behind"
