#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Independent implementation of the update rules and schedules; its output is optim.txt beside it.

    python3 tests/golden/optim.py > tests/golden/optim.txt

Each rule runs twice: in float32, every operation rounded on its own in the documented order (these bits must
be met exactly), and in Python's double from the equations as the papers print them (met within a tolerance). A double
result of + - * / sqrt on float32 numbers rounded to float32 is the correctly rounded one, so struct is enough.

Lines: case NAME RULE NO_DECAY N GRADIENTS key=value...     at STEP INDEX BITS VALUE
schedule NAME N_CLOCKS key=value...     factor CLOCK VALUE

GRADIENTS: plain, or extreme (from 2^-80 to 2^80, now and then 0: squares leave the range of float32). VALUE is nan
where float32 leaves its range and the equation does not. A case named ..._from_zero begins with weights of 0.
"""
import math
import struct

N = 19
RECORDED = (1, 2, 3, 10, 100, 1000)


def f32(x):
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def bits(x):
    return "%08x" % struct.unpack("<I", struct.pack("<f", x))[0]


def gradient(i, step):
    """Exact in float32; 0 now and then."""
    return ((i * 37 + step * 101) % 201 - 100) / 64 / 8 ** (i % 4)


def extreme(i, step):
    return math.ldexp((i * 37 + step * 101) % 201 - 100, (i * 23 + step * 59) % 161 - 86)


GRADIENTS = {"plain": gradient, "extreme": extreme}


def weight(i):
    return (i * 53 % 97 - 48) / 32


def power(base, n):
    result = 1.0
    while n:
        if n & 1:
            result *= base
        base *= base
        n >>= 1
    return result


def sum_squares(x):
    """The order of the kernel of that name: 16 lanes, then pairs 8, 4, 2, 1 apart."""
    p = [0.0] * 16
    for i, v in enumerate(x):
        p[i % 16] += v * v
    for apart in (8, 4, 2, 1):
        for i in range(apart):
            p[i] += p[i + apart]
    return p[0]


class Rule:
    """A rule in float32. `one` updates element i; what depends on more than one element overrides `step`."""

    lr = 0.01
    decay = 0.0

    def __init__(self, p, n):
        self.lr = f32(p.get("lr", self.lr))
        self.wd = f32(p.get("weight_decay", self.decay))
        self.slots = [[0.0] * n for _ in range(3)]
        self.setup(p)

    def setup(self, p):
        pass

    def decayed(self, g, w):
        return f32(g + f32(self.wd * w)) if self.wd else g

    def step(self, w, g, t):
        return [self.one(i, w[i], g[i], t) for i in range(len(w))]


class Sgd(Rule):
    def one(self, i, w, g, t):
        return f32(w - f32(self.lr * self.decayed(g, w)))


class Momentum(Rule):
    def setup(self, p):
        self.mu = f32(p.get("momentum", 0.9))

    def moment(self, i, d):
        m = self.slots[0]
        m[i] = f32(f32(self.mu * m[i]) + d)
        return m[i]

    def one(self, i, w, g, t):
        return f32(w - f32(self.lr * self.moment(i, self.decayed(g, w))))


class Nesterov(Momentum):
    def one(self, i, w, g, t):
        d = self.decayed(g, w)
        m = self.moment(i, d)
        return f32(w - f32(self.lr * f32(d + f32(self.mu * m))))


class Adagrad(Rule):
    def setup(self, p):
        self.initial, self.eps = f32(p.get("initial", 0.0)), f32(p.get("eps", 1e-10))

    def one(self, i, w, g, t):
        s, d = self.slots[0], self.decayed(g, w)
        s[i] = f32(s[i] + f32(d * d))
        divisor = f32(f32(math.sqrt(f32(s[i] + self.initial))) + self.eps)
        return f32(w - f32(f32(self.lr * d) / divisor))


class RmsProp(Rule):
    lr = 1e-3

    def setup(self, p):
        self.rho, self.eps = f32(p.get("rho", 0.9)), f32(p.get("eps", 1e-8))

    def one(self, i, w, g, t):
        v, d = self.slots[0], self.decayed(g, w)
        v[i] = f32(f32(self.rho * v[i]) + f32(f32(f32(1.0 - self.rho) * d) * d))
        return f32(w - f32(f32(self.lr * d) / f32(f32(math.sqrt(v[i])) + self.eps)))


class Adam(Rule):
    lr = 1e-3
    eps = 1e-8

    def setup(self, p):
        self.b1, self.b2 = f32(p.get("beta1", 0.9)), f32(p.get("beta2", 0.999))
        self.eps = f32(p.get("eps", self.eps))

    def moments(self, i, d):
        m, v = self.slots[:2]
        m[i] = f32(f32(self.b1 * m[i]) + f32(f32(1.0 - self.b1) * d))
        v[i] = f32(f32(self.b2 * v[i]) + f32(f32(f32(1.0 - self.b2) * d) * d))
        return m[i], v[i]

    def corrections(self, t):
        return f32(1.0 / (1.0 - power(self.b1, t))), f32(1.0 / (1.0 - power(self.b2, t)))

    def largest(self, i, v):
        return v

    def one(self, i, w, g, t):
        c1, c2 = self.corrections(t)
        m, v = self.moments(i, self.decayed(g, w))
        divisor = f32(f32(math.sqrt(f32(self.largest(i, v) * c2))) + self.eps)
        return f32(w - f32(f32(self.lr * f32(m * c1)) / divisor))


class AmsGrad(Adam):
    def largest(self, i, v):
        self.slots[2][i] = max(self.slots[2][i], v)
        return self.slots[2][i]


class Yogi(Adam):
    eps = 1e-3

    def moments(self, i, d):
        m, v = self.slots[:2]
        m[i] = f32(f32(self.b1 * m[i]) + f32(f32(1.0 - self.b1) * d))
        square, part = f32(d * d), f32(f32(f32(1.0 - self.b2) * d) * d)
        v[i] = f32(v[i] + part) if v[i] < square else f32(v[i] - part) if square < v[i] else v[i]
        return m[i], v[i]


class AdamW(Adam):
    decay = 0.01

    def direction(self, i, w, g, t):
        c1, c2 = self.corrections(t)
        m, v = self.moments(i, g)
        return self.decayed(f32(f32(m * c1) / f32(f32(math.sqrt(f32(v * c2))) + self.eps)), w)

    def one(self, i, w, g, t):
        return f32(w - f32(self.lr * self.direction(i, w, g, t)))


class Lamb(AdamW):
    eps = 1e-6

    def step(self, w, g, t):
        u = [self.direction(i, w[i], g[i], t) for i in range(len(w))]
        norms = []
        for x in w, u:
            total = 0.0
            for at in range(0, len(x), 1024):
                total += sum_squares(x[at : at + 1024])
            norms.append(math.sqrt(total))
        ratio = norms[0] / norms[1] if norms[0] > 0 and norms[1] > 0 else 1.0
        rate = f32(self.lr64 * ratio)
        return [f32(x - f32(rate * d)) for x, d in zip(w, u)]

    def setup(self, p):
        super().setup(p)
        self.lr64 = p.get("lr", 1e-3)


class Ftrl(Rule):
    lr = 0.1

    def setup(self, p):
        self.beta, self.l1, self.l2 = f32(p.get("beta", 1.0)), f32(p.get("l1", 0.0)), f32(p.get("l2", 0.0))

    def one(self, i, w, g, t):
        z, s = self.slots[:2]
        if t == 1 and w != 0:
            factor = f32(f32(self.beta / self.lr) + self.l2)
            z[i] = -f32(f32(w * factor) + math.copysign(self.l1, w))
        total = f32(s[i] + f32(g * g))
        root = f32(math.sqrt(total))
        sigma = f32(f32(root - f32(math.sqrt(s[i]))) / self.lr)
        z[i] = f32(z[i] + f32(g - f32(sigma * w)))
        s[i] = total
        if abs(z[i]) <= self.l1:
            return 0.0
        divisor = f32(f32(f32(self.beta + root) / self.lr) + self.l2)
        return f32(f32(math.copysign(self.l1, z[i]) - z[i]) / divisor)


# The papers. Every class keeps what its algorithm keeps, by the names there, for all elements.


class PaperSgd:
    def __init__(self, p, n):
        self.lr, self.wd, self.n = p.get("lr", 0.01), p.get("weight_decay", 0.0), n
        self.v = [0.0] * n
        self.p = p

    def step(self, w, g, t):
        return [x - self.lr * (d + self.wd * x) for x, d in zip(w, g)]


class PaperMomentum(PaperSgd):
    """Polyak: x_(t+1) = x_t - lr g + mu (x_t - x_(t-1)), for a constant rate."""

    def step(self, w, g, t):
        mu = self.p.get("momentum", 0.9)
        self.v = [mu * v - self.lr * (d + self.wd * x) for v, x, d in zip(self.v, w, g)]
        return [x + v for x, v in zip(w, self.v)]


class PaperNesterov(PaperSgd):
    """Sutskever et al.: v' = mu v - lr grad(theta + mu v), theta' = theta + v'. The gradient belongs to the point
    ahead, y = theta + mu v, which is what is given and returned."""

    def step(self, w, g, t):
        mu = self.p.get("momentum", 0.9)
        theta = [y - mu * v for y, v in zip(w, self.v)]
        self.v = [mu * v - self.lr * (d + self.wd * y) for v, y, d in zip(self.v, w, g)]
        return [x + v + mu * v for x, v in zip(theta, self.v)]


class PaperAdagrad(PaperSgd):
    def step(self, w, g, t):
        d = [a + self.wd * x for a, x in zip(g, w)]
        self.v = [v + a * a for v, a in zip(self.v, d)]
        initial, eps = self.p.get("initial", 0.0), self.p.get("eps", 1e-10)
        return [x - self.lr * a / (math.sqrt(initial + v) + eps) for x, a, v in zip(w, d, self.v)]


class PaperRmsProp(PaperSgd):
    def step(self, w, g, t):
        lr, rho, eps = self.p.get("lr", 1e-3), self.p.get("rho", 0.9), self.p.get("eps", 1e-8)
        d = [a + self.wd * x for a, x in zip(g, w)]
        self.v = [rho * v + (1 - rho) * a * a for v, a in zip(self.v, d)]
        return [x - lr * a / (math.sqrt(v) + eps) for x, a, v in zip(w, d, self.v)]


class PaperAdam:
    """Algorithm 1 of Kingma and Ba as printed."""

    eps, decay = 1e-8, 0.0

    def __init__(self, p, n):
        self.lr, self.b1, self.b2 = p.get("lr", 1e-3), p.get("beta1", 0.9), p.get("beta2", 0.999)
        self.eps, self.wd = p.get("eps", self.eps), p.get("weight_decay", self.decay)
        self.m, self.v, self.top = [0.0] * n, [0.0] * n, [0.0] * n

    def ratios(self, g, t):
        b1, b2 = self.b1, self.b2
        self.m = [b1 * m + (1 - b1) * a for m, a in zip(self.m, g)]
        self.v = [b2 * v + (1 - b2) * a * a for v, a in zip(self.v, g)]
        self.top = [max(h, v) for h, v in zip(self.top, self.v)]
        second = self.top if isinstance(self, PaperAmsGrad) else self.v
        return [m / (1 - b1**t) / (math.sqrt(v / (1 - b2**t)) + self.eps) for m, v in zip(self.m, second)]

    def step(self, w, g, t):
        r = self.ratios([a + self.wd * x for a, x in zip(g, w)], t)
        return [x - self.lr * u for x, u in zip(w, r)]


class PaperAmsGrad(PaperAdam):
    """Algorithm 2 of Reddi, Kale and Kumar, with Adam's bias corrections."""


