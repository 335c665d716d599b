#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# data.where: local. Two workers see different files, of different sizes, at one path: the job trains on all of them.
# When a worker goes, its rank waits for it although there is room elsewhere; when it comes back, the job ends with the
# weights that it would have had.
. "$(dirname "$0")/lib.sh"
unshare --mount true 2>/dev/null || skip "no mount namespaces here (needs root)"
mkdir "$work/data" "$work/own1" "$work/own2"
in_view_of() { through=(unshare --mount sh -c "mount --bind '$1' '$work/data' && exec \"\$@\"" sh); }
in_view_of "$work/own1"
"${through[@]}" true 2>/dev/null || skip "bind mounts are not allowed here"
through=()
ballast-digits --out "$work/own1" --train 1000 --test 100 --seed 5 >/dev/null
ballast-digits --out "$work/own2" --train 600 --test 60 --seed 6 >/dev/null
start_own_worker() { # NUMBER
  in_view_of "$work/own$1"
  start_worker "w$1" 2
  through=()
}
is_gone() { ! kill -0 "$1" 2>/dev/null; }
start_coordinator
start_server s1
digits_job "$work/job.yaml"
sed -i 's/^data:$/data:\n  where: local/; s/^epochs: .*/epochs: 40/' "$work/job.yaml"
start_own_worker 1
start_own_worker 2
undisturbed=$(submit "$work/job.yaml")
wait_until 60 "job $undisturbed is done" state_is "$undisturbed" done
check "every sample of both workers was trained on in every epoch" \
  'd["result"]["samples"] == 40 * (900 + 540) and d["result"]["epochs"] == 40' "$work/job.json"
check "both validated and tested all of their own" \
  'd["validation_samples"] == 160 and d["test_samples"] == 160 and all(e["samples"] == 1440 for e in d["history"])' "$work/job.json"
want=$(job_field "$undisturbed" 'd["result"]["weights_xxh3"]')
[ ${#want} -eq 16 ] || fail "weights_xxh3 is '$want'"

id=$(submit "$work/job.yaml")
wait_until 60 "job $id is on its way" clock_beyond "$id" 60
start_worker w3 2 # has room, but no data
kill -KILL "$pid_w2"
waits() { [[ "$(job_field "$id" 'd["waits_for"]')" =~ "job $id waits for rank "[01]": its data is on w2, missing for "[0-9.]+" s" ]]; }
wait_until 30 "the job waits for w2" waits
note "$(job_field "$id" 'd["waits_for"]')"
start_own_worker 2
wait_until 90 "job $id is done" state_is "$id" done
[ "$(job_field "$id" 'd["result"]["weights_xxh3"]')" = "$want" ] || fail "other weights after the loss of a worker"
check "the samples count once" 'd["result"]["samples"] == 40 * (900 + 540)' "$work/job.json"
check "one rank was replaced" 'sorted(r["incarnation"] for r in d["rank_states"]) == [1, 2]' "$work/job.json"

kill -TERM "$pid_w3" # the next job must not start there
wait_until 20 "w3 has ended" is_gone "$pid_w3"
# Data that changes under a job is not taken for what the plan counts on.
id=$(submit "$work/job.yaml")
wait_until 60 "job $id is on its way" clock_beyond "$id" 60
kill -KILL "$pid_w2"
ballast-digits --out "$work/own2" --train 500 --test 60 --seed 6 >/dev/null
start_own_worker 2
wait_until 60 "job $id fails" state_is "$id" failed
grep -qE 'the data of rank [01] on w2 has changed: 450 training samples now, 540 at the start' "$work/job.json" ||
  fail "another reason: $(job_field "$id" 'd["reason"]')"
