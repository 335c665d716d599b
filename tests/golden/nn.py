#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Golden values for worker/nn in NumPy, double precision, whole batches as matrices; gradients derived by hand
here, independently of the C code. Usage: nn.py > nn.txt

Text of words: case NAME LOSS INPUTS N DENOMINATOR, then per layer `layer KIND UNITS ACTIVATION`, then arrays
`KEY COUNT values...`: x, labels, values, per tensor `param` and `grad`, then out, predict, `loss 1 sum`; end."""
import numpy as np

rng = np.random.RandomState(7)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gelu(z):
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def gelu_slope(z):
    t = np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)


ACTS = {
    "none": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "gelu": (gelu, gelu_slope),
}


def show(key, a):
    a = np.asarray(a, dtype=np.float64).reshape(-1)
    print(key, a.size, *("%.12g" % v for v in a))


def floats(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32).astype(np.float64)


def case(name, loss, inputs, n, denominator, layers):
    print("case", name, loss, inputs, n, denominator)
    x = floats(n, inputs)
    a, saved, width = x, [], inputs
    for kind, units, act in layers:
        print("layer", kind, units, act)
        w = floats(width, units) if kind == "dense" else None
        b = floats(units) if kind == "dense" else None
        z = a @ w + b if kind == "dense" else a
        saved.append((a, w, b, z, act))
        a = ACTS[act][0](z)
        width = z.shape[1]
    labels = rng.randint(0, 2 if loss == "sigmoid_cross_entropy" else width, n)
    values = floats(n)
    one_hot = np.eye(width)[labels] if loss == "softmax_cross_entropy" else None
    if loss == "softmax_cross_entropy":
        predict = softmax(a)
        total = -np.log((predict * one_hot).sum(axis=1)).sum()
        d = predict - one_hot
    elif loss == "sigmoid_cross_entropy":
        predict = sigmoid(a)
        y = labels.reshape(-1, 1)
        total = -(y * np.log(predict) + (1 - y) * np.log(1 - predict)).sum()
        d = predict - y
    else:
        predict = a
        total = ((a[:, 0] - values) ** 2).sum()
        d = 2 * (a - values.reshape(-1, 1))
    d = d / denominator
    grads = []
    for before, w, b, z, act in reversed(saved):
        d = d * ACTS[act][1](z)
        if w is not None:
            grads = [before.T @ d, d.sum(axis=0)] + grads
            d = d @ w.T
    show("x", x)
    show("labels", labels)
    show("values", values)
    for _, w, b, _, _ in saved:
        if w is not None:
            show("param", w)
            show("param", b)
    for g in grads:
        show("grad", g)
    show("out", a)
    show("predict", predict)
    show("loss", total)
    print("end")


case("mlp", "softmax_cross_entropy", 17, 9, 20,
     [("dense", 12, "relu"), ("dense", 7, "gelu"), ("dense", 10, "none")])
case("deep", "softmax_cross_entropy", 5, 4, 4,
     [("dense", 6, "none"), ("activation", 0, "leaky_relu"), ("dense", 5, "sigmoid"), ("flatten", 0, "none"),
      ("dense", 4, "tanh"), ("dense", 3, "none")])
case("logistic", "sigmoid_cross_entropy", 14, 33, 64, [("dense", 1, "none")])
case("regression", "squared", 8, 31, 31, [("dense", 16, "gelu"), ("activation", 0, "tanh"), ("dense", 1, "none")])
case("one", "squared", 1, 1, 1, [("dense", 1, "none")])