class PaperYogi(PaperAdam):
    """Algorithm 2 of Zaheer et al., with Adam's bias corrections."""

    eps = 1e-3

    def ratios(self, g, t):
        b1, b2 = self.b1, self.b2
        self.m = [b1 * m + (1 - b1) * a for m, a in zip(self.m, g)]
        self.v = [v - (1 - b2) * ((v > a * a) - (v < a * a)) * a * a for v, a in zip(self.v, g)]
        return [m / (1 - b1**t) / (math.sqrt(v / (1 - b2**t)) + self.eps) for m, v in zip(self.m, self.v)]


class PaperAdamW(PaperAdam):
    """Algorithm 2 of Loshchilov and Hutter; its lambda is lr * weight_decay."""

    decay = 0.01

    def step(self, w, g, t):
        return [x - self.lr * u - self.lr * self.wd * x for x, u in zip(w, self.ratios(g, t))]


class PaperLamb(PaperAdam):
    """Algorithm 2 of You et al., phi(x) = x."""

    eps, decay = 1e-6, 0.01

    def step(self, w, g, t):
        r = [u + self.wd * x for u, x in zip(self.ratios(g, t), w)]
        size = math.sqrt(math.fsum(x * x for x in w)) / math.sqrt(math.fsum(u * u for u in r))
        return [x - self.lr * size * u for x, u in zip(w, r)]


