#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ballast bench codec: every codec of the build has its lines, they parse and make sense, mistakes are said.
# shellcheck source=tests/cluster/lib.sh
source "${BL_TOP_SRCDIR:?}/tests/cluster/lib.sh"

lines() { python3 -c 'import json,sys; print(json.dumps([json.loads(l) for l in open(sys.argv[1])]))' "$1" >"$2"; }

note "the default list, in cache"
timeout 120 ballast bench codec --json --size 64KiB --rounds 1 --kernels auto >"$work/all.jsonl"
lines "$work/all.jsonl" "$work/all.json"
check "the machine comes first" 'd[0]["bench"] == "machine" and d[0]["cores"] >= 1 and "scalar" in d[0]["kernels"] and len(d[0]["cpu"]) > 0' "$work/all.json"
check "every line has its figures" 'all(m["bench"] == "codec" and m["gbps"] > 0 and m["gbps_min"] <= m["gbps"] <= m["gbps_max"] and m["memcpy_multiple"] > 0 and m["bits_per_element"] > 0 and m["relative_error"] >= 0 and m["bytes"] == 65536 and m["cached"] for m in d[1:])' "$work/all.json"
check "exact ones lose nothing, the others something" 'all((m["relative_error"] == 0) == m["codec"].startswith("float32") for m in d[1:])' "$work/all.json"
check "each codec has all directions" 'all({"encode", "check", "decode", "accumulate", "sum8"} <= {m["direction"] for m in d[1:] if m["codec"] == c} for c in {m["codec"] for m in d[1:]})' "$work/all.json"
check "sparse codecs are above the floor, not far" 'all(m["index_bits_per_kept"] > 0.99 * m["floor_bits_per_kept"] and m["index_bits_per_kept"] < 1.5 * m["floor_bits_per_kept"] for m in d if m.get("codec", "").startswith("topk"))' "$work/all.json"
check "momentum is corrected where a codec takes it" '{m["codec"].split("(")[0] for m in d if m.get("direction") == "encode_momentum"} == {"topk", "threshold", "randomk"}' "$work/all.json"
sed -n 's|.*\.name = "\(.*\)",.*|\1|p' "$top"/common/codec/*.c | grep -v '^zstd$' | while read -r name; do
  grep -q "\"codec\":\"${name}[(\"]" "$work/all.jsonl" || fail "no line of codec $name: add it to specs_default"
done

note "what is chosen is what is measured"
ballast bench codec --json --size 2MiB --rounds 3 --kernels scalar --codec float16 --codec ' topk( 1%,ternary )' >"$work/two.jsonl"
lines "$work/two.jsonl" "$work/two.json"
check "two codecs, one table, two chunks" '{(m["codec"], m["kernels"], m["bytes"], m["chunk_bytes"], m["rounds"]) for m in d[1:]} == {("float16", "scalar", 2097152, 1048576, 3), ("topk(0.01, ternary)", "scalar", 2097152, 1048576, 3)}' "$work/two.json"
check "float16 has 16 bits" 'all(abs(m["bits_per_element"] - 16) < 0.01 for m in d if m.get("codec") == "float16")' "$work/two.json"
ballast bench codec --size 64KiB --rounds 1 --kernels scalar --codec sign --codec 'lowrank(2)' >"$work/table.txt"
grep -q 'sign: 1.0.* bits per element' "$work/table.txt" || fail "no heading of sign"
[ "$(grep -c 'decode and add' "$work/table.txt")" -eq 2 ] || fail "not one row each"

expect_failure 2 "there is no codec 'gzip'" ballast bench codec --codec gzip
expect_failure 2 "'200%' is no density" ballast bench codec --codec 'topk(200%)'
expect_failure 2 "'5KiB' is no size" ballast bench codec --size 5KiB
expect_failure 2 'no kernels "mmx"' ballast bench codec --kernels mmx
expect_failure 2 "'0' is no number of rounds" ballast bench codec --rounds 0
expect_failure 2 "unexpected argument 'int8'" ballast bench codec int8
expect_failure 2 "did you mean 'codec'?" ballast bench codek
expect_failure 2 "Usage: ballast bench" ballast bench
ballast bench --help | grep -q 'codec' || fail "no help"
ballast bench codec --help | grep -q -- '--kernels' || fail "no help of codec"
