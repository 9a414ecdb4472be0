"""launch.py in processes of its own, and what two sweeps' files have in common."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.snapshots import find_snapshots, load_params

ROOT = Path(__file__).parent.parent


def launch(workdir, *flags: str, variant: str = "long", env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Starts a variant of tests/tiny.py."""
    config = f"--config=tests/tiny.py{variant and f':{variant}'}"
    command = [sys.executable, "launch.py", config, f"--workdir={workdir}", *flags]
    env = os.environ | {"PYTHONPATH": "tests", "PYTHONFAULTHANDLER": "1"} | dict(env or {})
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; a launch would heed that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def launch_together(workdir, n: int, *flags: str, n_devices: int = 2, variant: str = "hosts") -> list[subprocess.Popen]:
    """Starts processes that train together on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = (*flags, f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={n}")
    env = {"JAX_NUM_CPU_DEVICES": str(n_devices)}
    return [launch(workdir, *shared, f"--process_id={i}", variant=variant, env=env) for i in range(n)]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
    """Waits until something is so, while a process runs."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.005)


def ended(process: subprocess.Popen, seconds: float = 300) -> tuple[int, str]:
    """Exit status and output, once a process has ended; one that does not is made to say where it is."""
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        text, _ = process.communicate()
        raise AssertionError(f"still running after {seconds:g} s:\n{text}") from None
    return process.returncode, text


def all_ended(processes: list[subprocess.Popen], seconds: float = 300) -> list[tuple[int, str]]:
    """Exit status and output of processes that wait for each other."""
    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda process: ended(process, seconds), processes))


def assert_equal_sweeps(a, b):
    """Metrics, runs and final parameters, bit for bit."""
    pd.testing.assert_frame_equal(read_metrics(a), read_metrics(b), check_exact=True)
    pd.testing.assert_frame_equal(read_runs(a), read_runs(b), check_exact=True)
    keys = set(find_snapshots(a))
    assert keys == set(find_snapshots(b))
    for run, step in keys:
        x, y = load_params(a, run, step), load_params(b, run, step)
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])
