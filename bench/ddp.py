#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One rank of PyTorch's DistributedDataParallel over gloo: the MLP 784-512-256-10, SGD with momentum 0.9, one thread.
The counterpart of Ballast's ranks in slow_network.py: same batch per rank, rate, schedule, initial distribution (uniform
within sqrt(6 / inputs) before relu, within sqrt(6 / (inputs + outputs)) at the end, biases 0), pictures in memory as
bytes, a new order of the samples in every epoch that all ranks share. Epochs are timed with their evaluation, which the
ranks share too. Prints JSON lines from rank 0: one per epoch.

Usage: ddp.py OPTIONS (ddp.py --help); what starts the ranks sets GLOO_SOCKET_IFNAME."""
import argparse
import json
import math
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--rank", type=int, required=True)
    p.add_argument("--world", type=int, default=2)
    p.add_argument("--master", required=True, help="HOST:PORT")
    p.add_argument("--images", required=True)
    p.add_argument("--labels", required=True)
    p.add_argument("--test", type=int, default=0, help="so many samples at the end of the files are the test set")
    p.add_argument("--hook", default="none", help="none, fp16, or powersgdR with rank R")
    p.add_argument("--power-start", type=int, default=10, help="steps before PowerSGD begins (PyTorch's default: 1000)")
    p.add_argument("--batch", type=int, default=128, help="per rank")
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--epochs", type=int, default=12)
    p.add_argument("--seconds", type=float, default=0, help="ends after the third epoch when so much time is over")
    p.add_argument("--cosine", action="store_true", help="the rate falls along half a cosine to 0")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def read(o):
    images = np.fromfile(o.images, np.uint8)[16:].reshape(-1, 784)
    labels = np.fromfile(o.labels, np.uint8)[8:].astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def make_model():
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    layers = [m for m in model if isinstance(m, nn.Linear)]
    for m in layers:
        last = m is layers[-1]
        limit = math.sqrt(6 / (m.in_features + (m.out_features if last else 0)))
        nn.init.uniform_(m.weight, -limit, limit)
        nn.init.zeros_(m.bias)
    return model


def compress(ddp, o):
    if o.hook == "fp16":
        ddp.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif o.hook.startswith("powersgd"):
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=int(o.hook[8:]), start_powerSGD_iter=o.power_start)
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


class Rank:
    def __init__(self, o):
        self.o = o
        torch.manual_seed(o.seed)
        self.images, self.labels = read(o)
        self.n = len(self.images) - o.test
        self.ddp = DistributedDataParallel(make_model())
        compress(self.ddp, o)
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.ddp.parameters(), lr=o.lr, momentum=o.momentum)
        self.clock, self.order = 0, torch.Generator().manual_seed(o.seed)
        per_clock = o.batch * o.world
        self.clocks = o.epochs * -(-self.n // per_clock)

    def inputs(self, part):
        return self.images[part].float().div_(255)

    def epoch(self):
        o, batch = self.o, self.o.batch * self.o.world
        order = torch.randperm(self.n, generator=self.order)
        for first in range(0, self.n, batch):
            all_ranks = order[first:first + batch]
            part = all_ranks[len(all_ranks) * o.rank // o.world:len(all_ranks) * (o.rank + 1) // o.world]
            if o.cosine:
                for group in self.optimizer.param_groups:
                    group["lr"] = o.lr * 0.5 * (1 + math.cos(math.pi * self.clock / self.clocks))
            self.optimizer.zero_grad()
            self.loss(self.ddp(self.inputs(part)), self.labels[part]).backward()
            self.optimizer.step()
            self.clock += 1

    def accuracy(self):
        o, right = self.o, 0
        begin, end = (self.n + o.test * (o.rank + i) // o.world for i in (0, 1))
        with torch.no_grad():
            for first in range(begin, end, 256):
                part = slice(first, min(first + 256, end))
                right += int((self.ddp.module(self.inputs(part)).argmax(1) == self.labels[part]).sum())
        total = torch.tensor([right])
        dist.all_reduce(total)
        return int(total) / o.test


def over(limit, seconds):
    """Whether the time is over, as rank 0 sees it."""
    flag = torch.tensor([int(limit > 0 and seconds > limit)])
    dist.broadcast(flag, 0)
    return bool(flag)


def main():
    o = arguments()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="tcp://" + o.master, rank=o.rank, world_size=o.world)
    rank = Rank(o)
    dist.barrier()
    total = 0.0
    for epoch in range(1, o.epochs + 1):
        begin = time.perf_counter()
        before = rank.clock
        rank.epoch()
        accuracy = rank.accuracy() if o.test > 0 else None
        seconds = time.perf_counter() - begin
        total += seconds
        if o.rank == 0:
            print(json.dumps({"epoch": epoch, "clocks": rank.clock - before, "seconds": seconds, "accuracy": accuracy}), flush=True)
        if o.seconds > 0 and epoch >= 3 and over(o.seconds, total):
            break
    dist.barrier()


main()
