"""Tasks: what finds one figure, in a process of its own, and the file that keeps the figures of a part."""

import dataclasses
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from grokjax.store import files

LEAST_SECONDS = 20.0  # left, below which no task begins

Figures = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all parts are told.

    Attributes:
      out: folder of the JSON files.
      work: folder of what is larger: directories of sweeps, traces, weights.
      dry: a tiny problem and few steps.
    """

    out: Path
    work: Path
    dry: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """What finds one figure.

    Attributes:
      key: of the figure in its part.
      function: of a module, called in a new process with `args` and the seconds it may take; returns what JSON holds.
      args: before the seconds.
      environment: variables of that process beside this one's.
    """

    key: str
    function: Callable[..., Mapping[str, Any]]
    args: tuple = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def carry_out(tasks: Sequence[Task], path: Path, deadline: float, say: Callable[[str], object]) -> Figures:
    """Carries out the tasks that `path` has no figure of, and keeps each figure there at once.

    Args:
      tasks: in order of worth.
      path: of the JSON file.
      deadline: by time.monotonic, after which nothing runs.
      say: shows what is going on.

    Returns:
      All figures that the file holds. One that failed says why under "failed" and is tried anew.
    """
    found: Figures = json.loads(path.read_text()) if path.exists() else {}
    for task in tasks:
        left = deadline - time.monotonic()
        if task.key in found and "failed" not in found[task.key]:
            continue
        if left < LEAST_SECONDS:
            say(f"{path.stem}: no time left for {task.key}")
            continue
        say(f"{path.stem}: {task.key}")
        started = time.monotonic()
        figure = dict(in_new_process(task, left))
        found[task.key] = figure | {"took_s": round(time.monotonic() - started, 1)}
        if "failed" in figure:
            say(f"{path.stem}: {task.key} failed: {figure['failed'].splitlines()[-1]}")
        files.make_folder(path.parent)
        files.put((json.dumps(found, indent=1) + "\n").encode(), path)
    return found


def in_new_process(task: Task, seconds: float) -> Mapping[str, Any]:
    """The figure of a task, or why there is none under "failed"."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, task.function, (*task.args, seconds)))
    with mock.patch.dict(os.environ, task.environment):
        process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return {"failed": f"not done after {seconds:.0f} s"}
        return ours.recv()
    except EOFError:
        process.join(10)
        return {"failed": f"its process ended with status {process.exitcode}"}
    finally:
        process.join(0.5 if ours.closed else 5)
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()


def _answer(pipe, function: Callable[..., Mapping[str, Any]], args: tuple) -> None:
    try:
        result: Mapping[str, Any] = function(*args)
    except BaseException:
        result = {"failed": traceback.format_exc(limit=-8)[-3000:].strip()}
    pipe.send(result)
    pipe.close()
