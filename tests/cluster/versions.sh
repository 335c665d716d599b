#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Peers of another protocol version: told in a sentence which versions are spoken; messages of another version are
# counted and logged, and change nothing.
. "$(dirname "$0")/lib.sh"
peer=$build/tests/cluster/peer
[ -x "$peer" ] || fail "$peer is not built"
start_coordinator
start_server s1
start_worker w1 1
s1=$(json "$work/s1.address" 'd["shards"][0]')
says() { # 'expected part' peer-arguments...
  local text=$1
  shift
  "$peer" "$@" >"$work/out" 2>&1 || { cat "$work/out" >&2; fail "no answer to: peer $*"; }
  grep -qF -- "$text" "$work/out" || { cat "$work/out" >&2; fail "no '$text' in the answer to: peer $*"; }
  note "$(cat "$work/out")"
}
says "rejected protocol 1 to 2: 'w9' speaks protocol 3 to 4, this coordinator 1 to 2" "$coordinator" register 3 w9 3 4
says "rejected protocol 1 to 2: 's9' speaks protocol 3 to 3" "$coordinator" register 2 s9 3 3
says "registered protocol 2" "$coordinator" register 3 w8 1 7
says "registered protocol 1" "$coordinator" register 3 w7 1 1
says "refuse protocol 1 to 2: rank 0 of job 1 speaks protocol 3 to 4, server s1 1 to 2" "$s1" hello 1 3 4

# A query that makes no sense, and what version 1 to 2 does not have: a heartbeat of version 3, and a submit of
# version 2, which is spoken in version 1 for ever.
says "rejected protocol 1 to 2: " "$coordinator" raw 424c010042000000ff
for hex in 424c030024000000 424c020040000000; do
  ! "$peer" "$coordinator" raw $hex >"$work/out" || fail "a message of another version was answered: $(cat "$work/out")"
done
! "$peer" "$s1" raw 424c030003000000 >"$work/out" || fail "a push of version 3 was answered: $(cat "$work/out")"
grep -q 'message_refused .*count=1 .*message of protocol version 3, this program speaks 1 to 2' "$work/c1.log" ||
  fail "the coordinator does not log the heartbeat of version 3"
grep -q 'message_refused .*count=2 .*submit of protocol version 2' "$work/c1.log" || fail "no line for the submit"
grep -q 'message_refused .*message of protocol version 3' "$work/s1.log" || fail "the shard does not log the push"
counted() { # URL METRIC AT-LEAST
  fetch "${1%/}/metrics" | awk -v metric="$2" -v least="$3" '$1 ~ "^" metric && $2 >= least {found = 1} END {exit !found}'
}
wait_until 10 "the coordinator counts them" counted "$co_http" ballast_messages_malformed_total 3
wait_until 10 "the shard counts it" counted "$(json "$work/s1.address" 'd["http"]')" ballast_shard_malformed_total 1
ballast status >/dev/null || fail "the coordinator no longer answers"

# A coordinator of version 3: the daemons end with its sentence, the command says it at once.
"$peer" - coordinator "$work/port" >"$work/peer.log" 2>&1 &
pids+=($!)
wait_until 10 "the other coordinator listens" test -s "$work/port"
other=tcp://127.0.0.1:$(cat "$work/port")
for d in server worker; do
  expect_failure 1 "this coordinator 3 to 3" ballast-$d --name x --set "$d.state_dir=$work/x" --set $d.http=127.0.0.1:0 \
    --set "connect.coordinator=$other" $([ $d = server ] && echo --set server.port=0)
  grep -q 'message_refused .*protocol version 3' "$work/out" || fail "$d does not log the message of version 3"
done
expect_failure 1 "it speaks protocol 3 to 3, this command 1 to 2" ballast jobs --cluster "$other"
