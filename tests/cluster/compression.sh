#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Presets of compression train the same model with fewer bytes; a sample that makes a NaN fails a job, or costs it a clock.
. "$(dirname "$0")/lib.sh"
digits 6000 1000
for preset in none safe balanced extreme; do
  digits_job "$work/job.yaml" "compression: $preset"
  sed -i 's/^optimizer: .*/optimizer: {momentum: {lr: 0.05}}/; s/dense 128 relu/dense 512 relu/' "$work/job.yaml"
  ballast check "$work/job.yaml" --json >"$work/check.json"
  ballast run "$work/job.yaml" --servers 2 --json 2>"$work/run.log" | tail -n 1 >"$work/$preset.json"
done
check "a job that does not compress says so" 'd["state"] == "done" and d["bytes_pushed"] > d["bytes_pushed_dense"]' "$work/none.json"
exact=$(json "$work/none.json" 'd["test_accuracy"]')
for least in "safe 7 7" "balanced 80 40" "extreme 140 85"; do
  read -r preset up down <<<"$least"
  check "$preset: $up times fewer bytes up and $down down, headers and control included" \
    "d['state'] == 'done' and d['bytes_pushed_dense'] > $up * d['bytes_pushed'] and d['bytes_pulled_dense'] > $down * d['bytes_pulled']" "$work/$preset.json"
  check "$preset: after these 255 clocks near the accuracy of $exact" "d['test_accuracy'] > $exact - 0.05" "$work/$preset.json"
done
check "check shows what each tensor gets" \
  '[t["push"] for t in d["compression"]][:2] == ["topk(0.01, ternary)", "float16"] and d["compression"][0]["momentum"] > 0.89' "$work/check.json"
expect_failure 2 "keeps moments of whole gradients on the servers" ballast check "$work/job.yaml" --set optimizer=adam

# One sample in 200 is beyond float32.
python3 - "$work/data.svm" <<'PY'
import random, sys
random.seed(4)
with open(sys.argv[1], "w") as out:
    for i in range(200):
        x = [random.gauss(0, 1) for _ in range(4)]
        if i == 77:
            x = [3e38] * 4
        print(int(sum(x) > 0), *(f"{k + 1}:{v:.6g}" for k, v in enumerate(x)), file=out)
PY
cat >"$work/nan.yaml" <<'YAML'
name: nan
data: {train: {libsvm: data.svm}}
model: {input: [4], layers: [dense 16 relu, dense 2]}
loss: softmax_cross_entropy
optimizer: {sgd: {lr: 0.1}}
batch: 20
epochs: 3
ranks: 2
YAML
expect_failure 1 "the learning rate may be too high, or the data wrong" ballast run "$work/nan.yaml"
for policy in skip_clock clip; do
  for compression in none "{push: float16, exact_below: 0}" "{push: \"topk(10%)\", exact_below: 0}"; do
    ballast run "$work/nan.yaml" --json --set not_finite=$policy --set clip.norm=1 --set "compression=$compression" 2>"$work/run.log" | tail -n 1 >"$work/nan.json"
    check "$policy, $compression: the job comes to its end with numbers" \
      'd["state"] == "done" and d["clocks"] == 30 and 0 < d["train_loss"] < 10' "$work/nan.json"
  done
done
