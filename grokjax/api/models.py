"""Trained models from Python: every measure of one, wherever it comes from."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grokjax.core import devices
from grokjax.core.problem import State
from grokjax.errors import InputError, for_python, in_python, shown
from grokjax.interp import measure as measure_lib
from grokjax.interp import trajectory, trajectory_table
from grokjax.interp.checkpoint import Checkpoint, from_arrays, load_checkpoint
from grokjax.interp.state_dict import unwrap
from grokjax.interp.subject import task_given


def measure(
    model: Any,
    *,
    all: bool = False,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
    group: str | None = None,
    groups: Iterable[str] = (),
    act: str | None = None,
    n_heads: int | None = None,
    attention_rate: float | None = None,
) -> Any:
    """Computes every measure of a trained model, or of every checkpoint of a run.

    Args:
      model: a file (.npz, or PyTorch's); a snapshot as "workdir:run:step" or "workdir:run"; arrays by name, NumPy's,
        JAX's or PyTorch's, in any format that `load_checkpoint` reads, with `train_mask` (bool [P²]) or `train_indices`
        (each a * P + b) beside them if they are known; a PyTorch module; or what `load_checkpoint` or `train_one` gave.
      all: whether the model is many checkpoints of one run: a file with a list of them, a folder of model files with
        steps in their names, or what such a file holds.
      keys: the key frequencies; none for the model's own by `rule`, with `all` for the last checkpoint's.
      rule: key_rule; by default the run's, or else the config's default.
      threshold: key_threshold, likewise.
      split: "mask" for the model's own, "jax:SEED:FRACTION", "python:SEED:FRACTION", or "all" to take every pair for a
        training pair; by default the model's own if it has one.
      task: what the model computes; by default what it says itself, or else "add".
      group: the finite group whose composition it computes, such as "S_5" or "mine.npy", in place of `task`.
      groups: of measures; none for all, with `all` for those that a sweep logs by default.
      act: the nonlinearity, "relu", "gelu" or "quadratic", where the model does not tell; by default "relu".
      n_heads: the number of heads, where arrays do not tell.
      attention_rate: the share of softmax in attention, where the model does not tell; by default 1.

    Returns:
      Each measure's value by name: numbers, lists, and sets of frequencies (key_freqs) as lists of k; None where it is
      undefined. Under "null" the reason for every None; under "measured" what was measured and how. With `all` a data
      frame with a row per step and the columns of a sweep's metrics, for `phases.find_phases`; its `attrs` have
      "measured" and "key_freqs", the last checkpoint's.

    Warns:
      UserWarning: the model's answers hardly fit its task, so that the numbers may say nothing of it.

    Raises:
      InputError: a bad model or argument.

    Example:
      >>> import grokjax
      >>> found = grokjax.measure("results/tiny:1", groups=["losses"])
      >>> 0 <= found["train_acc"] <= 1
      True
    """
    with for_python():
        how = (keys, rule, threshold, split, task_given(task, group), groups)
        if not all:
            return _told(measure_lib.measure(_checkpoint(model, act, n_heads, attention_rate), *how))
        devices.require()
        table = trajectory_table.measure_all(_trajectory(model), *how, act, n_heads, attention_rate)
    frame = table.to_pandas()
    frame.attrs |= trajectory_table.about(table)
    return frame


def circuit(
    model: Any,
    *,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
    group: str | None = None,
    act: str | None = None,
    n_heads: int | None = None,
    attention_rate: float | None = None,
) -> dict[str, Any]:
    """Repeats the paper's reverse engineering of a trained model.

    Args:
      model: as for `measure`, and so are the others.

    Returns:
      Each number by name; None where it means nothing, with the reason under "null". `grokjax circuit` prints them
      beside the paper's.

    Raises:
      InputError: a bad model or argument.

    Example:
      >>> import grokjax
      >>> found = grokjax.circuit("results/tiny:1")
      >>> found["loss"] > 0
      True
    """
    from grokjax.interp.circuit.analysis import analyse

    with for_python():
        told = task_given(task, group)
        return _told(analyse(_checkpoint(model, act, n_heads, attention_rate), keys, rule, threshold, split, told))


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """Warns where the model's answers do not fit its task, and words the reasons of what is None for Python."""
    found["null"] = {name: in_python(why) for name, why in found["null"].items()}
    found["measured"]["doubt"] = doubt = in_python(found["measured"]["doubt"])
    if doubt:
        warnings.warn(f"{found['measured']['model']}: {doubt}", stacklevel=3)
    return found


def _trajectory(model: Any) -> trajectory.Trajectory:
    if isinstance(model, str | Path):
        return trajectory.find(model)
    found = trajectory.within("the model", model)
    if found is None:
        raise InputError(f"the model is {shown(model)}, but a file, a folder or a list of checkpoints is expected.")
    return found


def _checkpoint(model: Any, act: str | None, n_heads: int | None, rate: float | None) -> Checkpoint:
    devices.require()
    shape: dict[str, Any] = {}
    if isinstance(model, Checkpoint):
        return model
    if isinstance(model, str | Path):
        return load_checkpoint(model, act, n_heads, rate)
    if isinstance(model, State):
        if np.ndim(model.inputs.train_pairs) > 1:
            raise InputError(
                f"the state holds {len(model.inputs.train_pairs)} runs side by side, and one is measured: index it, "
                "such as jax.tree.map(lambda x: x[0], state) for the first."
            )
        shape = _shape_of(model)
        model = {**model.params, "train_indices": model.inputs.train_pairs}
    elif hasattr(model, "state_dict"):
        model = model.state_dict()
    if not isinstance(model, Mapping):
        raise InputError(f"the model is {shown(model)}, but it must be a file, a snapshot, or parameters by name.")
    found = unwrap("the model", model)
    said = shape | found.said
    return from_arrays(found.arrays, act=act, n_heads=n_heads, said=said, notes=found.notes, rate=rate)


def _shape_of(state: State) -> dict[str, Any]:
    """What a run's state tells of its model beside the parameters."""
    numbers = state.inputs.hyperparameters
    found = {"unembed": "own" if "unembed.W_U" in state.params else "tied"}
    rate = numbers.get("model.attention_rate")
    return found if rate is None else found | {"attention_rate": float(rate)}
