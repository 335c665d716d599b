# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of several programs share: machines, daemons on them, the data, JSON lines.

A machine is a network namespace; two of them are joined by a veth pair whose ends let through a given rate (tbf, burst
32kb: a larger one lets small frames pass unthrottled). One machine alone is its own loopback. All that is started here
ends with the caller, whatever ends it. Linux, root."""
import ctypes
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

ADDRESSES = ("10.78.0.1", "10.78.0.2")
BURST = "32kb"
START_S, STOP_S = 20, 10
PR_SET_PDEATHSIG = 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def missing():
    """Why there can be no machines here, or None."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    probe = f"blprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return "no network namespaces here"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return None


def _die_with_parent():
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(processes, seconds=STOP_S):
    """SIGTERM to those that run, in reverse order of their start, SIGKILL to those that do not end."""
    running = [p for p in reversed(processes) if p.poll() is None]
    for p in running:
        p.terminate()
    end = time.monotonic() + seconds
    for p in running:
        try:
            p.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


class Machines:
    """rate: of the link in Mbit/s, each way; None: one machine, both places of which are its loopback."""

    def __init__(self, rate):
        self.rate, self.n = rate, 1 if rate is None else 2
        self.names = [f"blbench{os.getpid()}{k}" for k in "ab"[:self.n]]
        self.interface = "lo" if rate is None else "eth0"

    def __enter__(self):
        try:
            for name in self.names:
                self._ip("netns", "add", name)
                self._ip("-n", name, "link", "set", "lo", "up")
            if self.rate is not None:
                self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    @staticmethod
    def _ip(*args):
        subprocess.run(["ip", *args], check=True)

    def _join(self):
        a, b = self.names
        self._ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
        for name, address in zip(self.names, ADDRESSES):
            self._ip("-n", name, "addr", "add", address + "/24", "dev", "eth0")
            self._ip("-n", name, "link", "set", "eth0", "up")
            subprocess.run(["ip", "netns", "exec", name, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate",
                            f"{self.rate}mbit", "burst", BURST, "latency", "50ms"], check=True)

    def name_of(self, k):
        return self.names[k] if k < self.n else self.names[0]

    def address_of(self, k):
        return ADDRESSES[k] if self.rate is not None else "127.0.0.1"

    def run(self, k, command, **more):
        return subprocess.run(["ip", "netns", "exec", self.name_of(k), *command], **more)

    def start(self, k, command, **more):
        return subprocess.Popen(["ip", "netns", "exec", self.name_of(k), *command], preexec_fn=_die_with_parent, **more)

    def counted(self, k):
        """(received, sent) bytes of machine k's interface, from its own counters."""
        out = self.run(k, ["cat"] + [f"/sys/class/net/{self.interface}/statistics/{which}_bytes" for which in ("rx", "tx")],
                       stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        return int(out[0]), int(out[1])

    def congestion(self):
        return self.run(0, ["cat", "/proc/sys/net/ipv4/tcp_congestion_control"], stdout=subprocess.PIPE, text=True,
                        check=True).stdout.strip()


class Cluster:
    """Daemons on machines. servers, workers: on which machine each stands; the coordinator stands on machine 0."""

    def __init__(self, build, machines, servers, workers):
        self.build, self.machines, self.servers, self.workers = build, machines, servers, workers
        self.folder, self.processes = None, []
        self.coordinator = None

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-bench-")
        try:
            self.coordinator = self._start(0, "coordinator", "c1", ["coordinator.port=0"], "coordinator")["control"]
            for i, k in enumerate(self.servers):
                self._start(k, "server", f"s{i + 1}", ["server.port=0"], "server")
            for i, k in enumerate(self.workers):
                self._start(k, "worker", f"w{i + 1}", ["worker.slots=1", "worker.data_roots=[/]", "worker.output_roots=[/]"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        stop(self.processes)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, k, role, name, settings, listens=None):
        address_file = f"{self.folder}/{name}.address"
        settings = settings + [f"{role}.state_dir={self.folder}/{name}", f"{role}.http=127.0.0.1:0", "security.insecure=true"]
        if listens is not None:
            settings.append(f"{listens}.listen=[{self.machines.address_of(k)}]")
        if self.coordinator is not None:
            settings.append(f"connect.coordinator={self.coordinator}")
        command = [f"{self.build}/ballast-{role}", "--name", name, "--address-file", address_file]
        for text in settings:
            command += ["--set", text]
        with open(f"{self.folder}/{name}.log", "w", encoding="utf-8") as log:
            env = dict(os.environ, HOME=self.folder, PATH=self.build + ":" + os.environ["PATH"], **ONE_THREAD)
            env.pop("BALLAST_CLUSTER", None)
            process = self.machines.start(k, command, stdout=log, stderr=log, env=env)
        self.processes.append(process)
        end = time.monotonic() + START_S
        while not os.path.exists(address_file) or os.path.getsize(address_file) == 0:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} does not start: " + self.last_words(name))
            time.sleep(0.02)
        with open(address_file, encoding="utf-8") as f:
            return json.load(f)

    def last_words(self, name):
        with open(f"{self.folder}/{name}.log", encoding="utf-8") as f:
            return f.read()[-500:]

    def command(self, *args):
        done = self.machines.run(0, [self.build + "/ballast", *args, "--cluster", self.coordinator, "--json"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0 and not done.stdout.strip():
            raise RuntimeError(done.stderr.strip()[-500:])
        return json.loads(done.stdout.strip().splitlines()[-1])

    def submit(self, job, settings):
        args = ["submit", job]
        for name, value in settings.items():
            args += ["--set", f"{name}={value}"]
        return self.command(*args)["job"]

    def job(self, number):
        return self.command("jobs", str(number))

    def follow(self, number, seconds=None, poll_s=0.5):
        """Waits for the job's end; after so many seconds of training it is cancelled once it has three epochs."""
        cancelled = False
        while True:
            job = self.job(number)
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            epochs = job["history"]
            if seconds is not None and not cancelled and len(epochs) >= 3 and sum(e["seconds"] for e in epochs) > seconds:
                self.command("cancel", str(number))
                cancelled = True
            time.sleep(poll_s)


def accepts(build, job, settings):
    """Whether this build's ballast takes the job with these settings: None, or what it says against it."""
    command = [build + "/ballast", "check", job]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return None if done.returncode == 0 else " ".join(done.stdout.split())[-300:]


def job_data(job):
    """Paths of the training and of the test set, [inputs, labels] each, that an idx job names; None where one is absent."""
    with open(job, encoding="utf-8") as f:
        text = f.read()
    paths = [os.path.join(os.path.dirname(job), p) for p in re.findall(r"[^\s\[\],]+ubyte(?:\.gz)?", text)]
    if len(paths) != 4 or not all(os.path.exists(p) for p in paths):
        return None
    return paths[:2], paths[2:]


def read_idx(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        data = f.read()
    return data[:4 + 4 * data[3]], data[4 + 4 * data[3]:]


def write_idx(path, header, n, data):
    with open(path, "wb") as f:
        f.write(header[:4] + n.to_bytes(4, "big") + header[8:] + data)


def join_sets(data, folder, n_train=None):
    """Writes the training set (its first n_train samples), and behind it the test set, as one pair of files, so that
    what is held out for validation (the last samples) is the test set. Returns (paths, n_train, n_test)."""
    out = []
    for kind, train, test in zip(("images", "labels"), *data):
        header, a = read_idx(train)
        test_header, b = read_idx(test)
        n, n_test = int.from_bytes(header[4:8], "big"), int.from_bytes(test_header[4:8], "big")
        n_used = n if n_train is None else min(n, n_train)
        path = f"{folder}/{kind}-idx{header[3]}-ubyte"
        write_idx(path, header, n_used + n_test, a[:len(a) // n * n_used] + b)
        out.append(path)
    return out, n_used, n_test


def compression(text):
    """A configuration as the value of a job's field: a preset or a codec both ways, or PUSH/PULL, or a mapping."""
    if "/" in text and not text.startswith("{"):
        push, pull = text.split("/", 1)
        return json.dumps({"push": push, "pull": pull})
    return text


def line(record, out=None):
    text = json.dumps(record)
    print(text, flush=True)
    if out is not None:
        with open(out, "a", encoding="utf-8") as f:
            f.write(text + "\n")


def load():
    return round(os.getloadavg()[0], 1)
