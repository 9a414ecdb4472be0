"""Trajectories: the many checkpoints of one training run, in one file or in a folder, by their steps."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grokjax.errors import InputError, shown
from grokjax.interp import files
from grokjax.interp.state_dict import CONFIGS, SPLITS, WRAPPERS

SUFFIXES = (".npz", ".safetensors", ".pth", ".pt", ".ckpt")
UNNUMBERED = "the file does not tell its checkpoints' steps: they are numbered from 0"
_MANY = ("checkpoints", "state_dicts")  # entries of a file that hold checkpoints
_STEPS = ("checkpoint_epochs", "checkpoint_steps", "epochs", "steps")  # and those that hold their steps
_STEP = ("step", "global_step", "epoch")  # what a checkpoint may call its own
_LAST = 2**31 - 1  # steps are int32 in tables


class Trajectory(NamedTuple):
    """One run's checkpoints.

    Attributes:
      source: the file or folder.
      held: by step, in order: gives what a model file of that step alone would hold, for `state_dict.unwrap`.
      notes: what was passed over or assumed, in words.
    """

    source: str
    held: Mapping[int, Callable[[], Any]]
    notes: tuple[str, ...] = ()

    def at(self, step: int) -> Any:
        """What the checkpoint of a step holds.

        Raises:
          InputError: there is none of that step; names the nearest.
        """
        if step in self.held:
            return self.held[step]()
        nearest = sorted(sorted(self.held, key=lambda other: abs(other - step))[:2])
        those = f"the nearest are {nearest[0]} and {nearest[1]}" if len(nearest) > 1 else f"only {nearest[0]} is there"
        raise InputError(f"{self.source} has no checkpoint of step {step}: {those}.")

    def refuse(self) -> None:
        """Refuses it where one checkpoint is asked for.

        Raises:
          InputError: always; says how to name one.
        """
        steps = list(self.held)
        many = f"{len(steps)} checkpoints, of steps {steps[0]} to {steps[-1]}" if len(steps) > 1 else "one checkpoint"
        raise InputError(
            f"{self.source} holds {many}: name one, such as "
            f"{self.source}:{steps[-1]}, or measure them all (grokjax measure {self.source} --all)."
        )


def find(path: str | Path) -> Trajectory:
    """Finds the checkpoints in a file that holds many, or in a folder of model files with steps in their names.

    Raises:
      InputError: there are none, or their steps are not told apart.
    """
    text = str(path)
    if os.path.isdir(text):
        return _in_folder(text)
    if not os.path.isfile(text):
        raise InputError(f"{text} is no file and no folder: name one that holds many checkpoints.")
    found = within(text, files.load(text))
    if found is None:
        raise InputError(
            f"{text} is no directory, and no file of many checkpoints: a list of them is expected under "
            f"{' or '.join(_MANY)}."
        )
    return found


def is_folder(path: str | Path) -> bool:
    """Whether this is a folder of checkpoints, and no sweep's directory."""
    if not os.path.isdir(path) or os.path.exists(os.path.join(path, "runs.parquet")):
        return False
    return any(_named_step(name) is not None for name in os.listdir(path))


def is_many(held: Any) -> bool:
    """Whether a file that holds this holds many checkpoints, and no one model beside them."""
    if isinstance(held, Mapping) and any(name in held for name in WRAPPERS):
        return False
    return _states(held) is not None


