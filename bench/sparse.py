#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sparse logistic regression over 2^24 hashed features, one pass: rows per second, bytes per row and test log loss of the
whole way (one worker with one rank, one server, loopback), with and without the cache of keys, beside scikit-learn's
SGDClassifier on the same rows. The data comes from ballast-clicks, which knows the least log loss that is possible.

Usage: sparse.py BUILD_DIR JOB.yaml [--rows N] [--data DIR] [--batch N]      (JOB: conf/jobs/clicks.yaml)
  --rows N     training rows [10000000]; the test set has a twentieth
  --data DIR   keep the data there, and use what is there already
Prints JSON lines. "one core": every process on the first core of those allowed, as scikit-learn; "free": not bound. Only
training counts: not the start, the reading of the files, the evaluation or the saving."""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time

FIELDS, SLOTS, BLOCK = 39, 1 << 24, 250_000


def generate(build, folder, rows):
    """Makes the data unless the folder has it; returns what the truth scores."""
    truth = folder + "/truth.json"
    if not os.path.exists(truth):
        begin = time.perf_counter()
        subprocess.run([build + "/ballast-clicks", "--out", folder, "--train", str(rows), "--test", str(max(rows // 20, 1))],
                       stdout=subprocess.PIPE, check=True)
        print(json.dumps({"bench": "sparse", "what": "generator", "rows": rows,
                          "rows_per_s": round(rows / (time.perf_counter() - begin))}), flush=True)
    with open(truth, encoding="utf-8") as f:
        return json.load(f)


def on_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def train(build, job, folder, settings, one_core):
    env = dict(os.environ, PATH=build + ":" + os.environ["PATH"])
    files = {part: f"[{folder}/{part}-slots.npy,{folder}/{part}-labels.npy]" for part in ("train", "test")}
    with tempfile.TemporaryDirectory() as out:
        values = {"data.train.npy": files["train"], "data.test": "{npy: " + files["test"] + "}", "output": out + "/model",
                  "ranks": 1, "epochs": 1, **settings}
        command = [build + "/ballast", "run", job, "--servers", "1", "--workers", "1", "--json"]
        for name, value in values.items():
            command += ["--set", f"{name}={value}"]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True,
                              preexec_fn=on_one_core if one_core else None)
        with open(out + "/model/metrics.csv", encoding="utf-8") as f:
            seconds = sum(float(e["seconds"]) for e in csv.DictReader(f))
        model_bytes = os.path.getsize(out + "/model/model.safetensors")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {**result, "train_seconds": seconds, "model_bytes": model_bytes}


def ballast_lines(build, job, folder, rows, batch):
    common = {"batch": batch} if batch else {}
    if batch:
        common["optimizer.ftrl.beta"] = 1 / batch
    loss = train(build, job, folder, common, False)
    yield {"what": "ballast", "keys": "cached", "test_log_loss": round(loss["test_loss"], 5),
           "test_accuracy": round(loss["test_accuracy"], 5), "rows_in_the_table": (loss["model_bytes"] - 4) // 12}
    for keys, one_core in (("64 MiB", True), ("0", True), ("64 MiB", False), ("0", False)):
        r = train(build, job, folder, {**common, "data.test": "null", "keys.cache": keys}, one_core)
        yield {"what": "ballast", "cores": "one core" if one_core else "free", "keys": "cached" if keys != "0" else "always sent",
               "rows_per_s": round(rows / r["train_seconds"]), "bytes_up_per_row": round(r["bytes_pushed"] / rows, 2),
               "bytes_down_per_row": round(r["bytes_pulled"] / rows, 2)}


def matrix(slots, np, sparse):
    n = len(slots)
    ones = np.ones(n * FIELDS, np.float64)
    return sparse.csr_matrix((ones, slots.reshape(-1).astype(np.int32), np.arange(0, n * FIELDS + 1, FIELDS)), (n, SLOTS))


def sklearn_line(folder):
    """In a process of its own: on one core, in blocks of rows, in the order of the file. Only partial_fit counts."""
    import numpy as np
    from scipy import sparse
    from sklearn.linear_model import SGDClassifier
    x, y, tx, ty = (np.load(f"{folder}/{part}.npy", mmap_mode="r")
                    for part in ("train-slots", "train-labels", "test-slots", "test-labels"))
    model = SGDClassifier(loss="log_loss", penalty=None, learning_rate="invscaling", eta0=0.1, power_t=0.2)
    seconds = 0.0
    for first in range(0, len(x), BLOCK):
        block, labels = matrix(x[first:first + BLOCK], np, sparse), np.asarray(y[first:first + BLOCK])
        begin = time.perf_counter()
        model.partial_fit(block, labels, classes=[0, 1])
        seconds += time.perf_counter() - begin
    loss = 0.0
    for first in range(0, len(tx), BLOCK):
        z = model.decision_function(matrix(tx[first:first + BLOCK], np, sparse))
        loss += float(np.sum(np.logaddexp(0, z) - z * np.asarray(ty[first:first + BLOCK])))
    print(json.dumps({"what": "scikit-learn SGDClassifier", "cores": "one core", "rows_per_s": round(len(x) / seconds),
                      "test_log_loss": round(loss / len(tx), 5)}))


def sklearn_in_child(folder):
    if subprocess.run([sys.executable, "-c", "import sklearn, scipy"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return {"what": "scikit-learn SGDClassifier", "skipped": "python3-sklearn is not installed"}
    env = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    out = subprocess.run([sys.executable, __file__, "--sklearn", folder], env=env, stdout=subprocess.PIPE, text=True,
                         preexec_fn=on_one_core, check=False)
    return json.loads(out.stdout) if out.returncode == 0 else {"what": "scikit-learn SGDClassifier", "skipped": "it failed"}


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--sklearn":
        sklearn_line(sys.argv[2])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("job")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--data")
    parser.add_argument("--batch", type=int)
    o = parser.parse_args()
    build, job = os.path.abspath(o.build), os.path.abspath(o.job)
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(o.data or temporary)
        truth = generate(build, folder, o.rows)
        rows = (os.path.getsize(folder + "/train-labels.npy") - 128)
        load = os.getloadavg()[0]
        print(json.dumps({"bench": "sparse", "rows": rows, "fields": FIELDS, "slots": SLOTS, "load": round(load, 1),
                          "log_loss_bound": truth["log_loss_bound"], "log_loss_of_truth": truth["log_loss_of_truth"]}),
              flush=True)
        for line in ballast_lines(build, job, folder, rows, o.batch):
            print(json.dumps({"bench": "sparse", **line}), flush=True)
        print(json.dumps({"bench": "sparse", **sklearn_in_child(folder)}), flush=True)


if __name__ == "__main__":
    main()