class PaperFtrl:
    """Algorithm 1 of McMahan et al. as printed: the weights are computed from z and n before the gradient. To begin at
    given weights, z is that whose weights they are."""

    def __init__(self, p, n):
        self.alpha, self.beta = p.get("lr", 0.1), p.get("beta", 1.0)
        self.l1, self.l2 = p.get("l1", 0.0), p.get("l2", 0.0)
        self.z, self.n = None, [0.0] * n

    def weights(self):
        w = []
        for z, n in zip(self.z, self.n):
            if abs(z) <= self.l1:
                w.append(0.0)
            else:
                sign = 1 if z > 0 else -1
                w.append(-(z - sign * self.l1) / ((self.beta + math.sqrt(n)) / self.alpha + self.l2))
        return w

    def step(self, w, g, t):
        if self.z is None:
            self.z = [-(x * (self.beta / self.alpha + self.l2) + (x > 0) * self.l1 - (x < 0) * self.l1) for x in w]
        for i, x in enumerate(self.weights()):
            sigma = (math.sqrt(self.n[i] + g[i] ** 2) - math.sqrt(self.n[i])) / self.alpha
            self.z[i] += g[i] - sigma * x
            self.n[i] += g[i] ** 2
        return self.weights()


RULES = {
    "sgd": (Sgd, PaperSgd),
    "momentum": (Momentum, PaperMomentum),
    "nesterov": (Nesterov, PaperNesterov),
    "adagrad": (Adagrad, PaperAdagrad),
    "rmsprop": (RmsProp, PaperRmsProp),
    "adam": (Adam, PaperAdam),
    "adamw": (AdamW, PaperAdamW),
    "amsgrad": (AmsGrad, PaperAmsGrad),
    "ftrl": (Ftrl, PaperFtrl),
    "lamb": (Lamb, PaperLamb),
    "yogi": (Yogi, PaperYogi),
}

