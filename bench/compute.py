#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bench/compute beside PyTorch, one thread each: as installed, and tuned (glibc keeps freed memory instead of
returning it to the kernel at every step). Each measurement has a fresh process, and those to be compared follow
one another at once, so that what else the machine does hits all; CPU time is measured, which on an idle core is
elapsed time. JSON lines: median of the rounds and their spread; last the ratios, medians over the rounds.
Usage: compute.py PROGRAM [rounds] [seconds per measurement]"""
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, N_BATCHES, N_IMAGES = 128, 16, 60000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def measure_torch(seconds, what):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    loss_of = nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randint(0, 256, (N_IMAGES, 784), dtype=torch.uint8)
    x = torch.rand(N_BATCHES, BATCH, 784)
    labels = torch.randint(0, 10, (N_BATCHES, BATCH))

    def fetch(i):
        return images[torch.randint(0, N_IMAGES, (BATCH,))].float().div_(255)

    def learn(i, batch):
        sgd.zero_grad()
        loss_of(model(batch), labels[i % N_BATCHES]).backward()

    def compute(i):
        learn(i, x[i % N_BATCHES])

    def step(i):
        learn(i, fetch(i))
        sgd.step()

    body = {"fetch": fetch, "compute": compute, "step": step}[what]
    for i in range(20):
        body(i)
    steps, begin = 0, time.process_time()
    while time.process_time() - begin < seconds:
        body(steps)
        steps += 1
    print(json.dumps({"samples_per_cpu_second": steps * BATCH / (time.process_time() - begin)}))


def rate(command, env):
    out = subprocess.run(command, env={**os.environ, **ONE_THREAD, **env}, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, check=True).stdout
    return json.loads(out)["samples_per_cpu_second"]


def main():
    program = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    seconds = sys.argv[3] if len(sys.argv) > 3 else "1"
    torch = [sys.executable, __file__, "--torch", seconds]
    rates = {}
    for _ in range(rounds):
        for what in ("dropout", "gemm", "fetch", "compute", "step"):
            rates.setdefault(("ballast", what), []).append(rate([program, seconds, what], {}))
            if what in ("fetch", "compute", "step"):
                rates.setdefault(("pytorch", what), []).append(rate([*torch, what], {}))
                rates.setdefault(("pytorch_tuned", what), []).append(rate([*torch, what], TUNED))
    for (by, what), seen in rates.items():
        print(json.dumps({"bench": "compute", "by": by, "what": what, "rounds": rounds,
                          "samples_per_cpu_second": round(statistics.median(seen)), "min": round(min(seen)),
                          "max": round(max(seen))}))
    for by, what in rates:
        if by != "ballast":
            ratios = [a / b for a, b in zip(rates["ballast", what], rates[by, what])]
            print(json.dumps({"bench": "compute", "what": what, "ballast_over": by, "rounds": rounds,
                              "ratio": round(statistics.median(ratios), 3), "min": round(min(ratios), 3),
                              "max": round(max(ratios), 3)}))


if len(sys.argv) == 4 and sys.argv[1] == "--torch":
    measure_torch(float(sys.argv[2]), sys.argv[3])
else:
    main()
