"""The environment that results may depend on beside the config: versions, devices, threads, commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from grokjax.core import cache, compiler
from grokjax.core import devices as devices_lib

PACKAGES = ("grokjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow")


def environment() -> dict[str, Any]:
    """Describes this environment, ready for JSON: versions, devices, threads, and the commit of the source tree."""
    devices = jax.local_devices()
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "n_devices": len(devices),
        "n_processes": jax.process_count(),
        # XLA's CPU backend splits long contractions by its thread pool, so bits depend on it.
        "cpu_threads": devices_lib.n_cores(),
        "instructions": cache.processor_kind(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": compiler.options(devices[0].platform),
        "git_commit": git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of this source tree, with "+changes" if it was modified; None outside a checkout."""
    here = Path(__file__).parent

    def git(*args):
        return subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "+changes" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
