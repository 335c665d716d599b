#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two workers that see different files at one path: the job fails before its first clock and says where and what.
# Each worker runs in a mount namespace of its own; the second sees another folder in place of the data.
. "$(dirname "$0")/lib.sh"
unshare --mount true 2>/dev/null || skip "no mount namespaces here (needs root)"
digits 400 100
mkdir "$work/other"
elsewhere=(unshare --mount sh -c "mount --bind '$work/other' '$work/data' && exec \"\$@\"" sh)
"${elsewhere[@]}" true 2>/dev/null || skip "bind mounts are not allowed here"
start_coordinator
start_server s1
start_worker w1 1
through=("${elsewhere[@]}")
start_worker w2 1
through=()
digits_job "$work/job.yaml"
same() { rm -rf "$work"/other/*; cp "$work"/data/* "$work/other"; }
swap_bytes() { # FILE: two of its samples change places
  python3 - "$1" <<'PY'
import sys
b = bytearray(open(sys.argv[1], "rb").read()); b[-1], b[-2] = (b[-1] + 1) % 10, (b[-2] + 3) % 10
open(sys.argv[1], "wb").write(b)
PY
}
fails() { # 'regular expression'
  local id
  id=$(submit "$work/job.yaml")
  wait_until 30 "job $id fails" state_is "$id" failed
  note "$(job_field "$id" 'd["reason"]')"
  grep -qE "$1" "$work/job.json" || fail "no '$1' in the reason"
  check "it failed before its first clock" '(d["clock"] or 0) == 0' "$work/job.json"
}

ballast-digits --out "$work/other" --train 380 --test 100 --seed 5 >/dev/null
fails 'differs between workers: rank [01] on w[12] has (360|342) training, (40|38) validation and 100 test samples; w[12] has'
same
swap_bytes "$work/other/train-labels-idx1-ubyte"
fails 'differs between workers, in as many samples: rank [01] on w[12] has fingerprint [0-9a-f]{16} \(training set [0-9a-f]{16}, test set [0-9a-f]{16}\); w[12]'
same
swap_bytes "$work/other/t10k-labels-idx1-ubyte"
fails 'differs between workers, in as many samples: .*test set'
same
mv "$work/other/t10k-labels-idx1-ubyte" "$work/other/t10k"
fails 'w2.*t10k-labels-idx1-ubyte|t10k-labels-idx1-ubyte.*w2'
same
ballast submit "$work/job.yaml" --follow --set epochs=1 2>/dev/null | grep -q done || fail "equal files are refused"
