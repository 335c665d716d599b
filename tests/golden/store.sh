#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the golden store and model folder of a released version, by its own programs: a small cluster with one job in
# each state, killed in the middle. Run once at a release (CONTRIBUTING.md):
#   BL_TOP_SRCDIR=. BL_TOP_BUILDDIR=build tests/golden/store.sh tests/golden/store-N tests/golden/model-N
# leaves store-N.sql (the database as SQL), store-N.json (the jobs as `ballast jobs --json` told them) and model-N.
out=${1:?STORE} model=${2:?MODEL}
. "$(dirname "$0")/../cluster/lib.sh"
python3 - "$work" <<'PY'
import sys
kinds = ["red", "green", "blue"]
with open(sys.argv[1] + "/train.csv", "w") as f:
    f.write("a,b,kind,y\n")
    for i in range(240):
        a, b, k = (i * 37 % 101) / 50 - 1, (i * 53 % 97) / 48 - 1, kinds[i * 7 % 3]
        f.write(f"{a:.2f},{b:.2f},{k},{'yes' if a + b * b + (k == 'red') > 0.5 else 'no'}\n")
PY
job() { # NAME [more lines]
  cat >"$work/$1.yaml" <<Y
name: $1
seed: 5
data:
  train: {csv: {paths: $work/train.csv, target: y, header: true, categorical: [kind]}}
  validation: 10 %
model:
  input: [5]
  layers: [dense 8 tanh, dense 2]
loss: softmax_cross_entropy
optimizer: {adam: {lr: 0.01}}
batch: 12
ranks: 2
${2:-epochs: 3}
Y
}
job done "epochs: 3
output: $work/model"
job failed
sed -i 's/train.csv/absent.csv/' "$work/failed.yaml"
job cancelled "epochs: 1000000"
job running "epochs: 1000000"
job queued "epochs: 3"
start_coordinator
start_server s1
start_worker w1 2
submit "$work/done.yaml" && wait_until 30 "job 1 is done" state_is 1 done
submit "$work/failed.yaml" && wait_until 30 "job 2 has failed" state_is 2 failed
submit "$work/cancelled.yaml" && wait_until 30 "job 3 runs" clock_beyond 3 100
ballast cancel 3 && wait_until 10 "job 3 is cancelled" state_is 3 cancelled
submit "$work/running.yaml" && wait_until 30 "job 4 runs" clock_beyond 4 100
submit "$work/queued.yaml" && wait_until 10 "job 5 waits" bash -c "ballast jobs 5 --json | grep -q 'waits for'"
for i in 1 2 3 4 5; do ballast jobs $i --json >"$work/job$i.json"; done
kill -KILL "$(pid_of c1)" "$(pid_of w1)"
python3 - "$work" "$out" "$(id -un)" "$(uname -n)" <<'PY'
import glob, json, sqlite3, sys
work, out, user, host = sys.argv[1:]
path, = [p for p in glob.glob(work + "/c1/*") if open(p, "rb").read(6) == b"SQLite"]
db = sqlite3.connect(path)
# Only lengths that stay: packed plans and reports hold the paths too.
name = "/tmp/ballast-golden-" + "v" * (len(work) - len("/tmp/ballast-golden-"))
with open(out + ".sql", "w") as f:
    for pragma in "application_id", "user_version":
        f.write(f"PRAGMA {pragma}={db.execute('PRAGMA ' + pragma).fetchone()[0]};\n")
    for line in db.iterdump():
        line = line.replace(work, name).replace(work.encode().hex().upper(), name.encode().hex().upper())
        f.write(line.replace(work.encode().hex(), name.encode().hex()) + "\n")
jobs = [json.load(open(f"{work}/job{i}.json")) for i in range(1, 6)]
with open(out + ".json", "w") as f:
    f.write(json.dumps(jobs, indent=1).replace(work, name) + "\n")
for end in ".sql", ".json": # the submitter is a name
    text = open(out + end).read().replace(f"'{user}'", "'anna'").replace(f'"{user}"', '"anna"')
    text = text.replace(f" by {user}'", " by anna'")
    open(out + end, "w").write(text)
    if host in text:
        sys.exit(f"{out}{end} names {host}")
PY
rm -rf "$model"
cp -r "$work/model" "$model"
cp "$work/train.csv" "$model/input.csv"
ballast predict --model "$model" "$model/input.csv" >"$model/predictions.csv"
ls -la "$model" "$out".*
