"""What reads files, as its users call it, and what is held of the answer; in processes that may be killed."""

import contextlib
import dataclasses
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import cases
from faults.cases import PAYLOAD, Case
from grokjax import api
from grokjax.cli import check, circuit, export, measure, phases, replay, report, terminal
from grokjax.store.snapshots import load_params
from grokjax.training.request import Request

GOOD = ("sentence", "read")  # of the outcomes that `answer` tells
MEMORY = 3 << 30  # bytes more than a worker has when it is ready


def _model(case: Case, folder: Path) -> str:
    return str(folder / case.file)


def _export(case, folder):
    export.main([_model(case, folder), str(folder / "out.npz")])


def _measure(case, folder):
    measure.main([_model(case, folder), "--measures=losses"])


def _circuit(case, folder):
    circuit.main([_model(case, folder), "--out", str(folder / "out.json")])


def _phases(case, folder):
    source = folder / "sweep" if (folder / "sweep").exists() else folder / case.file
    phases.main([str(source), "--csv", str(folder / "out.csv")])


def _check(case, folder):
    check.main([str(folder / "sweep")])


def _report(case, folder):
    report.main([str(folder / "sweep")])


def _replay(case, folder):
    replay.main([str(folder / "sweep"), "--rule=W_E", "--measures=spectra"])


def _circuits(case, folder):
    circuit.main([str(folder / "sweep"), "--all"])


def _export_snapshot(case, folder):
    export.main([f"{folder / 'sweep'}:{case.number % 4}", str(folder / "out.npz")])


def _resume(case, folder):
    """launch.py on what is there, up to the first steps of training."""
    from rich.console import Console

    from faults.drive import StopAfter

    stop = StopAfter(1)
    api.train(
        Request(cases.config(case.state), folder / "sweep", stop=stop, console=Console(file=sys.stdout, width=100))
    )


READERS: dict[str, Callable[[Case, Path], None]] = {
    "export": _export,
    "measure": _measure,
    "circuit": _circuit,
    "phases": _phases,
    "check": _check,
    "report": _report,
    "replay": _replay,
    "circuits": _circuits,
    "export a snapshot": _export_snapshot,
    "resume": _resume,
}


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
        import traceback

        said = traceback.format_exc()
        return {"outcome": "traceback", "said": said[-1500:], "seconds": time.monotonic() - started}
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


OUTPUTS = ("out.npz", "out.json", "out.csv")
# Damage that nothing hides, of a file that is no checksum itself.
SURE = ("emptied", "cut", "missing", "foreign", "link to nothing", "link to itself", "folder")


def work(whole: Path) -> None:
    """A worker: reads numbers of cases, one per line, and writes answers, one line of JSON per reader."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    pass

    with contextlib.suppress(ImportError):
        import torch  # noqa: F401
    import warnings

    import jax

    warnings.simplefilter("ignore")
    jax.devices()
    load_params(whole / "sweeps" / "done", 0)  # starts Orbax's threads
    had = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (had + MEMORY, had + MEMORY))
    print("ready", file=channel)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory(prefix="fuzz") as root:
            case = cases.make(int(line), whole, Path(root) / "case")
            print(json.dumps(dataclasses.asdict(case)), file=channel)
            for reader in case.readers:
                print(json.dumps({"reader": reader, **answer(case, reader, Path(root) / "case")}), file=channel)
            print("done", file=channel)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
