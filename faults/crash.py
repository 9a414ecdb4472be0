"""Runs launch.py's command line in a process that is sent a signal at a chosen moment. grokjax knows nothing of this.

python -m faults.crash BLOW STATE --config=… --workdir=…

BLOW is a `Blow` as JSON. Into the file STATE goes where the process is, so that it can be read once it has been killed.
"""

import contextlib
import dataclasses
import functools
import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from grokjax.cli import train
from grokjax.report import write as write_lib
from grokjax.store import checkpoints, files, orbax, recovery, snapshots
from grokjax.training import final_keys, scheduler
from grokjax.training.population import Population

STATE_BYTES = 128
START, COMPILE, TRAIN, REPORT = "start-up", "compiling", "training", "report"
PARQUET, CHECKPOINT, SNAPSHOT, SETTLE, REPAIR = "Parquet write", "checkpoint", "snapshot", "settling", "repair"


@dataclasses.dataclass(frozen=True)
class Blow:
    """A signal that a process sends to itself.

    Attributes:
      at: the stage that it is to be in; "" for never.
      n: how many times that stage has been entered, counting this one.
      when: "entered", "half" (of the bytes are written), "written" (under the temporary name) or "renamed" (but not
        yet said to be whole).
      delay: seconds after that, for "entered".
      number: of the signal.
    """

    at: str = ""
    n: int = 1
    when: str = "entered"
    delay: float = 0.0
    number: int = signal.SIGKILL


class Crash:
    """Strikes at the moment that a `Blow` names.

    Args:
      blow: the moment.
      state: a file that outlives the process; it holds the stages, outermost first, that it was in when the blow fell.
    """

    def __init__(self, blow: Blow, state: Path):
        self.blow, self.stages, self.struck = blow, [START], False
        self.entered: dict[str, int] = {}
        state.write_bytes(json.dumps(self.stages).encode().ljust(STATE_BYTES))
        with state.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), STATE_BYTES)

    def show(self) -> None:
        if not self.struck:
            self._map[:] = json.dumps(self.stages).encode().ljust(STATE_BYTES)

    def strike(self) -> None:
        self.struck = True
        os.kill(os.getpid(), self.blow.number)

    def due(self, when: str, stage: str) -> bool:
        blow, now = self.blow, (stage, when, self.entered.get(stage))
        return not self.struck and self.stages[-1] == stage and now == (blow.at, blow.when, blow.n)

    @contextlib.contextmanager
    def stage(self, name: str):
        self.entered[name] = self.entered.get(name, 0) + 1
        self.stages.append(name)
        self.show()
        if self.due("entered", name):
            threading.Timer(self.blow.delay, self.strike).start() if self.blow.delay else self.strike()
        try:
            yield
        finally:
            self.stages.remove(name)
            self.show()

    def wrap(self, owner: object, name: str, stage: str) -> None:
        """Makes a function a stage."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*args, **kwargs):
            with self.stage(stage):
                return inner(*args, **kwargs)

        setattr(owner, name, outer)


def arm(crash: Crash) -> None:
    """Makes grokjax's functions stages, and its writes stop halfway."""
    crash.wrap(scheduler, "train_groups", TRAIN)
    crash.wrap(Population, "start", COMPILE)  # the first one of a group compiles
    crash.wrap(files, "write_parquet", PARQUET)
    crash.wrap(checkpoints, "save", CHECKPOINT)
    crash.wrap(snapshots, "save_snapshot", SNAPSHOT)
    crash.wrap(final_keys, "finalise", SETTLE)
    crash.wrap(recovery, "repair", REPAIR)
    crash.wrap(write_lib, "write", REPORT)
    files.open = functools.partial(_open, crash)  # type: ignore[attr-defined]
    os.replace = functools.partial(_replace, crash, os.replace)
    orbax.save = functools.partial(_save, crash, orbax.save)


def _open(crash: Crash, file, mode="r", **kwargs):
    opened = open(file, mode, **kwargs)  # noqa: SIM115 (for the caller to close)
    if "w" in mode and str(file).endswith(".parquet.tmp") and crash.due("half", PARQUET):
        write = opened.write

        def half(data):
            write(data[: len(data) // 2])
            opened.flush()
            crash.strike()

        opened.write = half
    return opened


def _replace(crash: Crash, replace: Callable, source, target):
    stage = _kind(Path(target))
    if crash.due("written", stage):
        crash.strike()
    replace(source, target)
    if crash.due("renamed", stage):
        crash.strike()


def _kind(target: Path) -> str:
    """The stage whose rename this is."""
    if target.suffix == ".parquet":
        return PARQUET
    return {"checkpoints": CHECKPOINT, "snapshots": SNAPSHOT}.get(target.parent.name, "")


def _save(crash: Crash, save: Callable, path: Path, *args):
    """Orbax writes from threads of its own, so the moment is when the first of its files has bytes."""
    stage = _kind(path)
    if crash.due("half", stage):

        def watch():
            while not any(file.is_file() and file.stat().st_size for file in path.parent.rglob(f"{path.name}*/**/*")):
                time.sleep(0.0005)
            crash.strike()

        threading.Thread(target=watch, daemon=True).start()
    save(path, *args)


def main() -> None:
    blow, state, *rest = sys.argv[1:]
    crash = Crash(Blow(**json.loads(blow)), Path(state))
    arm(crash)
    train.main(rest)


if __name__ == "__main__":
    main()
