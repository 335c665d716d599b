#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a slow rank does to the others: a job of several ranks, once as it is and then with one rank's process stopped
most of the time (a fifth of its speed), in bsp, ssp and asp. Prints, as JSON lines, the pace of the other ranks (their
samples per second while one is slowed, over what they had before), median and spread over the rounds, and the slow
rank's share of the work. The stopped process leaves its processor to the others, so above 1 is possible on a machine
with fewer processors than ranks.

Usage: straggler.py BUILD_DIR JOB.yaml [rounds [ranks]]"""
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

FACTOR, WINDOW_S, SETTLE_S, START_S = 5, 4.0, 1.5, 60
SLOW = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "cluster", "slow.py")


def samples(page):
    with urllib.request.urlopen(page + "/jobs/1", timeout=5) as answer:
        job = json.load(answer)
    return time.perf_counter(), [r["samples"] for r in job["rank_states"]], job["clock"]


def has_begun(page):
    try:
        return samples(page)[2] >= 10
    except urllib.error.HTTPError: # the job is not submitted yet
        return False


def rates(page):
    t0, before, _ = samples(page)
    time.sleep(WINDOW_S)
    t1, after, _ = samples(page)
    return [(b - a) / (t1 - t0) for a, b in zip(before, after)]


def task_of_rank_0(run_pid):
    out = subprocess.run(["pgrep", "-f", "ballast-worker.*--task"], stdout=subprocess.PIPE, text=True).stdout
    mine = []
    for pid in map(int, out.split()):
        up = pid
        while up > 1 and up != run_pid:
            with open(f"/proc/{up}/stat", encoding="utf-8") as f:
                up = int(f.read().rsplit(")", 1)[1].split()[1])
        if up == run_pid:
            mine.append(pid)
    return min(mine)


def one(build, job, sync, ranks):
    command = [build + "/ballast", "run", job, "--servers", "1", "--workers", str(ranks), "--set", f"sync={sync}",
               "--set", f"ranks={ranks}", "--set", "epochs=1000", "--set", "output=null"]
    env = dict(os.environ, PATH=build + ":" + os.environ["PATH"])
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    slow = None
    try:
        page = None
        for line in run.stdout:
            found = re.search(r"status page (http://\S+)", line)
            if found:
                page = found.group(1)
                break
        end = time.monotonic() + START_S
        while not has_begun(page):
            if time.monotonic() > end:
                raise RuntimeError(f"the job does not start within {START_S} s")
            time.sleep(0.1)
        even = rates(page)
        pid = task_of_rank_0(run.pid)
        _, at, _ = samples(page)
        slow = subprocess.Popen([sys.executable, SLOW, str(pid), str(FACTOR)])
        time.sleep(SETTLE_S)
        slowed = rates(page)
        victim = min(range(ranks), key=lambda r: slowed[r] / even[r])
        others = [r for r in range(ranks) if r != victim]
        return (sum(slowed[r] for r in others) / sum(even[r] for r in others), slowed[victim] / sum(slowed), sum(slowed) / sum(even))
    finally:
        if slow is not None:
            slow.send_signal(signal.SIGINT)
            slow.wait()
        run.send_signal(signal.SIGINT)
        try:
            run.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            run.kill()


def main():
    build, job = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    ranks = int(sys.argv[4]) if len(sys.argv) > 4 else 2
    modes = {"bsp": "bsp", "ssp": "{ssp: {staleness: 4}}", "asp": "asp"}
    seen = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode, sync in modes.items():
            seen[mode].append(one(build, job, sync, ranks))
    for mode, values in seen.items():
        pace = [v[0] for v in values]
        print(json.dumps({"bench": "straggler", "sync": mode, "ranks": ranks, "slowed_by": FACTOR, "rounds": rounds,
                          "pace_of_the_others": round(statistics.median(pace), 3), "min": round(min(pace), 3),
                          "max": round(max(pace), 3),
                          "share_of_the_slow": round(statistics.median(v[1] for v in values), 3),
                          "throughput_of_all": round(statistics.median(v[2] for v in values), 3),
                          "load": round(os.getloadavg()[0], 1)}))


main()
