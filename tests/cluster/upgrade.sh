#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A rolling upgrade of real programs, as doc/operations.md tells it. BALLAST_OLD_BUILD names a build tree of the previous
# version (or a folder with its programs).
. "$(dirname "$0")/lib.sh"
old=${BALLAST_OLD_BUILD:-}
[ -n "$old" ] || skip "BALLAST_OLD_BUILD names no build tree of the previous version"
[ -x "$old/ballast-coordinator" ] || fail "there is no $old/ballast-coordinator"
new=$build
note "from $("$old/ballast" --version) to $("$new/ballast" --version)"
from() { build=$1; } # whose programs `start` takes; commands are today's unless they are called by path
digits 4000 500
digits_job "$work/job.yaml"
sed -i 's/epochs: 3/epochs: 60/' "$work/job.yaml"
weights() { "$1/ballast" run "$work/job.yaml" --json 2>/dev/null | tail -n 1 >"$work/out.json" && json "$work/out.json" 'd["weights_xxh3"]'; }
want=$(weights "$old")
[ "$(weights "$new")" = "$want" ] || fail "both versions alone train different weights"
note "both versions alone train $want"
restart() { # FUNCTION NAME ARGUMENTS...: stops the program and starts that of the new version
  local how=$1 name=$2
  kill -TERM "$(pid_of "$name")"
  wait "$(pid_of "$name")" || fail "$name ended with $? on SIGTERM"
  from "$new"
  case $how in start_coordinator) start_coordinator ;; *) "$how" "$name" "${@:3}" ;; esac
}
speaks() { # NAME VERSION
  ballast status --json >"$work/status.json" && check "$1 speaks $2" "[n for n in d['nodes'] if n['name'] == '$1'][0]['protocol'] == $2" "$work/status.json"
}
done_with() { # JOB WEIGHTS
  timeout 180 ballast wait "$1" --json >"$work/done.json" || fail "job $1 did not end well: $(cat "$work/done.json")"
  check "job $1 is done with the weights of a cluster of one version" "d['result']['weights_xxh3'] == '$2'" "$work/done.json"
}

from "$old"
start_coordinator
co_port=${coordinator##*:}
start_server s1
start_worker w1 2
start_worker w2 2
job=$("$old/ballast" submit "$work/job.yaml" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["job"])')
wait_until 30 "job $job runs on the old cluster" clock_beyond "$job" 100
ballast logs "$job" >/dev/null || fail "the new command cannot read the old coordinator's logs"

restart start_coordinator c1
before=$(job_field "$job" 'd["clock"]')
wait_until 30 "training goes on under the new coordinator" clock_beyond "$job" "$before"
ls "$work"/c1/*.bak >/dev/null 2>&1 && note "the old database is kept: $(cd "$work/c1" && echo *.bak)"
"$old/ballast" jobs "$job" --json >/dev/null || fail "the old command cannot ask the new coordinator"
for w in w1 w2; do
  restart start_worker $w 2
  before=$(job_field "$job" 'd["clock"]')
  wait_until 30 "training goes on with the new $w" clock_beyond "$job" "$before"
done
state_is "$job" running || fail "the job was too short for this test: $(job_field "$job" 'd["state"]')"
speaks w1 2 && speaks s1 1

# What the old server does not understand waits for a new one, and says so.
later=$(submit "$work/job.yaml" --set accumulate=2)
wait_until 60 "job $later says whom it waits for" bash -c "ballast jobs $later --json | grep -q 'needs protocol 2 for accumulate: server s1 speaks 1, upgrade it'"
done_with "$job" "$want"
restart start_server s1
timeout 180 ballast wait "$later" --json >"$work/done.json" || fail "job $later did not end well: $(cat "$work/done.json")"
check "job $later runs on the new server" 'd["state"] == "done"' "$work/done.json"
job=$("$old/ballast" submit "$work/job.yaml" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["job"])')
done_with "$job" "$want"

# The other way round: new nodes and a new command, an old coordinator.
from "$old"
start c2 ballast-coordinator --set coordinator.state_dir="$work/c2" --set coordinator.port=0 --set coordinator.http=127.0.0.1:0
coordinator=$(json "$work/c2.address" 'd["control"]')
export BALLAST_CLUSTER=$coordinator
from "$new"
start_server s3
start_worker w3 2
job=$(submit "$work/job.yaml")
done_with "$job" "$want"
expect_failure 1 "accumulate" ballast submit "$work/job.yaml" --set accumulate=2
if ballast --help | grep -q '^  priority '; then
  expect_failure 1 "speaks protocol 1, and set_priority needs 2: upgrade it" ballast priority "$job" 5
  expect_failure 1 "speaks protocol 1, and a search needs 2: upgrade it" ballast jobs --state done
fi
