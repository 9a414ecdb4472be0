"""What a tool that tracks experiments has to do, to be logged to; docs/howto/trackers.md writes one."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from grokjax.errors import InputError, unknown
from grokjax.experiment import load_module

TOOLS = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # the package that each needs; an extra of its name has it


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is to be logged.

    Attributes:
      sweep: the name that the sweep has there.
      number: of the run in it.
      config: every hyperparameter: numbers and texts by name.
      logged: the step of the last evaluation that was logged before; -1 for none.
    """

    sweep: str
    number: int
    config: Mapping[str, int | float | str]
    logged: int = -1

    @property
    def name(self) -> str:
        """Such as "run_00003", which sorts as the number does."""
        return f"run_{self.number:05d}"


class Session(Protocol):
    """A run in the tool, begun or gone on with."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes in an evaluation; what needs a run's final keys comes once it has ended, for earlier steps again."""

    def flush(self) -> None:
        """Makes sure that what was logged is kept: it will not be logged again."""

    def end(self, outcome: Mapping[str, Any]) -> None:
        """Takes in what became of the run: status, last losses, phases; None and NaN are left out."""

    def close(self) -> None:
        """Lets go of the run, which may be gone on with later."""


class Tracker(Protocol):
    """A tool that tracks experiments."""

    def begin(self, run: Run) -> Session:
        """Begins a run, or goes on with the one of that sweep and number."""

    def report(self, sweep: str, files: Sequence[Path]) -> None:
        """Takes in the report of a sweep that has ended: its page, and the picture of its losses."""


def of_name(name: str, folder: Path) -> Tracker:
    """The tracker that a command names.

    Args:
      name: one of `TOOLS`, or a Python file with get_tracker(folder).
      folder: for what the tool writes on this machine.

    Raises:
      InputError: there is none of that name, or its package is missing.
    """
    if name.endswith(".py"):
        module = load_module("--to", name)
        if not hasattr(module, "get_tracker"):
            raise InputError(f"--to={name} has no get_tracker(folder), which is what makes it a tracker's.")
        return module.get_tracker(folder)
    if name not in TOOLS:
        raise unknown("tool", name, TOOLS)
    try:
        importlib.import_module(TOOLS[name])
    except ImportError:
        raise InputError(f"--to={name} needs {TOOLS[name]}: pip install -e '.[{name}]'.") from None
    return importlib.import_module(f"grokjax.sharing.{name}").get_tracker(folder)
