#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Independent implementation of the update rules and schedules; its output is optim.txt beside it.

    python3 tests/golden/optim.py > tests/golden/optim.txt

Each rule runs twice: in float32, every operation rounded on its own in the documented order (these bits must
be met exactly), and in Python's double from the textbook equation (met within a tolerance). A double result
of + - * / sqrt on float32 numbers rounded to float32 is the correctly rounded one, so struct is enough.

Lines: case NAME RULE NO_DECAY key=value...     at STEP INDEX BITS VALUE     schedule NAME N_CLOCKS key=value...
factor CLOCK VALUE
"""
import math
import struct

N = 19
RECORDED = (1, 2, 3, 10, 100, 1000)


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bits(x):
    return "%08x" % struct.unpack("<I", struct.pack("<f", x))[0]


def gradient(i, step):
    """Exact in float32; 0 now and then."""
    return ((i * 37 + step * 101) % 201 - 100) / 64 / 8 ** (i % 4)


def weight(i):
    return (i * 53 % 97 - 48) / 32


class Sgd:
    def __init__(self, p, rounding):
        self.r = rounding
        self.lr, self.wd = rounding(p.get("lr", 0.01)), rounding(p.get("weight_decay", 0.0))

    def decayed(self, g, w):
        return self.r(g + self.r(self.wd * w)) if self.wd else g

    def step(self, i, w, g, t):
        return self.r(w - self.r(self.lr * self.decayed(g, w)))


class Momentum(Sgd):
    def __init__(self, p, rounding):
        super().__init__(p, rounding)
        self.mu, self.m = rounding(p.get("momentum", 0.9)), [0.0] * N

    def step(self, i, w, g, t):
        r = self.r
        self.m[i] = r(r(self.mu * self.m[i]) + self.decayed(g, w))
        return r(w - r(self.lr * self.m[i]))


def power(base, n):
    result = 1.0
    while n:
        if n & 1:
            result *= base
        base *= base
        n >>= 1
    return result


class Adam(Sgd):
    def __init__(self, p, rounding):
        super().__init__({"lr": 1e-3, **p}, rounding)
        self.b1, self.b2 = rounding(p.get("beta1", 0.9)), rounding(p.get("beta2", 0.999))
        self.eps = rounding(p.get("eps", 1e-8))
        self.m, self.v = [0.0] * N, [0.0] * N

    def step(self, i, w, g, t):
        r, b1, b2 = self.r, self.b1, self.b2
        c1, c2 = r(1.0 / (1.0 - power(b1, t))), r(1.0 / (1.0 - power(b2, t)))
        g = self.decayed(g, w)
        self.m[i] = r(r(b1 * self.m[i]) + r(r(1.0 - b1) * g))
        self.v[i] = r(r(b2 * self.v[i]) + r(r(r(1.0 - b2) * g) * g))
        divisor = r(r(math.sqrt(r(self.v[i] * c2))) + self.eps)
        return r(w - r(r(self.lr * r(self.m[i] * c1)) / divisor))


class PaperAdam:
    """Algorithm 1 of Kingma and Ba as printed."""

    def __init__(self, p):
        self.lr, self.b1, self.b2 = p.get("lr", 1e-3), p.get("beta1", 0.9), p.get("beta2", 0.999)
        self.eps, self.wd = p.get("eps", 1e-8), p.get("weight_decay", 0.0)
        self.m, self.v = [0.0] * N, [0.0] * N

    def step(self, i, w, g, t):
        g += self.wd * w
        self.m[i] = self.b1 * self.m[i] + (1 - self.b1) * g
        self.v[i] = self.b2 * self.v[i] + (1 - self.b2) * g * g
        m_hat, v_hat = self.m[i] / (1 - self.b1**t), self.v[i] / (1 - self.b2**t)
        return w - self.lr * m_hat / (math.sqrt(v_hat) + self.eps)


RULES = {"sgd": Sgd, "momentum": Momentum, "adam": Adam}

CASES = (
    ("sgd_default", "sgd", 0, {}),
    ("sgd_decay", "sgd", 0, {"lr": 0.05, "weight_decay": 0.01}),
    ("sgd_decay_exempt", "sgd", 1, {"lr": 0.05, "weight_decay": 0.01}),
    ("momentum_default", "momentum", 0, {}),
    ("momentum_decay", "momentum", 0, {"lr": 0.003, "momentum": 0.95, "weight_decay": 5e-4}),
    ("momentum_decay_exempt", "momentum", 1, {"lr": 0.003, "momentum": 0.95, "weight_decay": 5e-4}),
    ("momentum_none", "momentum", 0, {"momentum": 0.0}),
    ("adam_default", "adam", 0, {}),
    ("adam_other", "adam", 0, {"lr": 0.01, "beta1": 0.5, "beta2": 0.99, "eps": 1e-4}),
    ("adam_decay", "adam", 0, {"weight_decay": 0.01}),
    ("adam_decay_exempt", "adam", 1, {"weight_decay": 0.01}),
    ("adam_no_memory", "adam", 0, {"beta1": 0.0, "beta2": 0.0}),
)


def run(name, rule, no_decay, params):
    print("case", name, rule, no_decay, *("%s=%r" % kv for kv in params.items()))
    p = {k: v for k, v in params.items() if not (no_decay and k == "weight_decay")}
    single = RULES[rule](p, f32)
    double = PaperAdam(p) if rule == "adam" else RULES[rule](p, float)
    w, x = [weight(i) for i in range(N)], [weight(i) for i in range(N)]
    for t in range(1, RECORDED[-1] + 1):
        for i in range(N):
            g = gradient(i, t)
            w[i], x[i] = single.step(i, w[i], g, t), double.step(i, x[i], g, t)
            if t in RECORDED:
                print("at", t, i, bits(w[i]), "%.12e" % x[i])


def factor(name, clock, n, p):
    first = int(p.get("warmup", 0))
    if clock < first:
        return (clock + 1) / first
    done = min(1.0, (clock - first) / (n - first)) if n > first else 1.0
    if name == "step":
        return p.get("gamma", 0.1) ** ((clock - first) // p.get("every", 1000))
    if name == "exponential":
        return p.get("gamma", 0.999) ** (clock - first)
    end = p.get("end", 0.0)
    if name == "linear":
        return 1 - (1 - end) * done
    if name == "cosine":
        return end + (1 - end) * (1 + math.cos(math.pi * done)) / 2
    return 1.0


SCHEDULES = (
    ("constant", 1000, {}),
    ("constant", 1000, {"warmup": 100}),
    ("step", 1000, {"every": 30, "gamma": 0.5}),
    ("step", 5000, {"warmup": 7}),
    ("exponential", 1000, {"warmup": 1, "gamma": 0.99}),
    ("linear", 1000, {}),
    ("linear", 1000, {"warmup": 50, "end": 0.1}),
    ("cosine", 1000, {}),
    ("cosine", 777, {"warmup": 77, "end": 0.05}),
    ("cosine", 10, {"warmup": 20}),
)

if __name__ == "__main__":
    print("# made by optim.py")
    for case in CASES:
        run(*case)
    for name, n, p in SCHEDULES:
        print("schedule", name, n, *("%s=%r" % kv for kv in p.items()))
        for clock in sorted({0, 1, 6, 7, 19, 20, 49, 50, 99, 100, 300, n // 2, n // 2 + 1, n - 1, n, n + 5}):
            print("factor", clock, "%.17e" % factor(name, clock, n, p))
