#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Mistakes of users: each a sentence with file and place, and the exit code of its kind.
. "$(dirname "$0")/lib.sh"
digits 300 100
job() { digits_job "$work/job.yaml"; sed -i "$1" "$work/job.yaml"; }
run=(ballast run "$work/job.yaml" --set epochs=1)

job 's#layers:.*#layers: [dense 128 relu, densee 10]#'
expect_failure 2 "densee" "${run[@]}"
job 's#ranks: 2#ranks: 2\noptimiser: adam#'
expect_failure 2 "optimizer" "${run[@]}"
job 's#input: \[784\]#input: [783]#'
expect_failure 1 "783" "${run[@]}"
job 's#batch: 64#batch: -3#'
expect_failure 2 "batch" "${run[@]}"

expect_failure 2 "nothing.yaml" ballast run "$work/nothing.yaml"
job 's#train-images#no-such-images#'
expect_failure 1 "no-such-images" "${run[@]}"
cp "$work/data/train-labels-idx1-ubyte" "$work/data/good-labels"
job 's#train-images-idx3-ubyte#train-labels-idx1-ubyte#'
expect_failure 1 "train-labels-idx1-ubyte" "${run[@]}"
gzip -c "$work/data/train-images-idx3-ubyte" >"$work/data/whole.gz"
head -c 2000 "$work/data/whole.gz" >"$work/data/cut.gz"
job 's#train-images-idx3-ubyte#cut.gz#'
expect_failure 1 "cut.gz" "${run[@]}"
printf 'XXXXYYYYZZZZ' >"$work/data/magic"
job 's#train-images-idx3-ubyte#magic#'
expect_failure 1 "magic" "${run[@]}"
python3 - "$work/data" <<'EOF'
import sys
b = bytearray(open(sys.argv[1] + "/good-labels", "rb").read()); b[8 + 17] = 12
open(sys.argv[1] + "/bad-labels", "wb").write(b)
open(sys.argv[1] + "/ragged.csv", "w").write("a,b,y\n1,2,3\n1,2\n3,4,5\n")
open(sys.argv[1] + "/nan.csv", "w").write("a,b,y\n1,2,3\n1,nan,4\n3,4,5\n")
EOF
job 's#train-labels-idx1-ubyte#bad-labels#'
expect_failure 1 "12" "${run[@]}"
grep -q bad-labels "$work/out" || fail "the file with the label out of range is not named"

csv_job() {
  cat >"$work/job.yaml" <<EOF
name: csv
data: {train: {csv: {path: $1, target: y}}}
model: {input: [2], layers: [dense 1]}
loss: squared
optimizer: {sgd: {lr: 0.01}}
batch: 2
epochs: 1
ranks: 1
EOF
}
csv_job "$work/data/ragged.csv"
expect_failure 1 "ragged.csv" "${run[@]}"
grep -q '3' "$work/out" || fail "the ragged line is not named"
csv_job "$work/data/nan.csv"
expect_failure 1 "nan.csv" "${run[@]}"

# A loss that explodes fails the job with its place, and only the job.
seq 1 200 | awk 'BEGIN {print "a,b,y"} {print $1 "," 200 - $1 "," 3 * $1}' >"$work/data/good.csv"
csv_job "$work/data/good.csv"
expect_failure 1 "learning rate" ballast run "$work/job.yaml" --set optimizer.sgd.lr=1000 --set epochs=20

digits_job "$work/job.yaml" "output: /proc/nowhere/model"
expect_failure 1 "/proc/nowhere" "${run[@]}"

expect_failure 3 "does not answer" ballast jobs --cluster tcp://127.0.0.1:9
grep -qF 'tcp://127.0.0.1:9' "$work/out" || fail "the address is not named"
expect_failure 1 "no cluster" ballast jobs
expect_failure 2 "did you mean" ballast jbos
expect_failure 2 "" ballast run
