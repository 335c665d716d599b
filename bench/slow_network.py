#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two machines on a slow network: the MLP 784-512-256-10 on Fashion-MNIST, two ranks with 128 samples each per clock, SGD
with momentum 0.9. Ballast with several compressions beside PyTorch's DistributedDataParallel over gloo with no hook, the
fp16 hook and PowerSGD of rank 1 (bench/ddp.py, where /usr/bin/python3 has torch).

The machines are network namespaces joined by a veth pair, each end of which lets through the rate (tbf, burst 32kb). On
machine A stand coordinator, server 1 and worker 1, on machine B server 2 and worker 2, so half of what ranks and shards
say to each other crosses the link: as much each way as an all-reduce of two. "loopback" is one namespace with all of it. Every task and every
rank of PyTorch has one thread. Needs root; skips with the reason otherwise.

Three parts, JSON lines each; --out appends them to a file (bench/results/slow_network.jsonl is what doc/compression.md is made of):
  step      milliseconds of a clock: median over the second half of short epochs, no evaluation; in rounds, so that what
            else the machine does hits all
  accuracy  whole training: accuracy on the test set after every epoch, and the seconds until then, evaluation included
            on both sides (the ranks share it); seconds to 0.88. Where that would take more than --limit seconds the
            accuracies of loopback are taken (in bsp they do not depend on the link) and seconds are clocks times
            the step's median: "computed"
  counters  what the interface counted beside what Ballast reports; for this the servers are on A and the workers on B

Usage: slow_network.py BUILD_DIR JOB.yaml [options]        (JOB: conf/jobs/fashion-mlp.yaml)"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import machines as rig

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
RANKS, BATCH, LR, TARGET = 2, 128, 0.1, 0.88
PARAMETERS = 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10
RIVALS = ("none", "fp16", "powersgd1")
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
FOREVER = 100000


def clocks_per_epoch(rate):
    """Of the short epochs of a step's measurement: some seconds at most without any compression."""
    return 25 if rate is None or rate >= 100 else 5