def within(source: str, held: Any) -> Trajectory | None:
    """The checkpoints in what a file holds: a list of them, or a dict by step; None where it holds neither.

    Raises:
      InputError: it does, but not as it must be.
    """
    found = _states(held)
    if found is None:
        return None
    name, states = found
    told = held if isinstance(held, Mapping) and name else {}
    called = f"{source}: '{name}'" if name else source
    if not isinstance(states, Mapping | list | tuple) or not states:
        raise InputError(
            f"{called} is {shown(states)}, but a list of state dicts is expected, or a dict of them by step."
        )
    steps, where, notes = _steps(states, told)
    by_step: dict[int, Any] = {}
    for step, state in zip(steps, states.values() if isinstance(states, Mapping) else states, strict=True):
        number = _whole(step)
        if number is None or number in by_step:
            wrong = "is there twice" if number is not None else f"is no whole number from 0 to {_LAST}"
            raise InputError(f"{called}: step {shown(step)}, of {where}, {wrong}.")
        by_step[number] = state
    beside = {key: told[key] for key in (*SPLITS, *CONFIGS) if key in told}
    ordered = {step: _giver({**beside, "model": by_step[step]}) for step in sorted(by_step)}
    return Trajectory(source, ordered, notes)


def _giver(held: Any) -> Callable[[], Any]:
    return lambda: held


def _states(held: Any) -> tuple[str, Any] | None:
    """The checkpoints among what a file holds, and the name of that entry; "" where it holds nothing else."""
    if isinstance(held, Mapping):
        name = next((name for name in _MANY if name in held), None)
        if name is not None:
            return name, held[name]
        return ("", held) if held and all(type(key) is int for key in held) else None
    is_list = isinstance(held, list | tuple) and held and all(_own(one) is not None for one in held)
    return ("", held) if is_list else None


def _own(state: Any) -> Any:
    """The step that a checkpoint has beside its state dict; None if it has none."""
    return next((state[name] for name in _STEP if name in state), None) if isinstance(state, Mapping) else None


def _steps(states: Any, told: Mapping[str, Any]) -> tuple[Sequence[Any], str, tuple[str, ...]]:
    """The steps of checkpoints, where they were found, and notes."""
    if isinstance(states, Mapping):
        return list(states), "its keys", ()
    for name in _STEPS:
        steps: Any = told.get(name)
        steps = steps.tolist() if hasattr(steps, "tolist") else steps
        # A range may be longer than len can tell.
        if isinstance(steps, list | tuple | range) and len(steps[: len(states) + 1]) == len(states):
            return steps, f"'{name}'", ()
    own = [_own(state) for state in states]
    if all(step is not None for step in own):
        return own, "the checkpoints' own", ()
    return range(len(states)), "their order", (UNNUMBERED,)


def _whole(step: Any) -> int | None:
    """A step as a whole number, given as one, as its digits or as an array of one; None if it is none."""
    step = step.item() if getattr(step, "ndim", None) == 0 else step
    if isinstance(step, str) and step.isdecimal():
        step = int(step)
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step <= _LAST or step != int(step):
        return None
    return int(step)


def _in_folder(path: str) -> Trajectory:
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIXES) and not name.startswith("."))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    by_step: dict[int, str] = {}
    passed = []
    for name in names:
        step = _named_step(name)
        if step is None:
            passed.append(name)
        elif step in by_step:
            raise InputError(
                f"{path} has two files of step {step}, {by_step[step]} and {name}: leave one of them there."
            )
        else:
            by_step[step] = name
    if not by_step:
        listed = ", ".join(SUFFIXES)
        raise InputError(f"{path} holds no model files with steps in their names, such as model_400.pth ({listed}).")
    held = {step: _loader(os.path.join(path, by_step[step])) for step in sorted(by_step)}
    more = ", …" * (len(passed) > 4)
    notes = (f"without a step in their names, and passed over: {', '.join(passed[:4])}{more}",) if passed else ()
    return Trajectory(path, held, notes)


def _loader(path: str) -> Callable[[], Any]:
    return lambda: files.load(path)


def _named_step(name: str) -> int | None:
    """The step in a model file's name: the number after "step", or else after "epoch", or else the last one."""
    stem, suffix = os.path.splitext(name)
    if suffix not in SUFFIXES or name.startswith("."):
        return None
    for pattern in (r"step[-_=.]?(\d+)", r"epoch[-_=.]?(\d+)", r"(\d+)(?!.*\d)"):
        if found := re.search(pattern, stem, re.ASCII | re.IGNORECASE):
            return _whole(found[1])
    return None
