"""Whole sweeps by launch.py, which go on where an earlier call was interrupted."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.card import programs
from benchmarks.command import ROOT
from benchmarks.markdown import number
from grokjax.store import files
from grokjax.store.metrics import read_runs

TO_STOP = 40.0  # seconds before its time is up, after which a sweep is asked to stop
TO_END = 10.0  # and after which it is ended
DRY = ("p=7", "model.d_model=16", "model.d_mlp=32", "model.n_heads=2", "steps=200", "eval_every=100")
LINES = 60  # of the phases' summary that are kept


def trained(experiment: str, overrides: Sequence[str], folder: Path, by: str, seconds: float) -> dict[str, Any]:
    """Trains a sweep, or goes on with it; returns its wall time in all calls, run-steps and phases.

    A sweep that is not done says so under "failed", as a task does, so that the next call goes on with it.

    Args:
      experiment: as launch.py takes it.
      overrides: of its config, FIELD=VALUE.
      folder: its directory.
      by: the axis by which phases are summarised.
      seconds: it may take.
    """
    flags = [f"--config={experiment}", f"--workdir={folder}", *(f"--config.{one}" for one in overrides)]
    before = _walls(folder)
    started = time.monotonic()
    status, said = _launch([sys.executable, str(ROOT / "launch.py"), *flags], seconds)
    walls = [*before, time.monotonic() - started]
    if folder.exists():
        files.put(json.dumps(walls).encode(), _walls_file(folder))
    found = {"experiment": experiment, "overrides": list(overrides), "walls_s": walls, "status": status}
    if status:
        return found | {"failed": f"not done, exit status {status}; {said.strip()[-1500:]}"}
    runs = read_runs(folder)
    record = json.loads((folder / "config.json").read_text())
    return found | {
        "n_runs": len(runs),
        "run_steps": int(runs["last_step"].sum()),
        "trained_in": re.findall(r"trained in (.*)", said),
        "layouts": record["groups"],
        "width": record["width"],
        "precision": record["precision"],
        "phases": phases(folder, by),
        "on": programs.circumstances(),
    }


def _walls_file(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.walls.json"


def _walls(folder: Path) -> list[float]:
    """Wall times of earlier calls."""
    path = _walls_file(folder)
    return json.loads(path.read_text()) if path.exists() and folder.exists() else []


def _launch(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Runs a command, which is asked to stop in time; its exit status and the end of what it printed."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=max(1.0, seconds - TO_STOP))
        return process.returncode, said
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=TO_STOP - TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return process.returncode or 1, said


def phases(folder: Path, by: str) -> str:
    """What `grokjax phases` says of a sweep."""
    command = [sys.executable, "-m", "grokjax", "phases", str(folder), f"--by={by}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    return "\n".join((done.stdout or done.stderr).splitlines()[:LINES])


def line(figure: Mapping[str, Any]) -> str:
    """A sweep in one line."""
    wall_s = sum(figure["walls_s"])
    parts = [f"{figure['n_runs']} runs, {figure['run_steps']:,} run-steps in {wall_s:.0f} s"]
    calls = len(figure["walls_s"])
    parts += [f"{number(figure['run_steps'] / wall_s)} run-steps/s, start and compilation included"]
    return ", ".join([*parts, *([f"in {calls} calls"] if calls > 1 else [])])