class Bench:
    def __init__(self, o, data, folder):
        self.o, self.data, self.folder = o, data, folder
        self.sets = {}
        with rig.Machines(None) as machines: # two joined ones have the same
            self.congestion = machines.congestion()

    def emit(self, part, rate, **more):
        record = {"bench": "slow_network", "part": part, "mbit": rate, **more, "load": rig.load(), "cpus": os.cpu_count(),
                  "tcp": self.congestion}
        rig.line(record, self.o.out)
        return record

    def files(self, n_train):
        """(paths, n_train, n_test) of the joined sets, made once per size."""
        if n_train not in self.sets:
            folder = tempfile.mkdtemp(dir=self.folder)
            self.sets[n_train] = rig.join_sets(self.data, folder, n_train)
        return self.sets[n_train]

    # ---- Ballast

    def settings(self, config, n_train, epochs, tested):
        (images, labels), n, n_test = self.files(n_train)
        values = {"data.train.idx": f"[{images}, {labels}]", "data.test": "null",
                  "data.validation": round(n_test / (n + n_test), 12), "ranks": RANKS, "batch": RANKS * BATCH, "epochs": epochs,
                  "optimizer": json.dumps({"momentum": {"lr": self.o.lr, "momentum": 0.9}}),
                  "schedule": "cosine" if tested else "constant", "seed": self.o.seed, "output": "null",
                  "compression": rig.compression(config)}
        if not tested: # what is held out is not looked at: leave the test set out of the file
            values["data.train.idx"] = "[" + ", ".join(self.only_train(images, labels, n)) + "]"
            values["data.validation"] = 0
        return {**values, **dict(self.o.set)}

    def only_train(self, images, labels, n):
        out = []
        for path in (images, labels):
            cut = path.replace("-idx", "-only-idx")
            if not os.path.exists(cut):
                header, body = rig.read_idx(path)
                total = int.from_bytes(header[4:8], "big")
                rig.write_idx(cut, header, n, body[:len(body) // total * n])
            out.append(cut)
        return out

    def train(self, rate, config, n_train, epochs, tested, seconds=None, apart=False):
        servers, workers = ((0, 0), (1, 1)) if apart else ((0, 1), (0, 1))
        with rig.Machines(rate) as machines, rig.Cluster(self.o.build, machines, servers, workers) as cluster:
            before = machines.counted(0)
            job = cluster.follow(cluster.submit(self.o.job, self.settings(config, n_train, epochs, tested)), seconds,
                                 poll_s=0.5 if seconds is not None else 1.0)
            after = machines.counted(0)
            if job["state"] == "failed":
                raise RuntimeError(job["reason"])
        interface = {"received": after[0] - before[0], "sent": after[1] - before[1]}
        clock, epochs = 0, []
        for e in job["history"]:
            epochs.append({"clocks": e["clock"] - clock, "seconds": e["seconds"], "accuracy": e["validation_accuracy"]})
            clock = e["clock"]
        return epochs, job, interface

    # ---- PyTorch

    def torch(self, rate, hook, n_train, epochs, tested, seconds=None):
        (images, labels), n, n_test = self.files(n_train)
        if not tested:
            images, labels = self.only_train(images, labels, n)
        hook, _, start = hook.partition("@")
        processes = []
        with rig.Machines(rate) as machines:
            try:
                for rank in range(RANKS):
                    command = [PYTHON, HERE + "/ddp.py", "--rank", str(rank), "--world", str(RANKS), "--master",
                               f"{machines.address_of(0)}:29501", "--images", images, "--labels", labels, "--test",
                               str(n_test if tested else 0), "--hook", hook, "--power-start", start or str(self.o.power_start),
                               "--batch", str(BATCH), "--lr", str(self.o.lr), "--epochs", str(epochs), "--seed",
                               str(self.o.seed), "--seconds", str(seconds or 0)] + (["--cosine"] if tested else [])
                    env = dict(os.environ, GLOO_SOCKET_IFNAME=machines.interface, **rig.ONE_THREAD, **TUNED)
                    processes.append(machines.start(rank, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
                out, errors = processes[0].communicate()
                if processes[0].returncode != 0:
                    raise RuntimeError(errors.strip()[-300:])
            finally:
                rig.stop(processes)
        return [json.loads(text) for text in out.splitlines()]

    # ---- the parts

    def contenders(self):
        """(by, name, epochs(rate, n_train, epochs, tested, seconds)) of all that can run here."""
        for config in self.o.configs:
            against = rig.accepts(self.o.build, self.o.job, self.settings(config, None, 1, True))
            if against is not None:
                rig.line({"bench": "slow_network", "by": "ballast", "config": config, "skipped": against})
                continue
            yield "ballast", config, lambda *a, c=config: self.train(a[0], c, *a[1:])[0]
        if self.o.no_torch:
            return
        if subprocess.run([PYTHON, "-c", "import torch.distributed as d; assert d.is_gloo_available()"], stderr=subprocess.DEVNULL,
                          check=False).returncode != 0:
            rig.line({"bench": "slow_network", "by": "ddp", "skipped": f"{PYTHON} has no torch with gloo (python3-torch)"})
            return
        for hook in self.o.hooks:
            yield "ddp", hook, lambda *a, h=hook: self.torch(a[0], h, *a[1:])

    def steps(self, rate, contenders):
        """{(by, name): median seconds of a clock}"""
        n = clocks_per_epoch(rate) * BATCH * RANKS
        seen = {}
        for _ in range(self.o.rounds):
            for by, name, run in contenders:
                epochs = run(rate, n, FOREVER, False, self.o.seconds)
                late = epochs[len(epochs) // 2:]
                seen.setdefault((by, name), []).append((statistics.median(e["seconds"] / e["clocks"] for e in late), sum(e["clocks"] for e in late)))
        medians = {}
        for (by, name), values in seen.items():
            ms = [1000 * v[0] for v in values]
            medians[by, name] = statistics.median(ms) / 1000
            self.emit("step", rate, by=by, config=name, rounds=len(ms), clocks=sum(v[1] for v in values),
                      step_ms=round(statistics.median(ms), 2), min=round(min(ms), 2), max=round(max(ms), 2))
        return medians

    def accuracy(self, rate, contenders, medians, curves):
        """curves: {(by, name): epochs} of loopback, filled by it, used where a run would take too long."""
        for by, name, run in contenders:
            key, computed = (by, name), False
            step = medians.get(key)
            clocks = self.o.epochs * -(-60000 // (BATCH * RANKS))
            if rate is not None and step is not None and step * clocks > self.o.limit and key in curves:
                epochs = [{**e, "seconds": step * e["clocks"]} for e in curves[key]]
                computed = True
            else:
                epochs = run(rate, self.o.samples, self.o.epochs, True, None)
            if rate is None:
                curves[key] = epochs
            at, stamps = 0.0, []
            for e in epochs:
                at += e["seconds"]
                stamps.append((round(at, 3), e["accuracy"]))
            reached = next((t for t, a in stamps if a >= TARGET), None)
            self.emit("accuracy", rate, by=by, config=name, epochs=len(epochs), seconds_to_target=reached, target=TARGET,
                      final_accuracy=stamps[-1][1], best_accuracy=max(a for _, a in stamps), seconds=stamps[-1][0],
                      computed=computed, curve=stamps)

    def counters(self, rate, configs):
        for config in configs:
            epochs, job, interface = self.train(rate, config, clocks_per_epoch(rate) * BATCH * RANKS, 4, False, apart=True)
            result, clocks = job["result"], sum(e["clocks"] for e in epochs)
            self.emit("counters", rate, config=config, clocks=clocks, seconds=round(sum(e["seconds"] for e in epochs), 2),
                      interface_up=interface["received"], interface_down=interface["sent"],
                      reported_up=result["bytes_pushed"], reported_down=result["bytes_pulled"],
                      dense_up=result["bytes_pushed_dense"], dense_down=result["bytes_pulled_dense"])


def table(records):
    """The last step and accuracy of every contender and rate, for people."""
    steps = {(r["mbit"], r["by"], r["config"]): r for r in records if r.get("part") == "step"}
    ends = {(r["mbit"], r["by"], r["config"]): r for r in records if r.get("part") == "accuracy"}
    rows = ["| link | who | step, ms | seconds to 0.88 | final accuracy |", "|---|---|---|---|---|"]
    for key in dict.fromkeys([*steps, *ends]):
        s, e = steps.get(key), ends.get(key)
        link = "loopback" if key[0] is None else f"{key[0]} Mbit/s"
        took = "" if e is None else "never" if e["seconds_to_target"] is None else f"{e['seconds_to_target']:.1f}" + (" (computed)" if e["computed"] else "")
        rows.append(f"| {link} | {key[1]} {key[2]} | {'' if s is None else s['step_ms']} | {took} | {'' if e is None else e['final_accuracy']} |")
    return "\n".join(rows)


def rates(text):
    return [None if r == "loopback" else int(r) for r in text.split(",")]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build", type=os.path.abspath)
    p.add_argument("job", type=os.path.abspath)
    p.add_argument("--quick", action="store_true", help="a smoke run: 100 Mbit/s, one short round, one epoch")
    p.add_argument("--parts", default="step,accuracy,counters")
    p.add_argument("--rates", type=rates, default="loopback,1000,100,10", help="Mbit/s and loopback, which comes first")
    p.add_argument("--configs", default="none;safe;balanced;extreme;auto", help="separated by ';': presets, codecs, PUSH/PULL, mappings")
    p.add_argument("--hooks", default=",".join(RIVALS), help="none, fp16, powersgdR, powersgdR@STEP with the step at which it begins")
    p.add_argument("--no-torch", action="store_true")
    p.add_argument("--power-start", type=int, default=10, help="step at which PowerSGD begins (PyTorch's default of 1000 would cost it seconds on slow links)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=6, help="of one measurement of a step")
    p.add_argument("--epochs", type=int, default=12)
    p.add_argument("--limit", type=float, default=240, help="longest whole training, in seconds")
    p.add_argument("--lr", type=float, default=LR)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--set", action="append", default=[], type=lambda t: tuple(t.split("=", 1)), help="one more setting of Ballast's job")
    p.add_argument("--out", type=os.path.abspath)
    o = p.parse_args()
    o.samples = None
    if o.quick:
        o.rates, o.rounds, o.seconds, o.epochs, o.samples = [100], 1, 1, 1, 5120
    o.configs, o.hooks, o.parts = o.configs.split(";"), [h for h in o.hooks.split(",") if h], o.parts.split(",")
    return o


def main():
    o = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)) # machines and processes are taken down
    data, why = rig.job_data(o.job), rig.missing()
    if data is None:
        why = f"the data of {o.job} is absent"
    if why is not None:
        rig.line({"bench": "slow_network", "skipped": why})
        return 0
    folder = tempfile.mkdtemp(prefix="ballast-bench-data-")
    try:
        bench, records, curves = Bench(o, data, folder), [], {}
        keep = bench.emit
        bench.emit = lambda *a, **m: records.append(keep(*a, **m))
        contenders = list(bench.contenders())
        for rate in o.rates:
            medians = bench.steps(rate, contenders) if "step" in o.parts else {}
            if "accuracy" in o.parts:
                bench.accuracy(rate, contenders, medians, curves)
            if "counters" in o.parts and rate is not None:
                bench.counters(rate, [name for by, name, _ in contenders if by == "ballast"])
        print(table(records), file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
