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
says "rejected protocol 1 to 1: 'w9' speaks protocol 2 to 3, this coordinator 1 to 1" "$coordinator" register 3 w9 2 3
says "rejected protocol 1 to 1: 's9' speaks protocol 2 to 2" "$coordinator" register 2 s9 2 2
says "registered" "$coordinator" register 3 w8 1 7
says "refuse protocol 1 to 1: rank 0 of job 1 speaks protocol 2 to 3, server s1 1 to 1" "$s1" hello 1 2 3

# A query that makes no sense, and messages of version 2: a heartbeat, and a submit, whose version is 1 for ever.
says "rejected protocol 1 to 1: " "$coordinator" raw 424c010042000000ff
for hex in 424c020024000000 424c020040000000; do
  ! "$peer" "$coordinator" raw $hex >"$work/out" || fail "a message of version 2 was answered: $(cat "$work/out")"
done
! "$peer" "$s1" raw 424c020003000000 >"$work/out" || fail "a push of version 2 was answered: $(cat "$work/out")"
grep -q 'message_refused .*count=1 .*message of protocol version 2, this program speaks 1 to 1' "$work/c1.log" ||
  fail "the coordinator does not log the heartbeat of version 2"
grep -q 'message_refused .*count=2 .*submit of protocol version 2' "$work/c1.log" || fail "no line for the submit"
grep -q 'message_refused .*message of protocol version 2' "$work/s1.log" || fail "the shard does not log the push"
counted() { # URL METRIC AT-LEAST
  fetch "${1%/}/metrics" | awk -v metric="$2" -v least="$3" '$1 ~ "^" metric && $2 >= least {found = 1} END {exit !found}'
}
wait_until 10 "the coordinator counts them" counted "$co_http" ballast_messages_malformed_total 3
wait_until 10 "the shard counts it" counted "$(json "$work/s1.address" 'd["http"]')" ballast_shard_malformed_total 1
ballast status >/dev/null || fail "the coordinator no longer answers"

# A coordinator of version 2: the daemons end with its sentence, the command says it at once.
"$peer" - coordinator "$work/port" >"$work/peer.log" 2>&1 &
pids+=($!)
wait_until 10 "the other coordinator listens" test -s "$work/port"
other=tcp://127.0.0.1:$(cat "$work/port")
for d in server worker; do
  expect_failure 1 "this coordinator 2 to 2" ballast-$d --name x --set "$d.state_dir=$work/x" --set $d.http=127.0.0.1:0 \
    --set "connect.coordinator=$other" $([ $d = server ] && echo --set server.port=0)
  grep -q 'message_refused .*protocol version 2' "$work/out" || fail "$d does not log the message of version 2"
done
expect_failure 1 "it speaks protocol 2 to 2, this command 1 to 1" ballast jobs --cluster "$other"