CASES = (
    ("sgd_default", "sgd", {}),
    ("sgd_decay", "sgd", {"lr": 0.05, "weight_decay": 0.01}),
    ("sgd_decay_exempt", "sgd", {"lr": 0.05, "weight_decay": 0.01}),
    ("momentum_default", "momentum", {}),
    ("momentum_decay", "momentum", {"lr": 0.003, "momentum": 0.95, "weight_decay": 5e-4}),
    ("momentum_decay_exempt", "momentum", {"lr": 0.003, "momentum": 0.95, "weight_decay": 5e-4}),
    ("momentum_none", "momentum", {"momentum": 0.0}),
    ("nesterov_default", "nesterov", {}),
    ("nesterov_decay", "nesterov", {"lr": 0.003, "momentum": 0.95, "weight_decay": 5e-4}),
    ("nesterov_decay_exempt", "nesterov", {"weight_decay": 5e-4}),
    ("nesterov_none", "nesterov", {"momentum": 0.0}),
    ("nesterov_extreme", "nesterov", {"weight_decay": 5e-4}),
    ("adagrad_default", "adagrad", {}),
    ("adagrad_decay", "adagrad", {"lr": 0.05, "initial": 0.1, "eps": 1e-3, "weight_decay": 0.01}),
    ("adagrad_decay_exempt", "adagrad", {"weight_decay": 0.01}),
    ("adagrad_extreme", "adagrad", {}),
    ("rmsprop_default", "rmsprop", {}),
    ("rmsprop_decay", "rmsprop", {"lr": 0.01, "rho": 0.99, "eps": 1e-4, "weight_decay": 0.01}),
    ("rmsprop_decay_exempt", "rmsprop", {"weight_decay": 0.01}),
    ("rmsprop_no_memory", "rmsprop", {"rho": 0.0}),
    ("rmsprop_extreme", "rmsprop", {}),
    ("adam_default", "adam", {}),
    ("adam_other", "adam", {"lr": 0.01, "beta1": 0.5, "beta2": 0.99, "eps": 1e-4}),
    ("adam_decay", "adam", {"weight_decay": 0.01}),
    ("adam_decay_exempt", "adam", {"weight_decay": 0.01}),
    ("adam_no_memory", "adam", {"beta1": 0.0, "beta2": 0.0}),
    ("adam_extreme", "adam", {}),
    ("adamw_default", "adamw", {}),
    ("adamw_other", "adamw", {"lr": 0.01, "beta1": 0.5, "beta2": 0.99, "eps": 1e-4, "weight_decay": 0.1}),
    ("adamw_decay_exempt", "adamw", {}),
    ("adamw_extreme", "adamw", {}),
    ("amsgrad_default", "amsgrad", {}),
    ("amsgrad_forgetful", "amsgrad", {"beta2": 0.5, "weight_decay": 0.01}),
    ("amsgrad_decay_exempt", "amsgrad", {"beta2": 0.9, "weight_decay": 0.01}),
    ("amsgrad_extreme", "amsgrad", {}),
    ("ftrl_default", "ftrl", {}),
    ("ftrl_sparse", "ftrl", {"lr": 0.05, "beta": 0.5, "l1": 1.0, "l2": 0.5}),
    ("ftrl_from_zero", "ftrl", {"l1": 1.0, "l2": 2.0}),
    ("ftrl_extreme", "ftrl", {"l1": 1.0}),
    ("lamb_default", "lamb", {}),
    ("lamb_other", "lamb", {"lr": 0.02, "beta1": 0.5, "beta2": 0.99, "eps": 1e-4, "weight_decay": 0.1}),
    ("lamb_decay_exempt", "lamb", {}),
    ("lamb_blocks", "lamb", {"lr": 0.02}),
    ("lamb_extreme", "lamb", {}),
    ("yogi_default", "yogi", {}),
    ("yogi_outer", "yogi", {"lr": 0.01, "beta2": 0.99, "eps": 1e-3, "weight_decay": 0.01}),
    ("yogi_decay_exempt", "yogi", {"beta2": 0.5, "weight_decay": 0.01}),
    ("yogi_no_memory", "yogi", {"beta1": 0.0, "beta2": 0.0}),
    ("yogi_extreme", "yogi", {}),
)

