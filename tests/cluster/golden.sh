#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Model folders of released versions predict what they predicted, and databases of coming ones are left alone.
. "$(dirname "$0")/lib.sh"
for model in "$top"/tests/golden/model-*; do
  ballast predict --model "$model" "$model/input.csv" >"$work/predictions.csv"
  cmp "$work/predictions.csv" "$model/predictions.csv" || fail "$model predicts otherwise than when it was made"
  note "${model##*/} predicts what it did: $(wc -l <"$work/predictions.csv") lines"
done

# A coordinator over the database of version 1, and over one of a version to come.
store() { # VERSION: into $work/c1
  python3 - "$top/tests/golden/store-1.sql" "$work/c1/$1" "$2" <<'PY'
import os, sqlite3, sys
sql, path, version = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
if os.path.exists(path):
    os.remove(path)
db = sqlite3.connect(path)
db.executescript(open(sql).read())
db.execute(f"PRAGMA user_version={version}")
db.commit()
PY
}
start_coordinator
file=$(cd "$work/c1" && grep -l '^SQLite format 3' -- *)
kill -TERM "$(pid_of c1)"
wait "$(pid_of c1)" || fail "the coordinator ended with $?"
rm -rf "$work/c1"
store "$file" 1
start_coordinator
ballast jobs --json >"$work/jobs.json"
check "the jobs of version 1 are there" \
  'sorted((j["job"], j["name"]) for j in d["jobs"]) == [(1, "done"), (2, "failed"), (3, "cancelled"), (4, "running"), (5, "queued")]' "$work/jobs.json"
kill -TERM "$(pid_of c1)"
wait "$(pid_of c1)" || fail "the coordinator ended with $?"
rm -rf "$work/c1"
store "$file" 99
expect_failure 1 "has schema version 99, this program reads up to" ballast-coordinator --name c1 --set coordinator.state_dir="$work/c1" \
  --set coordinator.port=0 --set coordinator.http=127.0.0.1:0
