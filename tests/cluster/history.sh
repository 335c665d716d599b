#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Ten thousand jobs of history: they cost disk, and neither memory nor time of the coordinator. Prints what it measures.
. "$(dirname "$0")/lib.sh"
digits 400 100
digits_job "$work/job.yaml"
sed -i 's/epochs: 3/epochs: 2/' "$work/job.yaml"
n=10000
start_coordinator --set coordinator.history_jobs_max=20000
co_port=${coordinator##*:}
start_server s1
start_worker w1 2
timeout 60 ballast submit "$work/job.yaml" --follow --json >"$work/one.json" 2>/dev/null || fail "the first job"
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of c1)/status"; }
ms() { date +%s%3N; }
timed() { # what command...
  local what=$1 from
  shift
  from=$(ms)
  "$@"
  note "$what: $(($(ms) - from)) ms"
}
timed "a list of 1 job" bash -c "ballast jobs --all >/dev/null"
kill -TERM "$(pid_of c1)"
wait "$(pid_of c1)"
start_coordinator --set coordinator.history_jobs_max=20000
small=$(rss_kib)
kill -TERM "$(pid_of c1)"
wait "$(pid_of c1)"

# Copies of job 1 under numbers of their own: every hundredth failed, every second somebody else's.
python3 - "$work/c1/coordinator.db" $n <<'EOF'
import sqlite3, sys
db, n = sqlite3.connect(sys.argv[1]), int(sys.argv[2])
columns = {t: [c[1] for c in db.execute(f"PRAGMA table_info({t})")] for t in ("job", "rank", "server", "report", "log", "search", "summary")}
for table, key in (("job", "id"), ("rank", "job"), ("server", "job"), ("report", "job"), ("log", "job"), ("search", "job"), ("summary", "job")):
    names = columns[table]
    rows = db.execute(f"SELECT * FROM {table} WHERE {key} = 1").fetchall()
    def copies():
        for i in range(2, n + 2):
            for row in rows:
                r = dict(zip(names, row))
                r[key] = i
                if "token" in r: r["token"] = f"t{i}"
                if "submitter" in r: r["submitter"] = "ann" if i % 2 else "bob"
                if i % 100 == 0 and "phase" in r: r["phase"] = "failed"
                if i % 100 == 0 and table == "search": r["state"] = "failed"
                if i % 1000 == 0 and table == "search": r["name"] = "rare"
                if table == "summary": r["text"] = r["text"].replace('"job":1,', f'"job":{i},')
                yield tuple(r[c] for c in names)
    db.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(names))})", copies())
db.execute("UPDATE last SET job = ?", (n + 1,))
db.commit()
EOF
note "the database has $(stat -c %s "$work/c1/coordinator.db") bytes"
timed "start with $((n + 1)) jobs of history" start_coordinator --set coordinator.history_jobs_max=20000
large=$(rss_kib)
note "resident: $small KiB with 1 job, $large KiB with $((n + 1))"
[ "$large" -le $((small + 16384)) ] || fail "the history is in memory"
wait_until 20 "the nodes are back" bash -c "ballast status | grep -c alive | grep -qx 2"

count() { python3 -c 'import json,sys; print(len(json.load(sys.stdin)["jobs"]))'; }
timed "all of them listed" bash -c "ballast jobs --all --json >$work/all.json"
[ "$(count <"$work/all.json")" -eq $((n + 1)) ] || fail "$(count <"$work/all.json") jobs"
check "each once, by number" '[j["job"] for j in d["jobs"]] == list(range(1, 10002))' "$work/all.json"
timed "a rare name" bash -c "ballast jobs --name 'r?re' --json >$work/rare.json"
check "ten have it" '[j["job"] for j in d["jobs"]] == list(range(1000, 10001, 1000))' "$work/rare.json"
timed "failed, of bob, at most 5" bash -c "ballast jobs --state failed --user bob --limit 5 --json >$work/failed.json"
check "the newest five" '[j["job"] for j in d["jobs"]] == [9600, 9700, 9800, 9900, 10000]' "$work/failed.json"
timed "none" bash -c "ballast jobs --state failed --user ann --json >$work/none.json"
check "no such job" 'd["jobs"] == []' "$work/none.json"
timed "an old job in full" bash -c "ballast status 17 --json >$work/17.json"
check "with its result" 'd["result"]["weights_xxh3"] and len(d["history"]) == 2' "$work/17.json"
ballast logs 17 | grep -q "every rank has delivered" || fail "the lines of an old job"
status_page() { fetch "$co_http/status" >"$work/status.json"; }
timed "the status page" status_page
check "shows the newest" 'len(d["jobs"]) <= 100 and d["jobs"][-1]["job"] == 10001' "$work/status.json"
expect_failure 1 "no job is ever 'asleep': states are queued, starting" ballast jobs --state asleep
expect_failure 2 "'yesterday' is no time" ballast jobs --since yesterday
expect_failure 2 "from -100 to 100" ballast priority 17 101
expect_failure 1 'job 17 cannot be moved in the queue any more: it is done' ballast priority 17 -5
expect_failure 1 'job 17 cannot be cancelled any more: it is done' ballast cancel 17
fetch "$co_http/jobs?name=ra*&limit=2" >"$work/page.json"
check "the page searches too" '[j["job"] for j in d["jobs"]] == [9000, 10000] and d["more"]' "$work/page.json"
fetch "$co_http/jobs?state=asleep" >"$work/page.json" || true
check "and refuses what is no state" '"no job is ever" in d["error"]' "$work/page.json"
timed "a job beside all that" bash -c "timeout 60 ballast submit $work/job.yaml --follow --json >$work/next.json 2>/dev/null"
check "has the next number" "d['job'] == $((n + 2)) and d['state'] == 'done'" "$work/next.json"
[ "$(rss_kib)" -le $((small + 16384)) ] || fail "searching has brought the history into memory: $(rss_kib) KiB"

# Forgetting: a lower limit, in parts, at the next start.
kill -TERM "$(pid_of c1)"
wait "$(pid_of c1)"
start_coordinator --set coordinator.history_jobs_max=50
fifty_are_left() { ballast jobs --all --json >"$work/left.json" && [ "$(count <"$work/left.json")" -eq 50 ]; }
wait_until 60 "50 jobs are left" fifty_are_left
check "the newest" '[j["job"] for j in d["jobs"]] == list(range(9953, 10003))' "$work/left.json"