LONG = 2067  # two blocks of 1024 and a rest that fills no vector


def run(name, rule, params):
    exempt, kind = name.endswith("_exempt"), "extreme" if name.endswith("_extreme") else "plain"
    n, last = (LONG, 10) if name.endswith("_blocks") else (N, RECORDED[-1])
    print("case", name, rule, int(exempt), n, kind, *("%s=%r" % kv for kv in params.items()))
    p = {**params, "weight_decay": 0.0} if exempt else params
    single, double = (c(p, n) for c in RULES[rule])
    w = [0.0 if name.endswith("_from_zero") else weight(i) for i in range(n)]
    x = w
    for t in range(1, last + 1):
        g = [GRADIENTS[kind](i, t) for i in range(n)]
        w = single.step(w, g, t)
        if kind == "plain":
            x = double.step(x, g, t)
        if t in RECORDED:
            for i in range(0, n, 1 if n == N else 53):
                print("at", t, i, bits(w[i]), "%.12e" % x[i] if kind == "plain" else "nan")


def factor(name, clock, n, p):
    first = int(p.get("warmup", 0))
    if clock < first:
        return (clock + 1) / first
    done = min(1.0, (clock - first) / (n - first)) if n > first else 1.0
    if name == "step":
        return p.get("gamma", 0.1) ** ((clock - first) // p.get("every", 1000))
    if name == "exponential":
        return p.get("gamma", 0.999) ** (clock - first)
    if name.startswith("one_cycle"):
        rise, start, end = p.get("rise", 0.3), p.get("start", 0.04), p.get("end", 4e-6)
        bend = (lambda q: q) if name.endswith("linear") else (lambda q: math.sin(math.pi * q / 2) ** 2)
        if done < rise:
            return start * (1 - bend(done / rise)) + bend(done / rise)
        return 1 - (1 - end) * bend((done - rise) / (1 - rise))
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
    ("one_cycle", 1000, {}),
    ("one_cycle", 777, {"warmup": 77, "rise": 0.5, "start": 0.1, "end": 0.01}),
    ("one_cycle", 300, {"rise": 0.0}),
    ("one_cycle_linear", 1000, {}),
    ("one_cycle_linear", 777, {"warmup": 77, "rise": 0.45, "start": 0.1, "end": 0.01}),
)

if __name__ == "__main__":
    print("# made by optim.py")
    for case in CASES:
        run(*case)
    for name, n, p in SCHEDULES:
        print("schedule", name, n, *("%s=%r" % kv for kv in p.items()))
        for clock in sorted({0, 1, 6, 7, 19, 20, 49, 50, 99, 100, 300, n // 2, n // 2 + 1, n - 1, n, n + 5}):
            print("factor", clock, "%.17e" % factor(name, clock, n, p))
