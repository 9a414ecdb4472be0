"""The problem that all parts train, the programs of it, and what a figure says of where it was found."""

import subprocess
from typing import Any

import jax
import jaxlib

from benchmarks import mainline
from grokjax.core import environment
from grokjax.core.problem import Problem
from grokjax.sweeps import Run

TINY = {"p": 7, "d_model": 16, "d_mlp": 32, "n_heads": 2}


def of(dry: bool, n_runs: int, **fields) -> tuple[Problem, tuple[Run, ...]]:
    """So many runs of the mainline, or of the tiny model of a dry run."""
    return mainline.mainline(n_runs, **(TINY if dry else {}), **fields)


def circumstances() -> dict[str, Any]:
    """Where a figure was found: the card, its driver, versions, commit."""
    device = jax.devices()[0]
    return {
        "card": device.device_kind,
        "platform": device.platform,
        "driver": _driver(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "xla_flags": environment.environment()["xla_flags"],
        "commit": environment.git_commit(),
    }


def _driver() -> str | None:
    """The version of the card's driver, as its own tool says; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return found.splitlines()[0].strip() if found.strip() else None
