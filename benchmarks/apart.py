"""What only a process of its own can tell: start-up, compilation, peak memory; and what must start differently."""

import concurrent.futures
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import jax

from benchmarks import mainline
from benchmarks.timing import Say
from grokjax.core import devices

COLD = {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # compile as on the first day
CACHED = {"JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
STEPS = 3  # that the peak of memory includes


def call(function: Callable, *args, environment: Mapping[str, str]) -> Any:
    """Calls a function in a new process, which has these environment variables beside this one's."""
    context = multiprocessing.get_context("spawn")
    with (
        mock.patch.dict(os.environ, environment),
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        return pool.submit(function, *args).result()


def start_ups(widths: Sequence[int], say: Say) -> list[dict[str, Any]]:
    """Start-up in seconds and peak memory in bytes of populations of the mainline that train and evaluate.

    Args:
      widths: runs of each, narrowest first; the last one is started twice, the second time with programs cached.
      say: shows what is going on.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="grokjax_cache_") as folder:
        environment = CACHED | {"JAX_COMPILATION_CACHE_DIR": folder}
        for cached, width in [*((False, width) for width in widths), (True, widths[-1])]:
            say(f"start-up, compilation and memory of {width} runs")
            figures = call(_probe, time.monotonic(), width, environment=environment)
            found.append({"width": width, "cached": cached, **figures})
    return found


def _probe(spawned: float, width: int) -> dict[str, Any]:
    """One of `start_ups`; `spawned` is when its process was asked for (one clock serves the whole system)."""
    marks = [spawned, time.monotonic()]
    devices.spread(width)
    device = jax.local_devices()[0]
    marks.append(time.monotonic())
    problem, runs = mainline.mainline(width)
    population = mainline.populated(problem, runs)
    jax.block_until_ready(population.state)
    marks.append(time.monotonic())
    mainline.evaluate(population, 1)
    marks.append(time.monotonic())
    mainline.evaluate(population, 1)
    evaluation_s = time.monotonic() - marks[-1]
    mainline.train(population, STEPS)
    import_s, device_s, draw_s, first_s = (end - start for start, end in itertools.pairwise(marks))
    return {
        "import_s": import_s,
        "device_s": device_s,
        "draw_s": draw_s,
        "compile_s": max(0.0, first_s - evaluation_s),
        "total_s": marks[-1] - spawned,
        "peak_bytes": peak_bytes(device),
    }


def peak_bytes(device: jax.Device) -> int:
    """The most memory that was ever in use: the device's own, or this process's where the device is a CPU."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
