#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The example jobs on real data reach the accuracy that the documentation promises.
. "$(dirname "$0")/lib.sh"
[ -d "$data/fashion-mnist" ] || skip "the data sets are absent ($data)"
train() { # NAME JOB options...
  local name=$1 job=$2
  shift 2
  ballast run "$top/conf/jobs/$job" --json --set "output=$work/$name" "$@" 2>"$work/$name.log" | tail -n 1 >"$work/$name.json"
  python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print("  ", {k: d[k] for k in ("test_accuracy","test_loss","validation_rmse","seconds","samples_per_second","weights_xxh3")})' "$work/$name.json"
}
train fashion fashion-mlp.yaml --servers 2 --workers 2
check "Fashion-MNIST, 784-512-256-10, within 12 epochs: at least 0.89 on the test set" \
  'd["state"] == "done" and d["epochs"] <= 12 and d["test_accuracy"] >= 0.89' "$work/fashion.json"
for mode in bsp ssp asp; do
  sync=$mode
  [ $mode != ssp ] || sync='{ssp: {staleness: 4}}'
  train "free-$mode" fashion-ssp.yaml --servers 2 --workers 2 --set "sync=$sync"
done
bsp=$(json "$work/free-bsp.json" 'd["test_accuracy"]')
for mode in ssp asp; do
  check "Fashion-MNIST with 4 ranks in $mode: within 0.01 of bsp's $bsp" \
    "d['state'] == 'done' and abs(d['test_accuracy'] - $bsp) <= 0.01" "$work/free-$mode.json"
done
train large fashion-large-batch.yaml --servers 2 --workers 2
check "Fashion-MNIST in batches of 4096, with lamb, clipping by all ranks' norm and an average of the weights: at least 0.875" \
  'd["state"] == "done" and d["test_accuracy"] >= 0.875' "$work/large.json"
train a9a a9a-logistic.yaml --servers 1 --workers 2
check "a9a, logistic regression: at least 0.848 on the test set" 'd["state"] == "done" and d["test_accuracy"] >= 0.848' "$work/a9a.json"
train ftrl a9a-ftrl.yaml --servers 2 --workers 2
check "a9a, sparse logistic regression with FTRL: at least 0.849 and a log loss of at most 0.3245 on the test set" \
  'd["state"] == "done" and d["test_accuracy"] >= 0.849 and d["test_loss"] <= 0.3245' "$work/ftrl.json"
train housing housing-regression.yaml --servers 1 --workers 2
check "California housing: root mean squared error on districts not trained on, in dollars (guessing the mean: 115,000)" \
  'd["state"] == "done" and d["validation_rmse"] < 80000 and d["train_rmse"] < 55000' "$work/housing.json"
