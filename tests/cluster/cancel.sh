#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cancel frees at once: the servers' memory goes back to the system, in whatever state the job was; a task that does not
# listen is killed, and nobody waits for it with the memory.
. "$(dirname "$0")/lib.sh"
digits 600 100
digits_job "$work/small.yaml"
sed -i 's/epochs: 3/epochs: 1/' "$work/small.yaml"
digits_job "$work/large.yaml"
# 8 million weights with Adam: 128 MiB on the servers, besides what is under way.
sed -i -e 's/^  layers: .*/  layers: [dense 2048 relu, dense 2048 relu, dense 1024 relu, dense 10]/' -e 's/epochs: 3/epochs: 1000/' "$work/large.yaml"
start_coordinator
start_server s1
start_server s2
start_worker w1 2

rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of "$1")/status"; }
accounted() { fetch "$co_http/status" >"$work/status.json" && json "$work/status.json" \
  'sum(n["memory_used_bytes"] + n["memory_reserved_bytes"] for n in d["nodes"] if n["role"] == "server")'; }
accounted_is() { [ "$(accounted)" -eq "$1" ]; }
accounted_beyond() { [ "$(accounted)" -gt "$1" ]; }
slots_are_free() { fetch "$co_http/status" >"$work/status.json" && [ "$(json "$work/status.json" 'sum(n.get("slots_used", 0) for n in d["nodes"])')" = 0 ]; }
# 8 MiB: buffers of the connections, and what the process has learned to keep.
is_small() { [ "$(rss_kib s1)" -le $((before_s1 + 8192)) ] && [ "$(rss_kib s2)" -le $((before_s2 + 8192)) ]; }
is_free() {
  wait_until 20 "the servers count nothing for jobs" accounted_is 0
  wait_until 20 "the servers' memory is the system's again ($(rss_kib s1) and $(rss_kib s2) KiB)" is_small
}

timeout 60 ballast submit "$work/small.yaml" --follow >/dev/null 2>&1 || fail "the first job"
wait_until 20 "its tasks are gone" tasks_are 0
before_s1=$(rss_kib s1) before_s2=$(rss_kib s2)
note "before: resident $before_s1 and $before_s2 KiB"
wait_until 20 "the servers count nothing for jobs" accounted_is 0

job=$(submit "$work/large.yaml")
wait_until 60 "the large job runs" clock_beyond "$job" 3
used=$(accounted)
with_s1=$(rss_kib s1) with_s2=$(rss_kib s2)
note "while it runs: $used bytes accounted, resident $with_s1 and $with_s2 KiB"
[ "$used" -gt $((200 << 20)) ] || fail "only $used bytes are accounted (used and reserved)"
[ $((with_s1 + with_s2)) -gt $((before_s1 + before_s2 + (100 << 10))) ] || fail "the job takes no memory?"
ballast cancel "$job" | grep -qx "job $job cancelled" || fail "the answer to cancel"
state_is "$job" cancelled || fail "job $job is not cancelled at once"
is_free
wait_until 20 "its tasks are gone" tasks_are 0
note "after: resident $(rss_kib s1) and $(rss_kib s2) KiB"

# In the middle of its start, at whatever point that is.
for delay in 0 0.15 0.3 0.45 0.6 0.8; do
  job=$(submit "$work/large.yaml")
  python3 -c "import time; time.sleep($delay)"
  state=$(job_field "$job" 'd["phase"]')
  ballast cancel "$job" >/dev/null
  state_is "$job" cancelled || fail "job $job is not cancelled at once"
  wait_until 20 "no task of it lives" tasks_are 0
  wait_until 20 "its slots are free" slots_are_free
  is_free
  note "cancelled $delay s after its submission ($state): nothing is left"
done

# In the queue, behind one that runs; and with a task that hears nothing.
job=$(submit "$work/large.yaml")
waiting=$(submit "$work/small.yaml" --set ranks=2)
wait_until 60 "the large job runs again" clock_beyond "$job" 1
state_is "$waiting" queued || fail "job $waiting does not wait"
ballast cancel "$waiting" >/dev/null
state_is "$waiting" cancelled || fail "job $waiting is not cancelled at once"
for p in $(task_pids); do kill -STOP "$p"; done
ballast cancel "$job" >/dev/null
is_free
[ "$(n_tasks)" -gt 0 ] || fail "the stopped tasks are gone before anybody killed them"
note "the memory is free although the tasks still stand there"
wait_until 30 "the tasks that do not listen are killed" tasks_are 0
wait_until 10 "their slots are free" slots_are_free
timeout 60 ballast submit "$work/small.yaml" --follow >/dev/null 2>&1 || fail "the cluster does not work on"
