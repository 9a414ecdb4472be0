"""Starting a sweep that a fault will strike, and telling whether what it left equals an uninterrupted one's."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faults import crash
from faults.crash import Blow
from grokjax.core import environment
from grokjax.errors import InputError
from grokjax.store import files
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.snapshots import find_snapshots, load_params
from grokjax.training.request import StopRequest

ROOT = Path(__file__).parent.parent
RECORDS = Path(__file__).parent / "records"
LIMIT_SECONDS = 600.0  # for one start

Record = dict[str, Any]


class Place:
    """A folder for sweeps, with programs compiled by one start kept for the next.

    Args:
      folder: to work in.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs"), "TERM": "dumb"}
        self.environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

    def start(self, name: str, blow: Blow, kill_after: float | None = None) -> "Ended":
        """Starts a sweep, or goes on with it, until it ends.

        Args:
          name: of the sweep's folder.
          blow: that the process sends to itself.
          kill_after: seconds after which it is killed from outside.
        """
        state, log = self.folder / "state", self.folder / f"{name}.log"
        command = [sys.executable, "-m", "faults.crash", json.dumps(asdict(blow)), str(state)]
        command += ["--config=faults/experiment.py", f"--workdir={self.folder / name}"]
        state.write_text(json.dumps([0.0, [crash.START]]))
        began = time.monotonic()
        with log.open("a") as out:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=out, stderr=out)
            try:
                process.wait(LIMIT_SECONDS if kill_after is None else kill_after)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                if kill_after is None:
                    raise
        struck, stages = crash.read(state)
        now = time.monotonic()
        return Ended(process.returncode, stages, now - began, now - struck if struck else None, log)


class Ended:
    """How a process ended.

    Attributes:
      status: its exit status; negative for a signal.
      stages: it was in, if it was killed.
      seconds: it ran.
      since_blow: seconds since the blow fell, or None if it did not.
      log: what it printed.
    """

    def __init__(self, status: int, stages: list[str], seconds: float, since_blow: float | None, log: Path):
        self.status, self.stages, self.seconds, self.since_blow, self.log = status, stages, seconds, since_blow, log

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL

    @property
    def where(self) -> str:
        """The stage it was in, in words."""
        inner = self.stages[-1]
        return f"{inner} while settling" if crash.SETTLE in self.stages[:-1] else inner

    def refuse(self) -> None:
        """Raises InputError if it neither finished nor was killed."""
        if self.status and not self.killed:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise InputError(f"a start ended with status {self.status}; {self.log} ends with:\n{last}")


class StopAfter(StopRequest):
    """A wish to stop that comes at the n-th question."""

    def __init__(self, n: int):
        super().__init__()
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.signal = signal.SIGTERM
        return super().__call__()


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' tables and parameters, in words; nothing if every bit is the same."""
    return table_differences(a, b) + parameter_differences(a, b)


def table_differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' metrics and runs."""
    found = []
    for name, read in (("metrics", read_metrics), ("runs.parquet", read_runs)):
        x, y = read(a), read(b)
        found += _columns_that_differ(name, x, y)
    metrics = read_metrics(a)
    twice = int(metrics.duplicated(["run", "step"]).sum())
    found += [f"{twice} rows are there twice"] if twice else []
    return found


def parameter_differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' snapshots."""
    found = []
    there, others = set(find_snapshots(a)), set(find_snapshots(b))
    found += [f"snapshots differ: {sorted(there ^ others)[:3]}"] if there != others else []
    for run, step in sorted(there & others):
        mine, its = (load_params(path, run, step) for path in (a, b))
        found += [f"{key} of run {run} at step {step} differs" for key in mine if not same(mine[key], its[key])]
    return found


def _columns_that_differ(name: str, x, y) -> list[str]:
    if len(x) != len(y):
        return [f"{name} has {len(x)} rows, not {len(y)}"]
    if list(x) != list(y):
        return [f"{name} has other columns"]
    # Text holds every bit of a float, and makes nulls and lists comparable.
    wrong = [column for column in x if x[column].map(str).tolist() != y[column].map(str).tolist()]
    return [f"{name}: {', '.join(wrong)} differ"] if wrong else []


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two arrays are the same bit for bit."""
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def whole(place: Place) -> tuple[Path, float]:
    """An uninterrupted sweep and the seconds it took once its programs were compiled."""
    for name in ("first", "whole"):
        ended = place.start(name, Blow())
        ended.refuse()
    wrong = differences(place.folder / "first", place.folder / "whole")
    if wrong:
        raise InputError(f"two uninterrupted sweeps differ here, so nothing can be compared: {wrong[0]}.")
    return place.folder / "whole", ended.seconds


def working_folder(kept: Path | None) -> Path:
    """Where the sweeps go: a folder that was asked for, or a temporary one."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        return kept
    return Path(tempfile.mkdtemp(prefix="grokjax-faults-"))


def record(command: str, argv: list[str], figures: Mapping[str, Any]) -> Record:
    """What was found, with what it may depend on."""
    return {
        "benchmark": command,
        "command": " ".join(["python -m faults." + command, *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": environment.environment(),
        **figures,
    }


def keep(found: Record, path: Path) -> None:
    """Writes a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.put((json.dumps(found, indent=1) + "\n").encode(), path)
