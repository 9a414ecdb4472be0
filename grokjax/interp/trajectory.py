"""Trajectories: one training run's many checkpoints, from one file or a folder, and the table of their measures.

Size letters: R checkpoints, K = (P-1)//2 frequencies.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grokjax.columns import metrics_schema
from grokjax.core.problem import Inputs
from grokjax.errors import InputError
from grokjax.interp import files
from grokjax.interp.checkpoint import Checkpoint, from_arrays, load_checkpoint
from grokjax.interp.subject import subject_of
from grokjax.measures import registry
from grokjax.store.metrics import to_table
from grokjax.training import final_keys

WIDTH = 4  # checkpoints evaluated together
CHUNK = 20  # checkpoints between two words on progress
LISTS = {"checkpoints": ("checkpoint_epochs", "epochs"), "state_dicts": ("epochs", "checkpoint_epochs")}  # with steps
SUFFIXES = (".npz", ".pth", ".pt")

Entries = dict[int, Callable[[], Checkpoint]]


def entries(path: str | Path, act: str | None = None, n_heads: int | None = None) -> Entries:
    """Finds a run's checkpoints: what reads each, by step, in order.

    Args:
      path: a PyTorch file with a list of state dicts, or a folder of model files with steps in their names.
      act, n_heads: as for `load_checkpoint`.

    Raises:
      InputError: there are not several checkpoints there, or their steps are not known.
    """
    text = str(path)
    found = _in_folder(text, act, n_heads) if os.path.isdir(text) else _in_file(text, act, n_heads)
    return dict(sorted(found.items()))


def entry(path: str | Path, step: int, act: str | None = None, n_heads: int | None = None) -> Checkpoint:
    """Reads the checkpoint of one step.

    Raises:
      InputError: there is none of that step; names the nearest.
    """
    found = entries(path, act, n_heads)
    if step not in found:
        nearest = sorted(sorted(found, key=lambda other: abs(other - step))[:2])
        raise InputError(f"{path} has no checkpoint of step {step}: the nearest are {' and '.join(map(str, nearest))}.")
    return found[step]()


def measure_all(
    path: str | Path,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
    groups: Iterable[str] = (),
    act: str | None = None,
    n_heads: int | None = None,
    track: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """Measures every checkpoint of a run.

    Args:
      path, act, n_heads: as for `entries`.
      keys, rule, threshold, split, task, groups: as for `measure.measure`; keys by a rule are the last checkpoint's.
      track: is told how many checkpoints are done, of how many.

    Returns:
      Rows per step with the columns of a sweep's metrics; run is 0.

    Raises:
      InputError: bad checkpoints or arguments.
    """
    found, groups = entries(path, act, n_heads), list(groups) or registry.groups()
    steps = list(found)
    subject = subject_of(found[steps[-1]](), tuple(keys), rule, threshold, split, task)
    if subject.train_pairs is None:
        raise InputError(f"{path} does not tell the split: give --split, such as --split=python:0:0.3.")
    inputs = Inputs(np.uint32(0), {}, subject.train_pairs, np.asarray(subject.answers))

    def model(step: int) -> tuple[Mapping[str, np.ndarray], Inputs]:
        checkpoint = found[step]()
        if checkpoint.cfg != subject.checkpoint.cfg:
            raise InputError(f"{checkpoint.source} has another shape than step {steps[-1]}: {checkpoint.cfg}.")
        return {name: np.asarray(x, np.float32) for name, x in checkpoint.params.items()}, inputs

    own = registry.in_step(groups) | registry.in_step(groups, slow=True)
    own, final = ({n: m for n, m in some.items() if not m.needs_update} for some in (own, registry.final(groups)))
    keys_K = subject.keys_K
    if keys_K is None:
        only = {"key_freqs": registry.MEASURES["key_freqs"]}
        keys_K = final_keys.evaluate(subject.problem, only, [model(steps[-1])], None)["key_freqs"][0].astype(bool)
    parts = []
    for start in range(0, len(steps), CHUNK):
        models = [model(step) for step in steps[start : start + CHUNK]]
        keys_RxK = np.tile(keys_K, (len(models), 1))
        values = final_keys.evaluate(subject.problem, own, models, None, WIDTH)
        values |= final_keys.evaluate(subject.problem, final, models, keys_RxK, WIDTH) if final else {}
        parts.append(values)
        track(start + len(models), len(steps))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns |= {"run": np.zeros(len(steps), np.int32), "step": np.array(steps, np.int32)}
    about = {"source": str(path), "task": subject.task.name, "split": subject.split}
    return to_table(columns, metrics_schema(own | final, (), about))


def _in_folder(path: str, act: str | None, n_heads: int | None) -> Entries:
    found: Entries = {}
    names: dict[int, str] = {}
    for name in sorted(os.listdir(path)):
        stem, suffix = os.path.splitext(name)
        numbers = re.findall(r"\d+", stem)
        if suffix not in SUFFIXES or not numbers:
            continue
        step = int(numbers[-1])
        if step in found:
            raise InputError(f"{path} has two files of step {step}, {names[step]} and {name}: leave one of them there.")
        names[step], place = name, os.path.join(path, name)
        found[step] = lambda place=place: load_checkpoint(place, act, n_heads)
    if not found:
        raise InputError(f"{path} holds no files with steps in their names, such as model_400.pth.")
    return found


def _in_file(path: str, act: str | None, n_heads: int | None) -> Entries:
    if not os.path.isfile(path):
        raise InputError(f"{path} is no file: name one that holds many checkpoints, or a folder of them.")
    content = files.load_torch(path)
    name = next((name for name in LISTS if isinstance(content, Mapping) and name in content), None)
    if name is None:
        raise InputError(f"{path} holds no list of checkpoints: {' or '.join(LISTS)} is expected.")
    states, steps = content[name], next((content[key] for key in LISTS[name] if key in content), None)
    if not isinstance(states, list) or not states or steps is None or len(steps) != len(states):
        raise InputError(f"{path}: '{name}' must be a list with as many entries as '{LISTS[name][0]}'.")
    if len({int(step) for step in steps}) < len(states):
        raise InputError(f"{path}: '{LISTS[name][0]}' must not name a step twice.")
    beside = {key: content[key] for key in (*files.SPLITS, "config", "cfg") if key in content}

    def read(step: int, state: Any) -> Checkpoint:
        arrays, said = files.arrays_of(path, {**beside, "model": state})
        return from_arrays(arrays, f"{path}:{step}", act, n_heads, said)

    pairs = zip(map(int, steps), states, strict=True)
    return {step: lambda step=step, state=state: read(step, state) for step, state in pairs}
