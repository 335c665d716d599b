#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bench/compute beside PyTorch, one thread each, in turns: median of the rounds and their spread as JSON
lines, the ratios last. Usage: compute.py PROGRAM [rounds] [seconds per measurement]

PyTorch runs as installed, in a process of its own per round, as the C program does."""
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, N_BATCHES, N_IMAGES = 128, 16, 60000


def torch_round(seconds):
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

    def compute(i):
        sgd.zero_grad()
        loss_of(model(x[i % N_BATCHES]), labels[i % N_BATCHES]).backward()

    def compute_sgd(i):
        compute(i)
        sgd.step()

    def fetch(i):
        images[torch.randint(0, N_IMAGES, (BATCH,))].float().div_(255)

    for body in (fetch, compute, compute_sgd):
        for i in range(20):
            body(i)
        steps, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            body(steps)
            steps += 1
        rate = steps * BATCH / (time.perf_counter() - begin)
        print(json.dumps({"by": "pytorch", "what": body.__name__, "samples_per_second": rate}), flush=True)


def main():
    program = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    seconds = sys.argv[3] if len(sys.argv) > 3 else "2"
    env = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    seen = {}
    for _ in range(rounds):
        for command in ([program, seconds], [sys.executable, __file__, "--torch", seconds]):
            lines = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
            for line in lines.splitlines():
                row = json.loads(line)
                seen.setdefault((row["by"], row["what"]), []).append(row["samples_per_second"])
    medians = {}
    for (by, what), rates in seen.items():
        medians[by, what] = statistics.median(rates)
        print(json.dumps({"bench": "compute", "by": by, "what": what, "rounds": len(rates),
                          "samples_per_second": round(medians[by, what]), "min": round(min(rates)),
                          "max": round(max(rates))}))
    for what in ("fetch", "compute", "compute_sgd"):
        print(json.dumps({"bench": "compute", "what": what, "ballast_over_pytorch":
                          round(medians["ballast", what] / medians["pytorch", what], 3)}))


if len(sys.argv) > 2 and sys.argv[1] == "--torch":
    torch_round(float(sys.argv[2]))
else:
    main()
