"""Starting a sweep that a fault will strike, and telling whether what it left equals an uninterrupted one's."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command import ROOT
from faults import crash
from faults.crash import Blow
from grokjax.errors import InputError
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.snapshots import find_snapshots, load_params

LIMIT_SECONDS = 600.0  # for one start


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
      status: its exit status; negative for a signal.
      stages: it was in, if it was struck.
      seconds: it ran.
      log: what it printed.
    """

    status: int
    stages: list[str]
    seconds: float
    log: Path

    @property
    def struck(self) -> bool:
        """Whether a signal ended it."""
        return self.status in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)

    @property
    def where(self) -> str:
        """The stage it was in, in words."""
        inner = self.stages[-1]
        return f"{inner} while settling" if crash.SETTLE in self.stages[:-1] else inner

    def refuse(self) -> None:
        """Raises InputError if it neither finished nor was struck."""
        if self.status and not self.struck:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise InputError(f"a start ended with status {self.status}; {self.log} ends with:\n{last}")


class Place:
    """A folder for sweeps, with programs compiled by one start kept for the next.

    Args:
      kept: the folder; None for a temporary one.
    """

    def __init__(self, kept: Path | None):
        self.kept = kept is not None
        self.folder = kept or Path(tempfile.mkdtemp(prefix="grokjax-faults-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "programs"), "TERM": "dumb"}
        self.environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

    def start(self, name: str, blow: Blow, kill_after: float | None = None) -> Ended:
        """Starts a sweep, or goes on with it, until it ends.

        Args:
          name: of the sweep's folder.
          blow: that the process sends to itself.
          kill_after: seconds after which the blow's signal comes from outside.
        """
        state, log = self.folder / "state", self.folder / f"{name}.log"
        launch = [sys.executable, "-m", "faults.crash", json.dumps(dataclasses.asdict(blow)), str(state)]
        launch += ["--config=faults/experiment.py", f"--workdir={self.folder / name}"]
        state.write_text(json.dumps([crash.START]))
        began = time.monotonic()
        with log.open("a") as out:
            process = subprocess.Popen(launch, cwd=ROOT, env=self.environment, stdout=out, stderr=out)
            try:
                process.wait(LIMIT_SECONDS if kill_after is None else kill_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL if kill_after is None else blow.number)
                process.wait(LIMIT_SECONDS)
                if kill_after is None:
                    raise
        return Ended(process.returncode, json.loads(state.read_bytes()), time.monotonic() - began, log)

    def whole(self) -> float:
        """Trains an uninterrupted sweep, `whole`; returns the seconds it took once its programs were compiled.

        Raises:
          InputError: two such sweeps differ.
        """
        for name in ("first", "whole"):
            ended = self.start(name, Blow())
            ended.refuse()
        wrong = self.differences("first")
        if wrong:
            raise InputError(f"two uninterrupted sweeps differ here, so nothing can be compared: {wrong[0]}.")
        return ended.seconds

    def differences(self, name: str) -> list[str]:
        """What differs between a sweep and the whole one, in words."""
        return differences(self.folder / name, self.folder / "whole")

    def leave(self, wrong: Sequence[str]) -> None:
        """Removes a temporary folder, unless something is wrong with what it holds."""
        if wrong:
            print(f"what was compared lies in {self.folder}")
        elif not self.kept:
            shutil.rmtree(self.folder)


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' tables and parameters, in words; nothing if every bit is the same."""
    return table_differences(a, b) + parameter_differences(a, b)


def table_differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' metrics and runs."""
    found = []
    for name, read in (("metrics", read_metrics), ("runs.parquet", read_runs)):
        x, y = read(a), read(b)
        if x.shape != y.shape or list(x) != list(y):
            found.append(f"{name} has {len(x)} rows of {len(x.columns)} columns, not {len(y)} of {len(y.columns)}")
            continue
        # Text holds every bit of a float, and makes nulls and lists comparable.
        wrong = [str(column) for column in x if x[column].map(str).tolist() != y[column].map(str).tolist()]
        found += [f"{name}: {', '.join(wrong)} differ"] if wrong else []
    twice = int(read_metrics(a).duplicated(["run", "step"]).sum())
    return [*found, f"{twice} rows are there twice"] if twice else found


def parameter_differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' snapshots."""
    there, others = set(find_snapshots(a)), set(find_snapshots(b))
    found = [f"snapshots differ: {sorted(there ^ others)[:3]}"] if there != others else []
    for run, step in sorted(there & others):
        mine, its = (load_params(path, run, step) for path in (a, b))
        found += [f"{key} of run {run} at step {step} differs" for key in mine if not same(mine[key], its[key])]
    return found


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two arrays are the same bit for bit."""
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
