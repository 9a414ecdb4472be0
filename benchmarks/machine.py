"""What machine a benchmark runs on, as the program itself reads it, and whether it has it to itself."""

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from grokjax.core import environment as environment_lib
from grokjax.core.native import kernels

QUIET = 0.05  # of the processor, at most this taken by other programs


def torch_device() -> str:
    """Where PyTorch trains: beside JAX on a CUDA device if both can, else on the CPU."""
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def environment(torch_device: str | None = None) -> dict[str, Any]:
    """What the figures may depend on: processor, devices, threads, versions, commit."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {"processor": _processor(), "memory_gib": round(memory / 2**30), **environment_lib.environment()}
    found["native"] = kernels.identity() if found["platform"] == "cpu" else None
    if torch_device:
        import torch

        found["torch_device"], found["torch_threads"] = torch_device, torch.get_num_threads()
        found["versions"]["torch"] = torch.__version__
    return found


def _processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def line(found: Mapping[str, Any]) -> str:
    """The machine in one line."""
    versions = found["versions"]
    parts = [f"{found['processor']}, {found['memory_gib']} GiB"] if "processor" in found else []
    parts.append(f"JAX on {found['n_devices']} × {found['device_kind']} with {_threads(found['cpu_threads'])}")
    if found.get("driver"):
        parts.append(f"driver {found['driver']}")
    if "torch_device" in found:
        parts.append(f"PyTorch on {found['torch_device']} with {_threads(found['torch_threads'])}")
    named = [f"{name} {versions[name]}" for name in ("python", "jax", "jaxlib", "torch") if versions.get(name)]
    named += [found["native"].rsplit(", ", 1)[0]] if found.get("native") else []
    return f"{'; '.join(parts)}; {', '.join(named)}"


def _threads(n: int) -> str:
    return f"{n} CPU thread{'s' * (n != 1)}"


class Others:
    """What other programs take of the processor from now on, as far as the system tells (Linux)."""

    def __init__(self):
        self._start = self._read()

    @staticmethod
    def _read() -> np.ndarray | None:
        """Processor seconds of everybody but this process and its children, and those there were to be had."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return np.array([busy - sum(os.times()[:4]), time.monotonic() * (os.cpu_count() or 1)])

    def share(self) -> float | None:
        """Of the whole processor, in [0, 1]; None where the system does not tell."""
        now = self._read()
        if self._start is None or now is None:
            return None
        taken, available = now - self._start
        return float(np.clip(taken / available, 0, 1))


def others_line(share: float | None) -> str:
    """Whether the machine was left alone."""
    if share is None:
        return "other programs: unknown how much of the processor they took meanwhile"
    verdict = "" if share <= QUIET else ": not quiet enough to quote speeds"
    return f"other programs took {100 * share:.0f} % of the processor meanwhile{verdict}"
