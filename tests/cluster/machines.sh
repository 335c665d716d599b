#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Three machines with real systemd, keys, and one cluster.yaml on all: installs, starts the units, trains a job,
# restarts the coordinator by power loss, trains again. Follows doc/operations.md.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "needs root for network namespaces"
for tool in ip nft unshare nsenter systemctl; do command -v $tool >/dev/null || skip "$tool is not installed"; done
[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
unshare --mount true 2>/dev/null || skip "no mount namespaces here"
rig=$top/tests/cluster/rig
"$rig" down >/dev/null 2>&1 || true
at_exit() { "$rig" down >/dev/null 2>&1; }
on() { "$rig" sh "$@"; }

digits 2000 500
make -C "$build" install DESTDIR="$work/image" >"$work/install.out" 2>&1 || fail "make install"
ballast keygen --out "$work/keys" coordinator:h1-coordinator server:h1-server server:h2-server worker:h2-worker \
  worker:h3-worker admin:anna >/dev/null
co_key=$(awk '$3 == "h1-coordinator" {print $1}' "$work/keys/allow")
cat >"$work/cluster.yaml" <<EOF
connect:
  coordinator: tcp://h1:7070
  coordinator_key: "$co_key"
coordinator:
  listen: ["::"]
server:
  listen: ["::"]
  memory: 1 GiB
worker:
  slots: 1
  data_roots: [/srv/ballast]
  output_roots: [/srv/ballast]
security:
  key_file: /etc/ballast/keys/%r.key
  allow_file: /etc/ballast/allow
EOF
digits_job "$work/job.yaml" "output: /srv/ballast/model"
sed -i "s#$work/data#/srv/ballast/data#g" "$work/job.yaml"

cat >"$work/hook" <<EOF
#!/usr/bin/env bash
set -euo pipefail
root=\$1 name=\$2
cp -a "$work/image/." "\$root/"
mkdir -p "\$root/etc/ballast/keys" "\$root/srv/ballast"
cp "$work/cluster.yaml" "\$root/etc/ballast/cluster.yaml"
cp "$work/keys/allow" "\$root/etc/ballast/allow"
for role in coordinator server worker; do
  [ ! -f "$work/keys/\$name-\$role.key" ] || cp "$work/keys/\$name-\$role.key" "\$root/etc/ballast/keys/\$role.key"
done
[ \$name != h1 ] || { cp "$work/keys/anna.key" "\$root/root/anna.key"; cp "$work/job.yaml" "\$root/root/job.yaml"; }
cp -a "$work/data" "\$root/srv/ballast/data"
EOF
chmod +x "$work/hook"
RIG_HOOK=$work/hook "$rig" up 3
note "three machines are up"
for k in 1 2 3; do
  on $k systemd-sysusers
  on $k systemd-tmpfiles --create ballast.conf
  on $k chown -R ballast:ballast /etc/ballast/keys /srv/ballast
  on $k systemctl daemon-reload
done
failed_log() { on "$1" journalctl -u "$2" --no-pager -n 40; fail "$2 on h$1 did not start"; }
on 1 systemctl enable --now ballast-coordinator.service || failed_log 1 ballast-coordinator
on 1 systemctl enable --now ballast-server.service || failed_log 1 ballast-server
on 2 systemctl enable --now ballast-server.service ballast-worker.service || failed_log 2 ballast-server
on 3 systemctl enable --now ballast-worker.service || failed_log 3 ballast-worker
for unit in ballast-coordinator ballast-server; do on 1 systemctl is-active --quiet $unit || failed_log 1 $unit; done

cat >"$work/client.yaml" <<EOF
connect: {coordinator: "tcp://h1:7070", coordinator_key: "$co_key"}
security: {key_file: /root/anna.key}
EOF
on 1 mkdir -p /root/.config/ballast
on 1 tee /root/.config/ballast/client.yaml <"$work/client.yaml" >/dev/null
command_on_h1() { on 1 env HOME=/root "$@"; }
program=$(cd "$work/image" && find . -path '*/bin/ballast' -type f | sed 's/^\.//')

wait_until 15 "all nodes are registered" bash -c "[ \$('$rig' sh 1 env HOME=/root $program status --json | python3 -c 'import json,sys; print(sum(n[\"state\"] == \"alive\" for n in json.load(sys.stdin)[\"nodes\"]))') -ge 4 ]"
command_on_h1 "$program" status
timeout 120 "$rig" sh 1 env HOME=/root "$program" submit /root/job.yaml --follow --json >"$work/result" 2>"$work/submit.log" || {
  for k in 1 2 3; do on $k journalctl --no-pager -n 30 -u 'ballast-*'; done
  cat "$work/result" "$work/submit.log"; fail "the job did not end well"; }
check "trained on three machines" 'd["state"] == "done" and d["result"]["test_accuracy"] > 0.8' "$work/result"
want=$(json "$work/result" 'd["result"]["weights_xxh3"]')
[ "$(ballast run "$work/job.yaml" --set output=null --set "data.train.idx=[$work/data/train-images-idx3-ubyte, $work/data/train-labels-idx1-ubyte]" --set "data.test.idx=[$work/data/t10k-images-idx3-ubyte, $work/data/t10k-labels-idx1-ubyte]" --json 2>/dev/null | tail -n 1 | python3 -c 'import json,sys; print(json.load(sys.stdin)["weights_xxh3"])')" = "$want" ] ||
  fail "three machines and one give different weights"
note "the same weights as on one machine"
on 2 cat /srv/ballast/model/metrics.csv >"$work/metrics.csv" 2>/dev/null || on 3 cat /srv/ballast/model/metrics.csv >"$work/metrics.csv"
[ "$(wc -l <"$work/metrics.csv")" -eq 4 ] || fail "no metrics.csv beside the model on the worker that wrote it"

"$rig" crash 1
"$rig" boot 1
wait_until 20 "the coordinator is back after a power loss" on 1 systemctl is-active --quiet ballast-coordinator.service
wait_until 20 "its jobs are still known" bash -c "'$rig' sh 1 env HOME=/root $program jobs 1 --json | grep -q '\"done\"'"
on 3 systemctl stop ballast-worker.service
[ "$(on 3 systemctl show -p Result --value ballast-worker.service)" = success ] || fail "unclean stop"
