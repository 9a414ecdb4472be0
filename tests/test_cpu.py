"""A CPU's cores as devices, and runs spread over them."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from grokjax.core import devices as devices_lib
from grokjax.core.problem import Shape
from grokjax.training.scheduler import Scheduler

ROOT = Path(__file__).parent.parent


def devices(code: str, **variables) -> int:
    """How many devices a fresh interpreter has after this code."""
    inherited = {n: v for n, v in os.environ.items() if n not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", f"import jax; from grokjax import cpu; {code}; print(jax.device_count('cpu'))"],
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
        ("cpu.spread(100)", {}, min(devices_lib.n_cores(), devices_lib.MOST_DEVICES)),
        ("cpu.spread(1)", {}, 1),
        ("cpu.spread(1, recorded=3)", {}, 3),
        ("cpu.spread(100)", {"JAX_NUM_CPU_DEVICES": "5"}, 5),
        ("cpu.spread(100)", {"XLA_FLAGS": "--xla_force_host_platform_device_count=6"}, 6),
        ("jax.devices(); cpu.spread(100, recorded=3)", {}, 1),
    ],
    ids=["a device per core", "no more than runs", "as recorded", "as JAX is told", "as XLA is told", "too late"],
)
def test_devices(code, variables, expected):
    assert devices(code, **variables) == expected


def test_runs_are_spread_over_devices():
    def order(taken):
        return Scheduler._free_slots(SimpleNamespace(shape=Shape(3, 1, 1, 2), slots=dict.fromkeys(taken)))

    assert order([]) == [0, 3, 1, 4, 2, 5]
    assert order([0, 1]) == [3, 4, 2, 5]
    assert order([0, 1, 2, 4]) == [3, 5]
