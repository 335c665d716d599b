#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What compression does to the result and to the bytes: the MLP of conf/jobs/fashion-mlp.yaml on Fashion-MNIST, momentum
SGD with a cosine schedule, the same job and hyper-parameters for every configuration, several seeds. A seed is paired: it
gives all configurations the same initial weights and order of samples.

A run appends a JSON line to --out when it ends; runs that stand there already are not repeated, so it can be interrupted
and goes on where it was. The summary is over all lines of the file: mean test accuracy, the mean difference to "none"
over the seeds that both have with its 95 % confidence interval (Student's t), bytes of a clock up and down over all ranks as the ranks'
own counters say, and how many times fewer that is than float32.

A configuration is a preset, a codec for both ways, PUSH/PULL, or a mapping as in a job file; --set adds settings to all but "none".
Usage: compression_accuracy.py BUILD_DIR JOB.yaml [options]        (JOB: conf/jobs/fashion-mlp.yaml)"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys

import machines as rig

BATCH, LR = 256, 0.1
RUN_S_MAX = 1200
KEY = ("config", "ranks", "seed", "epochs", "batch", "lr")
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T95 = (None, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
       2.101, 2.093, 2.086)


def key_of(record):
    return tuple(record.get(k) for k in KEY)


def read(path):
    if path is None or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(text) for text in f if text.strip()]


def settings(o, config, ranks, seed):
    values = {"optimizer": json.dumps({"momentum": {"lr": o.lr, "momentum": 0.9}}), "schedule": "cosine", "seed": seed,
              "ranks": ranks, "batch": o.batch, "epochs": o.epochs, "data.validation": 0, "output": "null",
              "compression": rig.compression(config)}
    return {**values, **({} if config == "none" else dict(o.set))}


def run(o, config, ranks, seed):
    command = [o.build + "/ballast", "run", o.job, "--servers", "1", "--workers", str(min(ranks, 2)), "--json"]
    for name, value in settings(o, config, ranks, seed).items():
        command += ["--set", f"{name}={value}"]
    env = dict(os.environ, PATH=o.build + ":" + os.environ["PATH"], **rig.ONE_THREAD)
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, timeout=RUN_S_MAX)
    lines = done.stdout.strip().splitlines()
    result = json.loads(lines[-1]) if lines else {"state": "failed", "reason": done.stderr.strip()[-300:]}
    record = {"bench": "compression_accuracy", "config": config, "ranks": ranks, "seed": seed, "epochs": o.epochs,
              "batch": o.batch, "lr": o.lr, "state": result["state"], "load": rig.load()}
    if result["state"] != "done":
        return {**record, "reason": result["reason"]}
    names = {"test_accuracy": "test_accuracy", "train_loss": "train_loss", "clocks": "clocks", "seconds": "seconds",
             "up": "bytes_pushed", "down": "bytes_pulled", "dense_up": "bytes_pushed_dense", "dense_down": "bytes_pulled_dense"}
    return {**record, **{name: result[field] for name, field in names.items()}}


def interval(values):
    """Mean and half of the 95 % confidence interval; NaN where there is nothing to say it from."""
    n = len(values)
    if n < 2:
        return (values[0] if values else math.nan), math.nan
    t = T95[n - 1] if n - 1 < len(T95) else 1.96
    return statistics.mean(values), t * statistics.stdev(values) / math.sqrt(n)


def summary(records):
    """One record per configuration and number of ranks, in the order of their first run."""
    done = [r for r in records if r.get("state") == "done"]
    groups = {}
    for r in done:
        groups.setdefault((r["config"], r["ranks"], r["epochs"], r["batch"], r["lr"]), {})[r["seed"]] = r
    out = []
    for key, by_seed in groups.items():
        exact = groups.get(("none", *key[1:]), {})
        mean, half = interval([r["test_accuracy"] for r in by_seed.values()])
        pairs = [r["test_accuracy"] - exact[s]["test_accuracy"] for s, r in by_seed.items() if s in exact]
        difference, difference_half = interval(pairs)
        total = {f: sum(r[f] for r in by_seed.values()) for f in ("clocks", "up", "down", "dense_up", "dense_down")}
        out.append({"bench": "compression_accuracy", "summary": key[0], "ranks": key[1], "epochs": key[2], "seeds": len(by_seed),
                    "pairs": len(pairs), "test_accuracy": mean, "test_accuracy_ci95": half, "difference": difference,
                    "difference_ci95": difference_half, "up_per_clock": total["up"] / total["clocks"],
                    "down_per_clock": total["down"] / total["clocks"], "up_factor": total["dense_up"] / total["up"],
                    "down_factor": total["dense_down"] / total["down"]})
    return out


def digits(record):
    """Rounded for print; what is not a number is null."""
    places = {"test_accuracy": 5, "test_accuracy_ci95": 5, "difference": 5, "difference_ci95": 5, "up_per_clock": 0,
              "down_per_clock": 0, "up_factor": 2, "down_factor": 2}
    return {k: (None if isinstance(v, float) and math.isnan(v) else round(v, places[k]) if k in places else v)
            for k, v in record.items()}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build", type=os.path.abspath)
    p.add_argument("job", type=os.path.abspath)
    p.add_argument("--configs", default="none;safe;balanced;extreme", help="separated by ';'")
    p.add_argument("--seeds", type=int, default=8, help="so many, from 1")
    p.add_argument("--first-seed", type=int, default=1)
    p.add_argument("--ranks", default="2,4")
    p.add_argument("--epochs", type=int, default=15)
    p.add_argument("--batch", type=int, default=BATCH, help="over all ranks")
    p.add_argument("--lr", type=float, default=LR)
    p.add_argument("--set", action="append", default=[], type=lambda t: tuple(t.split("=", 1)))
    p.add_argument("--out", type=os.path.abspath, help="JSON lines are appended there")
    p.add_argument("--summary", action="store_true", help="run nothing, sum up --out")
    o = p.parse_args()
    o.configs, o.ranks = o.configs.split(";"), [int(r) for r in o.ranks.split(",")]
    return o


def runs(o):
    """Seeds outermost: what is interrupted has complete pairs."""
    for seed in range(o.first_seed, o.first_seed + o.seeds):
        for ranks in o.ranks:
            for config in o.configs:
                yield config, ranks, seed


def main():
    o = arguments()
    if rig.job_data(o.job) is None:
        rig.line({"bench": "compression_accuracy", "skipped": f"the data of {o.job} is absent"})
        return 0
    records, refused = read(o.out), set()
    if not o.summary:
        has = {key_of(r) for r in records if r.get("state") == "done"}
        for config, ranks, seed in runs(o):
            if config in refused or (config, ranks, seed, o.epochs, o.batch, o.lr) in has:
                continue
            against = rig.accepts(o.build, o.job, settings(o, config, ranks, seed))
            if against is not None:
                refused.add(config)
                rig.line({"bench": "compression_accuracy", "config": config, "skipped": against})
                continue
            records.append(run(o, config, ranks, seed))
            rig.line(records[-1], o.out)
    for s in summary(records):
        rig.line(digits(s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
