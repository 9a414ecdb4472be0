"""The problem that all parts train, and what a figure says of where it was found."""

import os
import subprocess
from typing import Any

from benchmarks import machine, mainline
from grokjax.core.problem import Problem
from grokjax.sweeps import Run

TINY = {"p": 7, "d_model": 16, "d_mlp": 32, "n_heads": 2}
COMMIT = "GROKJAX_COMMIT"  # variable with the commit of a tree that is no checkout


def of(dry: bool, n_runs: int, **fields) -> tuple[Problem, tuple[Run, ...]]:
    """So many runs of the mainline, or of the tiny model of a dry run."""
    return mainline.mainline(n_runs, **(TINY if dry else {}), **fields)


def circumstances() -> dict[str, Any]:
    """Where a figure was found: the machine, its card and the card's driver, versions, commit."""
    found = machine.environment() | {"driver": _driver()}
    return found | {"git_commit": found["git_commit"] or os.environ.get(COMMIT)}


def _driver() -> str | None:
    """The version of an NVIDIA card's driver; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return found.partition("\n")[0].strip() or None
