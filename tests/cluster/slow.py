#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""slow.py PID FACTOR: slows a process down by stopping it most of the time, until it or this ends."""
import os, signal, sys, time

pid, factor = int(sys.argv[1]), float(sys.argv[2])
run = 0.001
try:
    while True:
        os.kill(pid, signal.SIGCONT)
        time.sleep(run)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(run * (factor - 1))
except (ProcessLookupError, KeyboardInterrupt):
    pass
finally:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
