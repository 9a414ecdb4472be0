"""A CPU's cores as devices, runs spread over them; freed memory goes back to the operating system."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from grokjax.core import devices as devices_lib
from grokjax.training.layouts import Layout
from grokjax.training.scheduler import Slots

ROOT = Path(__file__).parent.parent


def devices(code: str, **variables) -> int:
    """How many devices a fresh interpreter has after this code."""
    inherited = {n: v for n, v in os.environ.items() if n not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", f"import jax; from grokjax.core import devices; {code}; print(jax.device_count('cpu'))"],
        cwd=ROOT,
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize(
    ("code", "variables", "expected"),
    [
        ("devices.spread(100)", {}, min(devices_lib.n_cores(), devices_lib.MOST_DEVICES)),
        ("devices.spread(1)", {}, 1),
        ("devices.spread(1, recorded=3)", {}, 3),
        ("devices.spread(100)", {"JAX_NUM_CPU_DEVICES": "5"}, 5),
        ("devices.spread(100)", {"XLA_FLAGS": "--xla_force_host_platform_device_count=6"}, 6),
        ("jax.devices(); devices.spread(100, recorded=3)", {}, 1),
    ],
    ids=["a device per core", "no more than runs", "as recorded", "as JAX is told", "as XLA is told", "too late"],
)
def test_devices(code, variables, expected):
    assert devices(code, **variables) == expected


@pytest.mark.parametrize(
    ("cores", "n_runs", "recorded", "expected"),
    [
        *[(3, 5, None, 3), (5, 3, None, 3), (4, 4, None, 4), (99, 99, None, 16), (99, 16, None, 16), (4, 0, None, 1)],
        *[(4, 9, 99, 99), (4, 9, 1, 1), (4, 9, 0, 4)],
    ],
)
def test_no_more_devices_than_cores_runs_and_sixteen(monkeypatch, cores, n_runs, recorded, expected):
    made = []
    monkeypatch.setattr(devices_lib, "n_cores", lambda: cores)
    config = SimpleNamespace(values={"jax_num_cpu_devices": -1}, update=lambda *args: made.append(args))
    monkeypatch.setattr(devices_lib, "jax", SimpleNamespace(config=config))
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    devices_lib.spread(n_runs, recorded)
    assert made == [("jax_num_cpu_devices", expected)]
    for told, flags in ((7, ""), (-1, "--xla_force_host_platform_device_count=6")):
        config.values["jax_num_cpu_devices"] = told
        monkeypatch.setenv("XLA_FLAGS", flags)
        devices_lib.spread(n_runs, recorded)
    assert len(made) == 1


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4, 9}, raising=False)
    assert devices_lib.n_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert devices_lib.n_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices_lib.n_cores() == 1


@pytest.mark.parametrize(("stats", "expected"), [({"bytes_limit": 5}, 5), ({}, 2**33), (None, 2**33)])
def test_memory_is_what_the_device_says_or_8_gib(stats, expected):
    class Device:
        def memory_stats(self):
            return stats

    assert devices_lib.memory(Device()) == expected


def test_runs_are_spread_over_devices():
    def order(taken):
        slots = Slots(Layout(3, 1, 1, 2), range(6))
        slots.held = dict.fromkeys(taken)
        return slots.free()

    assert order([]) == [0, 3, 1, 4, 2, 5]
    assert order([0, 1]) == [3, 4, 2, 5]
    assert order([0, 1, 2, 4]) == [3, 5]


# --- memory ---------------------------------------------------------------------------------------------------------


def test_all_that_is_freed_is_given_back(monkeypatch):
    made = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=made.append))
    devices_lib.give_back_memory()
    assert made == [0]


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_other_c_libraries_have_nothing_to_call(error, monkeypatch):
    def refuse(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert devices_lib.give_back_memory() is None
