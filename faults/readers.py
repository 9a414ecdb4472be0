"""What reads files, as its users call it, and what is held of the answer; in processes that may be killed."""

import contextlib
import io
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from faults import cases
from faults.cases import PAYLOAD, Case
from grokjax import waiting
from grokjax.api import requests
from grokjax.cli import check, circuit, export, measure, phases, replay, report, terminal
from grokjax.store.snapshots import load_params
from grokjax.training.request import Request, StopRequest

GOOD = ("sentence", "read")  # of the outcomes that `answer` tells
MEMORY = 3 << 30  # bytes more than a worker has when it is ready


def _phases(case: Case, folder: Path) -> None:
    source = folder / "sweep" if (folder / "sweep").exists() else folder / case.file
    phases.main([str(source), "--csv", str(folder / "out.csv")])


def _many(case: Case, folder: Path) -> list[str]:
    """A file of many checkpoints, or the folder of one of several files."""
    place = folder / case.file
    return [str(place if place.suffix == ".pth" else place.parent), "--measures=losses"]


def _resume(case: Case, folder: Path) -> None:
    """launch.py on what is there, up to the first steps of training."""
    stop, console = StopRequest(), Console(file=sys.stdout, width=100)
    stop.signal = signal.SIGTERM
    requests.train(Request(cases.config_of(case.state), folder / "sweep", console=console, stop=stop))


READERS: dict[str, Callable[[Case, Path], object]] = {
    "export": lambda case, folder: export.main([str(folder / case.file), str(folder / "out.npz")]),
    "measure": lambda case, folder: measure.main([str(folder / case.file), "--measures=losses"]),
    "circuit": lambda case, folder: circuit.main([str(folder / case.file), "--out", str(folder / "out.json")]),
    "measure all": lambda case, folder: measure.main(
        [*_many(case, folder), "--all", f"--out={folder / 'out.parquet'}"]
    ),
    "phases": _phases,
    "report of a table": lambda case, folder: report.main([str(folder / case.file)]),
    "check": lambda case, folder: check.main([str(folder / "sweep")]),
    "report": lambda case, folder: report.main([str(folder / "sweep")]),
    "replay": lambda case, folder: replay.main([str(folder / "sweep"), "--rule=W_E", "--measures=spectra"]),
    "circuits": lambda case, folder: circuit.main([str(folder / "sweep"), "--all"]),
    "export a snapshot": lambda case, folder: export.main(
        [f"{folder / 'sweep'}:{case.number % 4}", str(folder / "out.npz")]
    ),
    "resume": _resume,
}
OUTPUTS = ("out.npz", "out.json", "out.csv", "out.parquet", "metrics.report")
# Damage that nothing hides, of a file that is no checksum itself.
SURE = ("emptied", "cut", "missing", "foreign", "link to nothing", "link to itself", "folder")


def answer(case: Case, reader: str, folder: Path) -> dict[str, Any]:
    """What a reader said of a case: "sentence", "read", or what it must not do, with the words."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    started = time.monotonic()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            terminal.guarded(READERS[reader], case, folder)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        said = traceback.format_exc()[-1500:]
        return {"outcome": "traceback", "said": said, "seconds": time.monotonic() - started}
    said = err.getvalue().strip() if status == 2 or err.getvalue() else out.getvalue()
    outcome = "sentence" if status in (1, 2) else "read"
    if status == 2 and ("\n" in said or not said.startswith("error: ") or not said.isprintable()):
        outcome = "no sentence"
    if status not in (0, 1, 2, 128 + signal.SIGTERM):
        outcome = "no sentence"
    if "\x1b" in out.getvalue() + err.getvalue():
        outcome = "escape sequence"
    if reader == "check" and status == 0 and not case.sealed and case.damage in SURE and ".sha256" not in case.file:
        outcome = "missed"
    if (folder / PAYLOAD).exists():
        outcome = "code was run"
    if not {path.name for path in folder.iterdir()} <= {"sweep", Path(case.file).parts[0], "evil.py", *OUTPUTS}:
        outcome = "wrote elsewhere"
    return {"outcome": outcome, "said": said[:300], "seconds": time.monotonic() - started}


def make_ready(whole: Path, errors: str) -> None:
    """Makes this process one that reads cases, with a limit on its memory.

    Args:
      whole: the folder of whole files.
      errors: the file for what is printed.
    """
    printed = os.open(errors, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(printed, stream)
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401 (counted as had)
    warnings.simplefilter("ignore")
    waiting.SLOW_SECONDS = 1e6  # what is read here is a command's last word, not that it is still at it
    jax.devices()
    load_params(whole / "sweeps" / "done", 0)  # starts Orbax's threads
    had = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (had + MEMORY, had + MEMORY))
