"""The measures of every checkpoint of a run, as the table of metrics that a sweep's run has.

Size letters: R checkpoints, K = P//2 frequencies.
"""

import itertools
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grokjax.columns import metrics_schema
from grokjax.config import FIELDS
from grokjax.core.problem import Inputs
from grokjax.errors import InputError
from grokjax.interp.checkpoint import Checkpoint, checkpoint_at
from grokjax.interp.measure_table import heading, labelled
from grokjax.interp.subject import Subject, described, dtype, subject_of
from grokjax.interp.trajectory import Trajectory
from grokjax.measures import blocks, registry
from grokjax.measures.registry import Measure
from grokjax.store.metrics import how_to_read, to_table
from grokjax.training import final_keys

WIDTH = 4  # checkpoints evaluated together
FIXED = ("task", "p")  # columns that say what the run is

Track = Callable[[Iterable[Any], str], Iterable[Any]]


def measure_all(
    trajectory: Trajectory,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
    groups: Iterable[str] = (),
    act: str | None = None,
    n_heads: int | None = None,
    rate: float | None = None,
    track: Track = lambda items, text: items,
) -> pa.Table:
    """Measures every checkpoint of a run.

    Args:
      trajectory: the run's checkpoints.
      keys: the final key frequencies; none for those of the last checkpoint by `rule`.
      rule, threshold, split, task: as for `measure.measure`.
      groups: of measures; none for those that a sweep logs by default.
      act, n_heads, rate: as for `load_checkpoint`.
      track: wraps the steps, to show progress.

    Returns:
      A row per step with the columns of a sweep's metrics, task and p; run is 0. Its schema's metadata has `measured`
      (what was measured and how, the last checkpoint's) and `key_freqs` (the final ones, k from 1), as JSON.

    Raises:
      InputError: bad checkpoints or arguments; a checkpoint that cannot be read, before any is measured.
    """
    groups = list(groups) or list(FIELDS["measures"].default)
    registry.of_groups(groups)
    steps, known = list(trajectory.held), (act, n_heads, rate)
    subject = subject_of(checkpoint_at(trajectory, steps[-1], *known), tuple(keys), rule, threshold, split, task)
    if subject.train_pairs is None:
        raise InputError(f"{trajectory.source} does not tell the split: give --split, such as --split=python:0:0.3.")

    def read(step: int) -> Checkpoint:
        checkpoint = checkpoint_at(trajectory, step, *known)
        _refuse_other(checkpoint, subject.checkpoint)
        return checkpoint

    for step in track(steps, f"reading {trajectory.source}"):
        read(step)
    given = subject.keys_K
    keys_K = _own_keys(subject) if given is None else given
    models = iter(map(read, track(steps, f"measuring {trajectory.source}")))
    parts = []
    while some := list(itertools.islice(models, WIDTH)):
        parts.append(_measured(subject, some, keys_K, groups))
    frame = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    n = len(steps)
    frame |= {"run": np.zeros(n, np.int32), "step": np.array(steps, np.int32)}
    frame |= {"task": np.array([subject.task.name] * n, object), "p": np.full(n, subject.problem.model.p)}
    about = {"measured": described(subject), "key_freqs": (np.flatnonzero(keys_K) + 1).tolist()}
    return to_table(frame, metrics_schema(_columns(groups), FIXED, about, blocks.described([subject.problem])))


def about(table: pa.Table) -> dict[str, Any]:
    """What a table that `measure_all` made says of itself: "measured" and "key_freqs"."""
    return {key.decode(): json.loads(value) for key, value in table.schema.metadata.items()}


def text(table: pa.Table, place: str) -> str:
    """Says in lines what is in a table, and what reads it."""
    said, steps, quoted = about(table), table["step"].to_pylist(), shlex.quote(place)
    names = said["measured"].get("blocks", {}).get("names", ())
    keys = ", ".join(labelled(k, names) for k in said["key_freqs"]) or "none"
    lines = [
        *heading(said["measured"])[:-1],
        f"keys   of the last checkpoint{', given' if 'given' in said['measured']['keys'] else ''}: {keys}",
        f"\n{len(steps)} checkpoints, of steps {steps[0]} to {steps[-1]}; written: {how_to_read(Path(place))}",
        f"Next: grokjax phases {quoted}, grokjax report {quoted}",
    ]
    return "\n".join(lines)


def _refuse_other(checkpoint: Checkpoint, last: Checkpoint) -> None:
    """Refuses a checkpoint that is none of the run that the last one is of."""
    if checkpoint.cfg != last.cfg:
        raise InputError(f"{checkpoint.source} has another shape than {last.source}: {checkpoint.cfg}, not {last.cfg}.")
    mine, its = checkpoint.train_pairs, last.train_pairs
    if mine is not None and its is not None and not np.array_equal(mine, its):
        raise InputError(f"{checkpoint.source} has another split than {last.source}: they are of different runs.")


def _columns(groups: Sequence[str]) -> dict[str, Measure]:
    """The measures of the table, by column: all that need no optimizer's state."""
    return {name: m for name, m in registry.metrics_columns(groups).items() if not m.needs_update}


def _own_keys(subject: Subject) -> np.ndarray:
    """The key frequencies of a model by its rule: bool [K]."""
    only = {"key_freqs": registry.MEASURES["key_freqs"]}
    return final_keys.evaluate(subject.problem, only, [_model(subject, subject.checkpoint)], None)["key_freqs"][
        0
    ].astype(bool)


def _measured(
    subject: Subject, checkpoints: Iterable[Checkpoint], keys_K: np.ndarray, groups: Sequence[str]
) -> dict[str, np.ndarray]:
    """A batch of rows, by column."""
    models = [_model(subject, checkpoint) for checkpoint in checkpoints]
    columns = _columns(groups)
    final = {name: m for name, m in columns.items() if name in registry.final(groups)}
    own = {name: m for name, m in columns.items() if name not in final}
    keys_RxK = np.tile(keys_K, (len(models), 1))
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where there are no test pairs
        values = final_keys.evaluate(subject.problem, own, models, None, WIDTH)
        return values | (final_keys.evaluate(subject.problem, final, models, keys_RxK, WIDTH) if final else {})


def _model(subject: Subject, checkpoint: Checkpoint) -> tuple[Mapping[str, np.ndarray], Inputs]:
    return {name: np.asarray(x, dtype()) for name, x in checkpoint.params.items()}, subject.inputs
