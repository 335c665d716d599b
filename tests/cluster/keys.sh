#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A cluster with keys: trains with the right ones, refuses wrong ones and wrong roles.
. "$(dirname "$0")/lib.sh"
digits 500 100
digits_job "$work/job.yaml" 
ballast keygen --out "$work/keys" coordinator:c1 server:s1 worker:w1 admin:anna viewer:vera worker:mallory >/dev/null
[ "$(stat -c %a "$work/keys/c1.key")" = 600 ] || fail "key file mode"
grep -v mallory "$work/keys/allow" >"$work/allow"
public() { awk -v n="$1" '$3 == n {print $1}' "$work/keys/allow"; }
keys_of() { printf -- '--set security.key_file=%s --set security.allow_file=%s' "$work/keys/$1.key" "$work/allow"; }
co_key=$(public c1)
# shellcheck disable=SC2046 # several words
start_coordinator $(keys_of c1)
# shellcheck disable=SC2046
start_server s1 --set "connect.coordinator_key='$co_key'" $(keys_of s1)
# shellcheck disable=SC2046
start_worker w1 2 --set "connect.coordinator_key='$co_key'" $(keys_of w1)
client() { # NAME
  cat >"$work/$1.yaml" <<EOF
connect:
  coordinator: $coordinator
  coordinator_key: "$co_key"
security:
  key_file: $work/keys/$1.key
EOF
  echo "$work/$1.yaml"
}
ballast submit "$work/job.yaml" --set epochs=1 --follow --cluster "$(client anna)" 2>/dev/null | grep -q done || fail "the job did not end well with keys"
note "trained with keys"
ballast status --cluster "$(client vera)" >/dev/null || fail "a viewer may look"
expect_failure 1 "viewer" ballast submit "$work/job.yaml" --cluster "$(client vera)"
expect_failure 3 "does not answer" ballast status --cluster "$(client mallory)"
expect_failure 3 "does not answer" ballast status --cluster "$coordinator"
real_key=$co_key
co_key=$(public mallory)
client anna >/dev/null
mv "$work/anna.yaml" "$work/wrong.yaml"
co_key=$real_key
expect_failure 3 "does not answer" ballast status --cluster "$work/wrong.yaml"
chmod 644 "$work/keys/anna.key"
expect_failure 1 "anna.key" ballast status --cluster "$(client anna)"

# A new worker: its key is listed, coordinator and server read the list again, and a job runs on it alone.
ballast keygen --out "$work/keys" worker:w2 >/dev/null
cp "$work/keys/allow" "$work/allow"
for name in c1 s1; do kill -HUP "$(pid_of $name)"; done
for name in c1 s1; do wait_until 10 "$name has read the list again" grep -q ev=reloaded "$work/$name.log"; done
kill -TERM "$(pid_of w1)"
# shellcheck disable=SC2046
start_worker w2 2 --set "connect.coordinator_key='$co_key'" $(keys_of w2)
chmod 600 "$work/keys/anna.key"
timeout 60 ballast submit "$work/job.yaml" --set epochs=1 --follow --cluster "$(client anna)" 2>/dev/null | grep -q done ||
  fail "no job runs on a worker whose key was added later"
note "a key added later is allowed after a reload"
