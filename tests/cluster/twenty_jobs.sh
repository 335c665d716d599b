#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Twenty jobs at once, of different sizes, on 2 servers and 3 workers: all end as they should, some with the very weights
# that they have alone, and afterwards nothing is left of them: no slot, no task, no memory.
. "$(dirname "$0")/lib.sh"
digits 1500 300

# job NAME RANKS LAYERS EPOCHS [more lines]
job() {
  digits_job "$work/$1.yaml"
  sed -i -e "s/^name: .*/name: $1/" -e "s/^ranks: .*/ranks: $2/" -e "s/^  layers: .*/  layers: [$3]/" -e "s/^epochs: .*/epochs: $4/" \
    "$work/$1.yaml"
  [ $# -lt 5 ] || printf '%s\n' "$5" >>"$work/$1.yaml"
}
job softmax1 1 'dense 10' 4
job softmax2 2 'dense 10' 4 'priority: 5'
job softmax4 4 'dense 10' 2
job softmax12 12 'dense 10' 120
job small1 1 'dense 32 relu, dense 10' 3
job small2 2 'dense 32 tanh, dense 10' 3 'priority: -5'
job small3 3 'dense 32 relu, dense 10' 3
job mlp1 1 'dense 128 relu, dense 10' 3
job mlp2 2 'dense 128 relu, dense 10' 3
job mlp3 3 'dense 128 relu, dropout 0.1, dense 10' 2
job half2 2 'dense 128 relu, dense 10' 2 'compression: {push: float16, pull: float16}'
job clip2 2 'dense 64 relu, dense 10' 2 'clip: {norm: 1.0}'
job deep4 4 'dense 64 relu, dense 64 relu, dense 64 relu, dense 10' 2
job wide1 1 'dense 1024 relu, dense 10' 1
job wide2 2 'dense 1024 relu, dense 256 relu, dense 10' 1 'priority: 10'
job wide4 4 'dense 1024 relu, dense 10' 1
job slow2 2 'dense 10' 100000
job nan1 1 'dense 64 relu, dense 64 relu, dense 10' 50
sed -i 's/^optimizer: .*/optimizer: {momentum: {lr: 1e6}}/' "$work/nan1.yaml"
job lost1 1 'dense 10' 1
sed -i "s|train-images|no-images|" "$work/lost1.yaml"
job last1 1 'dense 32 relu, dense 10' 1 'priority: -100'

start_coordinator
start_server s1
start_server s2
for w in w1 w2 w3; do start_worker $w 4; done

server_fields() { fetch "$co_http/status" >"$work/status.json" && json "$work/status.json" \
  'sorted((n["name"], n["memory_used_bytes"], n["memory_reserved_bytes"]) for n in d["nodes"] if n["role"] == "server")'; }
slots_used() { fetch "$co_http/status" >"$work/status.json" && json "$work/status.json" 'sum(n["slots_used"] for n in d["nodes"] if n["role"] == "worker")'; }
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of "$1")/status"; }

# Alone: what their weights should be. The large one also brings the servers to their working size.
for name in wide2 mlp2 softmax12; do
  timeout 60 ballast submit "$work/$name.yaml" --follow --json >"$work/alone-$name.json" 2>/dev/null || fail "$name does not even end alone"
  eval "alone_$name=$(json "$work/alone-$name.json" 'd["result"]["weights_xxh3"]')"
done
wait_until 20 "no task is left" tasks_are 0
before=$(server_fields)
declare -A rss
for s in s1 s2; do rss[$s]=$(rss_kib $s); done
note "servers before: $before, resident ${rss[s1]} and ${rss[s2]} KiB"

# At once: the first takes all slots, so that the others gather behind it.
declare -A id
for file in softmax12 softmax1 softmax2 softmax4 slow2 small1 small2 small3 wide1 wide2 wide4 nan1 lost1 mlp1 mlp2 mlp3 half2 clip2 deep4 last1; do
  id[$file]=$(submit "$work/$file.yaml")
done
[ ${#id[@]} -eq 20 ] || fail "${#id[@]} jobs"
ballast jobs
ballast jobs --state queued --json >"$work/queued.json"
check "jobs wait, each in its place, and say so" \
  'len(d["jobs"]) >= 10 and all(j["waits_for"] for j in d["jobs"]) and any("in the queue behind job" in j["waits_for"] for j in d["jobs"])' "$work/queued.json"
check "priorities decide about the place" \
  '(lambda q: q["last1"]["place"] == max(j["place"] for j in q.values()))({j["name"]: j for j in d["jobs"]})' "$work/queued.json"
ballast priority "${id[last1]}" -- -99 | grep -qx "job ${id[last1]} has priority -99" || fail "ballast priority"

wait_until 60 "the endless job runs" clock_beyond "${id[slow2]}" 5
ballast cancel "${id[slow2]}"

for name in "${!id[@]}"; do
  timeout 100 ballast wait "${id[$name]}" --json >"$work/$name.json" 2>/dev/null || true
  case $name in
    slow2) want=cancelled ;;
    nan1 | lost1) want=failed ;;
    *) want=done ;;
  esac
  check "$name is $want" "d['state'] == '$want'" "$work/$name.json"
done
check "who fails says why: numbers" '"not finite" in d["reason"] or "NaN" in d["reason"]' "$work/nan1.json"
check "who fails says why: files" '"no-images" in d["reason"]' "$work/lost1.json"
for name in wide2 mlp2 softmax12; do
  eval "want=\$alone_$name"
  check "$name has the weights that it has alone" "d['result']['weights_xxh3'] == '$want'" "$work/$name.json"
done
check "it learned something" 'd["result"]["test_accuracy"] > 0.8' "$work/mlp2.json"

# Nothing is left.
wait_until 20 "no task is left" tasks_are 0
is_as_before() { [ "$(server_fields)" = "$before" ] && [ "$(slots_used)" = 0 ]; }
wait_until 20 "servers and workers hold nothing" is_as_before
note "servers after: $(server_fields)"
for s in s1 s2; do
  now=$(rss_kib $s)
  note "$s: resident ${rss[$s]} KiB before, $now KiB after"
  [ "$now" -le $((${rss[$s]} + 4096)) ] || fail "$s has grown by $((now - ${rss[$s]})) KiB"
done
ballast jobs --all --json >"$work/all.json"
check "all of them are history" 'len(d["jobs"]) == 23 and all(j["state"] in ("done", "failed", "cancelled") for j in d["jobs"])' "$work/all.json"
ballast jobs --name 'wide*' --state done --json >"$work/wide.json"
check "and found by name" '[j["name"] for j in d["jobs"]] == ["wide2", "wide1", "wide2", "wide4"]' "$work/wide.json"
