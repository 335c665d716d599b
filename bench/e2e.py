#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Training throughput of the whole way, one worker with one rank and one thread through one server on loopback,
beside PyTorch on one thread doing the same work alone (same model, batch, optimizer, data in memory), in turns.

Usage: e2e.py BUILD_DIR JOB.yaml [rounds]        (JOB: Fashion-MNIST MLP, conf/jobs/fashion-mlp.yaml)
Prints JSON lines: median and spread of samples per second, and the ratio last. The server computes too (sum and
optimizer step); on one machine it takes a core of its own, which is stated as "cpus"."""
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import time

BATCH, EPOCHS = 128, 2


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
    command = [build + "/ballast", "run", job, "--servers", "1", "--workers", "1", "--json", "--set", "ranks=1", "--set",
               f"batch={BATCH}", "--set", f"epochs={EPOCHS}", "--set", "data.validation=0", "--set", "output=null"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["samples_per_second"]


def main():
    build, job = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    text = open(job).read()
    paths = [os.path.join(os.path.dirname(job), p) for p in re.findall(r"[^\s\[\],]*train-[^\s\[\],]*\.gz", text)]
    if len(paths) < 2 or not all(os.path.exists(p) for p in paths):
        print(json.dumps({"bench": "e2e", "skipped": f"the data of {job} is absent"}))
        return
    env = dict(os.environ, OMP_NUM_THREADS="1")
    rates = {"ballast": [], "pytorch": []}
    for _ in range(rounds):
        rates["ballast"].append(ballast_round(build, job))
        out = subprocess.run([sys.executable, __file__, "--torch", *paths[:2]], env=env, stdout=subprocess.PIPE, text=True)
        if out.returncode == 0:
            rates["pytorch"].append(float(out.stdout))
    for by, values in rates.items():
        if values:
            print(json.dumps({"bench": "e2e", "by": by, "rounds": len(values), "cpus": os.cpu_count(), "samples_per_second":
                              round(statistics.median(values)), "min": round(min(values)), "max": round(max(values))}))
    if rates["pytorch"]:
        ratios = [a / b for a, b in zip(rates["ballast"], rates["pytorch"])]
        print(json.dumps({"bench": "e2e", "ballast_over_pytorch": round(statistics.median(ratios), 3)}))


if len(sys.argv) > 1 and sys.argv[1] == "--torch":
    torch_round(*sys.argv[2:4])
else:
    main()
