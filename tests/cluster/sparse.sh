#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sparse models end to end: a log of clicks as slots and as text, one server and two, one rank and two, with the cache of
# keys and without; what is saved predicts as training evaluated.
. "$(dirname "$0")/lib.sh"
ballast-clicks --out "$work/slots" --train 20000 --test 4000 --bits 14 >"$work/truth"
ballast-clicks --out "$work/text" --train 20000 --test 4000 --bits 14 --csv >"$work/truth.csv"
cat "$work/truth"

job() { # NAME TRAIN TEST
  cat >"$work/$1.yaml" <<EOF
name: clicks
data:
  train: $2
  test: $3
model: {input: [16384], layers: [sparse 1]}
loss: sigmoid_cross_entropy
optimizer: {ftrl: {lr: 0.1, beta: 0.004}}
batch: 256
epochs: 2
EOF
}
job npy '{npy: [slots/train-slots.npy, slots/train-labels.npy]}' '{npy: [slots/test-slots.npy, slots/test-labels.npy]}'
job csv '{csv: {path: text/train.csv, target: click, hash: {bits: 14}}}' '{csv: {path: text/test.csv}}'
sed 's/sparse 1\]/sparse 4 tanh, dense 1]/; s/{ftrl: .*}/adagrad/' "$work/npy.yaml" >"$work/deep.yaml"

run() { # NAME JOB options...
  local name=$1 job=$2
  shift 2
  ballast run "$work/$job.yaml" --json --set "output=$work/$name" "$@" 2>"$work/$name.log" | tail -n 1 >"$work/$name.json"
}
same() { # NAME NAME: the same weights, bit for bit
  json "$work/$1.json" 'd["weights_xxh3"]' >"$work/a"
  json "$work/$2.json" 'd["weights_xxh3"]' >"$work/b"
  cmp -s "$work/a" "$work/b" || fail "$1 and $2 ended with different weights: $(cat "$work/a") and $(cat "$work/b")"
  note "$1 and $2: the same weights, $(cat "$work/a")"
}

run slots npy --servers 1 --workers 1
check "the log loss comes near to the truth's" \
  "d['state'] == 'done' and d['test_loss'] < $(json "$work/slots/truth.json" 'd["log_loss_of_truth"]') + 0.06" "$work/slots.json"
run text csv --servers 1 --workers 1
same slots text
run spread npy --servers 2 --workers 1 --set 'chunk=4 KiB'
same slots spread
run nocache npy --servers 1 --workers 1 --set keys.cache=0
same slots nocache
check "keys that are always sent cost bytes" \
  "d['bytes_pushed'] > $(json "$work/slots.json" 'd["bytes_pushed"]')" "$work/nocache.json"
run two npy --servers 2 --workers 2 --set ranks=2
run two_again npy --servers 1 --workers 1 --set ranks=2
same two two_again
run free npy --servers 2 --workers 2 --set ranks=2 --set sync=asp
check "without keeping in step too" \
  "d['state'] == 'done' and d['test_loss'] < $(json "$work/slots/truth.json" 'd["log_loss_of_truth"]') + 0.07" "$work/free.json"
run deep deep --servers 1 --workers 1
run deep_again deep --servers 2 --workers 1 --set 'chunk=4 KiB'
same deep deep_again

cut -d, -f1-39 "$work/text/test.csv" >"$work/unlabelled.csv"
for model in slots text deep; do
  file=$work/slots/test-slots.npy
  [ $model = text ] && file=$work/unlabelled.csv
  ballast predict --model "$work/$model" "$file" >"$work/$model.predicted"
  note "$model: $(wc -l <"$work/$model.predicted") lines"
done
cmp "$work/slots.predicted" "$work/text.predicted" || fail "slots and text are predicted differently"
ballast-worker --predict --model "$work/slots" "$work/slots/test-slots.npy" "$work/slots/test-labels.npy" 2>&1 >/dev/null | tee "$work/summary"
python3 - "$work/summary" "$work/slots.json" <<'EOF' || fail "prediction and evaluation disagree"
import json, sys
said = float(open(sys.argv[1]).read().split()[-1])
assert abs(said - json.load(open(sys.argv[2]))["test_accuracy"]) < 1e-4
EOF
ballast check "$work/npy.yaml" | tee "$work/check" | grep -q 'up to 16384 rows' || fail "ballast check says nothing of the table"
