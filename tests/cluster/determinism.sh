#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same job file and seed give the same weights, whatever carries them.
. "$(dirname "$0")/lib.sh"
digits 2000 200
digits_job "$work/job.yaml"
hash_of() { # options of ballast run
  ballast run "$work/job.yaml" --json "$@" 2>/dev/null | tail -n 1 >"$work/result"
  json "$work/result" 'd["weights_xxh3"]'
}
want=$(hash_of --servers 1 --workers 1)
[ ${#want} -eq 16 ] || fail "weights_xxh3 is '$want'"
for options in "--servers 2 --workers 1" "--servers 3 --workers 2" "--servers 1 --workers 2" \
  "--servers 2 --workers 2 --cluster-set kernels=scalar" "--servers 2 --workers 2 --cluster-set kernels=avx2" \
  "--servers 2 --workers 2 --cluster-set server.shards=3"; do
  case $options in *avx2*) grep -qw avx2 /proc/cpuinfo || continue ;; esac
  # shellcheck disable=SC2086 # options are several words
  got=$(hash_of $options)
  [ "$got" = "$want" ] || fail "weights differ with $options: $got, expected $want"
  note "same weights with $options"
done
other=$(hash_of --servers 1 --workers 1 --set seed=8)
[ "$other" != "$want" ] || fail "another seed gives the same weights: the hash does not hash"
half=$(hash_of --servers 1 --workers 2 --set compression=float16)
[ "$half" = "$(hash_of --servers 3 --workers 1 --set compression=float16)" ] || fail "float16 is not reproducible"
