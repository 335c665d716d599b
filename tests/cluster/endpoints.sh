#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Status endpoints of the three daemons, and hostile bytes on every port.
. "$(dirname "$0")/lib.sh"
start_coordinator
start_server s1
start_worker w1 2
for name in c1 s1 w1; do
  url=$(json "$work/$name.address" 'd["http"]')
  url=${url%/}
  [ -n "$(fetch "$url/healthz")" ] || fail "$name: /healthz"
  wait_until 10 "$name is ready" fetch "$url/readyz"
  fetch "$url/status" >"$work/status.json"
  python3 -m json.tool "$work/status.json" >/dev/null || fail "$name: /status is not JSON"
  fetch "$url/metrics" >"$work/metrics"
  grep -q '^ballast_build_info' "$work/metrics" || fail "$name: /metrics"
  if command -v promtool >/dev/null; then promtool check metrics <"$work/metrics" || fail "$name: promtool"; else note "promtool is not installed"; fi
  ! fetch "$url/nothing" >/dev/null || fail "$name: a page that does not exist"
done
fetch "${co_http%/}/" | grep -qi '<html' || fail "no status page"

python3 - "$work" <<'EOF'
import glob, json, random, re, socket, sys
ports = set()
for f in glob.glob(sys.argv[1] + "/*.address"):
    ports |= {int(p) for p in re.findall(r"127\.0\.0\.1:(\d+)", open(f).read())}
rnd = random.Random(1)
zmtp = bytes.fromhex("ff00000000000000017f03004e554c4c") + bytes(48)
for port in sorted(ports):
    for size in (1, 12, 64, 4096, 65536):
        for head in (b"", zmtp):
            s = socket.create_connection(("127.0.0.1", port), timeout=5)
            try:
                s.sendall(head + rnd.randbytes(size))
                s.settimeout(0.05)
                s.recv(100)
            except OSError:
                pass
            s.close()
print("-- threw random bytes at", len(ports), "ports")
EOF
digits 500 100
digits_job "$work/job.yaml"
ballast submit "$work/job.yaml" --set epochs=1 --follow 2>/dev/null | grep -q done || fail "no job runs after random bytes"

# Two daemons on one port; a name that is taken; a public address without keys.
port=${coordinator##*:}
expect_failure 1 "$port" ballast-coordinator --set coordinator.port="$port" --set coordinator.state_dir="$work/x" --set coordinator.http=127.0.0.1:0
for d in coordinator server; do
  expect_failure 2 "keys" ballast-$d --set "$d.listen=[0.0.0.0]" --set "$d.state_dir=$work/x" --set "$d.port=0" --set "$d.http=127.0.0.1:0" --set "connect.coordinator=$coordinator"
done
for d in coordinator server worker; do
  expect_failure 2 "no such field" ballast-$d --set nonsense.field=1 --check
  ballast-$d --check >/dev/null || fail "$d --check"
  ballast-$d --dump | diff - "$top/conf/cluster.yaml" || fail "$d --dump differs from conf/cluster.yaml"
  ballast-$d --version | grep -q '^ballast 0' || fail "$d --version"
  ballast-$d --help | grep -q -- --config || fail "$d --help"
done
for name in c1 s1 w1; do kill -0 "$(pid_of $name)" || fail "$name has died"; done
