#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Daemons with several addresses, IPv6, an advertised address that is not the first they listen on, and ports that
# are taken.
. "$(dirname "$0")/lib.sh"
python3 -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2>/dev/null || skip "no IPv6 loopback here"
digits 500 100
digits_job "$work/job.yaml" 'output: '"$work/model"

listens() { # ADDRESS PORT
  python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()' "$1" "$2" ||
    fail "nobody listens on $1 port $2"
}
free_ports() { # the middle one of three free ports in a row, on both addresses
  python3 - <<'PY'
import socket
def free(port):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as s: s.bind((host, port))
        except OSError: return False
    return True
print(next(p for p in range(21001, 32000, 3) if free(p - 1) and free(p) and free(p + 1)))
PY
}

both='[127.0.0.1, "::1"]'
start_coordinator --set "coordinator.listen=$both"
port=${coordinator##*:}
[ "$coordinator" = "tcp://127.0.0.1:$port" ] || fail "the first of the addresses is what is advertised, not $coordinator"
listens 127.0.0.1 "$port"
listens ::1 "$port"
start_server s1 --set "server.listen=$both" --set server.advertise=::1 --set server.shards=2
shard=$(json "$work/s1.address" 'd["shards"][1]')
case $shard in tcp://\[::1\]:*) ;; *) fail "the advertised address of a shard is $shard" ;; esac
listens 127.0.0.1 "${shard##*:}"
listens ::1 "${shard##*:}"
coordinator="tcp://[::1]:$port"
start_worker w1 1 --set 'worker.http="[::1]:0"'
coordinator=tcp://localhost:$port
start_worker w2 1
case $(json "$work/w1.address" 'd["http"]') in http://\[::1\]:*) ;; *) fail "HTTP on ::1: $(cat "$work/w1.address")" ;; esac
wait_until 10 "w1's page on ::1" fetch "$(json "$work/w1.address" 'd["http"]')/readyz"
ballast submit "$work/job.yaml" --cluster "tcp://[::1]:$port" --follow --set epochs=1 2>/dev/null | grep -q done ||
  fail "no job over IPv6"
[ -f "$work/model/model.safetensors" ] || fail "no model"
ballast status --json >"$work/status.json"
grep -qF "$shard" "$work/status.json" || note "the status does not list endpoints"

# Ports that are taken: which one, and exit code 1.
free=$(free_ports)
server=(ballast-server --name x --set server.state_dir="$work/x" --set server.http=127.0.0.1:0
  --set "connect.coordinator=$coordinator")
start_server s2 --set "server.port=$free"
expect_failure 1 "127.0.0.1 port $free" "${server[@]}" --set "server.port=$free"
expect_failure 1 "127.0.0.1 port $free" "${server[@]}" --set "server.port=$((free - 1))" --set server.shards=2
start_server s3 --set "server.port=$((free + 1))" --set 'server.listen=["::1"]'
expect_failure 1 "::1 port $((free + 1))" "${server[@]}" --set "server.port=$((free + 1))" --set "server.listen=$both"
expect_failure 1 "$port" ballast-coordinator --set "coordinator.port=$port" --set 'coordinator.listen=["::1"]' \
  --set coordinator.state_dir="$work/x" --set coordinator.http=127.0.0.1:0
expect_failure 2 "beyond port 65535" "${server[@]}" --set server.port=65535 --set server.shards=2
expect_failure 1 "192.0.2.1" "${server[@]}" --set server.port=0 --set 'server.listen=[192.0.2.1]' --set security.insecure=true
for d in server worker; do
  http=$(json "$work/c1.address" 'd["http"]')
  http=${http#http://}
  expect_failure 1 "${http%/}" ballast-$d --name x --set $d.state_dir="$work/x" --set $d.http="${http%/}" \
    --set "connect.coordinator=$coordinator" $([ $d = server ] && echo --set server.port=0)
done
