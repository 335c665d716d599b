#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Training throughput of the whole way, one worker with one rank and one thread through one server on loopback,
beside PyTorch on one thread doing the same work alone (same model, batch, Adam, pictures kept in memory as bytes and
taken in random order), in turns: as installed, and tuned (glibc keeps freed memory). Only epochs count: on neither
side the start, the reading of the files or an evaluation.

Usage: e2e.py BUILD_DIR JOB.yaml [rounds]        (JOB: Fashion-MNIST MLP, conf/jobs/fashion-mlp.yaml)
Prints JSON lines: median and spread of samples per second, and the ratios last, medians over the rounds. The server
computes too (sum and optimizer step), and both ends have an I/O thread: on a machine that does other work at the same
time they get its share as well, so look at "load", the number of runnable threads before the first round."""
import csv
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, EPOCHS = 128, 2
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def torch_round(images_path, labels_path):
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    images = torch.from_numpy(np.frombuffer(gzip.open(images_path).read(), np.uint8, offset=16).reshape(-1, 784).copy())
    labels = torch.from_numpy(np.frombuffer(gzip.open(labels_path).read(), np.uint8, offset=8).astype("int64"))
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    loss_of, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch():
        order = torch.randperm(len(images))
        for i in range(0, len(images), BATCH):
            part = order[i:i + BATCH]
            optimizer.zero_grad()
            loss_of(model(images[part].float().div_(255)), labels[part]).backward()
            optimizer.step()

    begin = time.perf_counter()
    for _ in range(EPOCHS):
        epoch()
    print(len(images) * EPOCHS / (time.perf_counter() - begin))


def ballast_round(build, job):
    env = dict(os.environ, PATH=build + ":" + os.environ["PATH"])
    with tempfile.TemporaryDirectory() as folder:
        settings = {"ranks": 1, "batch": BATCH, "epochs": EPOCHS, "data.validation": 0, "data.test": "null",
                    "output": folder + "/model"}
        command = [build + "/ballast", "run", job, "--servers", "1", "--workers", "1", "--json"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
        with open(folder + "/model/metrics.csv", encoding="utf-8") as f:
            epochs = list(csv.DictReader(f))
    return sum(float(e["samples"]) for e in epochs) / sum(float(e["seconds"]) for e in epochs)


def torch_in_child(paths, tuning):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **tuning}
    out = subprocess.run([sys.executable, __file__, "--torch", *paths], env=env, stdout=subprocess.PIPE, text=True)
    return float(out.stdout) if out.returncode == 0 else None


def main():
    build, job = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    text = open(job).read()
    paths = [os.path.join(os.path.dirname(job), p) for p in re.findall(r"[^\s\[\],]*train-[^\s\[\],]*\.gz", text)][:2]
    if len(paths) < 2 or not all(os.path.exists(p) for p in paths):
        print(json.dumps({"bench": "e2e", "skipped": f"the data of {job} is absent"}))
        return
    load = round(os.getloadavg()[0], 1)
    bodies = {"pytorch": lambda: torch_in_child(paths, {}), "ballast": lambda: ballast_round(build, job),
              "pytorch_tuned": lambda: torch_in_child(paths, TUNED)}
    rates = {by: [] for by in bodies}
    for _ in range(rounds):
        for by, body in bodies.items():
            rates[by].append(body())
    for by, values in rates.items():
        if None not in values:
            print(json.dumps({"bench": "e2e", "by": by, "rounds": rounds, "cpus": os.cpu_count(), "load": load,
                              "samples_per_second": round(statistics.median(values)), "min": round(min(values)),
                              "max": round(max(values))}))
    for by in ("pytorch", "pytorch_tuned"):
        if None not in rates[by]:
            ratios = [a / b for a, b in zip(rates["ballast"], rates[by])]
            print(json.dumps({"bench": "e2e", "ballast_over": by, "rounds": rounds, "ratio":
                              round(statistics.median(ratios), 3), "min": round(min(ratios), 3),
                              "max": round(max(ratios), 3)}))


if len(sys.argv) > 1 and sys.argv[1] == "--torch":
    torch_round(*sys.argv[2:4])
else:
    main()
