"""The registry: a measure is one function of the shared intermediates and the column that it fills.

An experiment file adds its own in ten lines:

    import jax.numpy as jnp
    from grokjax import config
    from grokjax.measures import measure

    @measure("mine", unit="nats", description="Largest loss of any training pair.", source="this study")
    def train_loss_max(s):
        return jnp.max(jnp.where(s.train_mask_N, s.loss_N, 0))

    def get_config(arg=""):
        c = config.default()
        c.measures = ("paper", "mine")
        return c

`s` is a `grokjax.measures.shared.Shared`; whatever two measures take from it is computed once. What a column says of
itself here is what the Parquet schema, the README's table and the docs say of it. A value that is undefined (0/0, say)
must come out as NaN on purpose, which is stored as null; `undefined` says when.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from grokjax import tasks
from grokjax.columns import Column
from grokjax.core.problem import Problem
from grokjax.errors import refuse_clash, unknown
from grokjax.measures import blocks
from grokjax.measures.shared import Shared

# Lengths that a column's shape may name.
DIMS: dict[str, Callable[[Problem], int]] = {
    "freq": blocks.n_blocks,
    "neuron": lambda problem: problem.model.d_mlp,
    "head": lambda problem: problem.model.n_heads,
}
# What an integer count may be divided by on the host, so that an accuracy of 1 is exactly 1.
COUNTS: dict[str, Callable[[Problem], int]] = {
    "train pairs": lambda problem: problem.n_train,
    "test pairs": lambda problem: n_pairs(problem) - problem.n_train,
    "sums": lambda problem: problem.model.p,
}


def n_pairs(problem: Problem) -> int:
    """The number of pairs that the problem's task has answers to."""
    return tasks.n_pairs(problem.model.p, problem.nonzero_b)


@dataclasses.dataclass(frozen=True)
class Measure(Column):
    """A column and the function that fills it.

    Attributes:
      group: `config.measures` chooses groups.
      function: of a `Shared`, to an array of the declared shape and dtype.
    """

    group: str
    function: Callable[[Shared], jax.Array]


MEASURES: dict[str, Measure] = {}


def measure(group: str, *, name: str | None = None, **column) -> Callable:
    """Registers the decorated function, of a `Shared`, as a measure; see `Measure` and `Column` for the arguments.

    Raises:
      InputError: the name is taken by another function.

    Example:
      >>> import jax.numpy as jnp
      >>> @measure("mine", unit="nats", description="Largest loss of any pair.", source="this study")
      ... def loss_max(s):
      ...     return jnp.max(s.loss_N)
      >>> MEASURES["loss_max"].unit
      'nats'
    """

    def decorate(function):
        new = Measure(name or function.__name__, group, function, **column)
        old = MEASURES.get(new.name)
        if old:
            refuse_clash(f"measure '{new.name}'", old.function, function)
        for dim in new.shape:
            if dim not in DIMS:
                raise unknown(f"measure '{new.name}': dimension", dim, DIMS)
        MEASURES[new.name] = new
        return function

    return decorate


ALWAYS = "losses"  # the group that is logged whatever else is asked for


def groups() -> list[str]:
    """The names that `config.measures` may hold."""
    return list(dict.fromkeys(m.group for m in MEASURES.values()))


def of_groups(names: Iterable[str]) -> list[Measure]:
    """The measures of these groups and of `ALWAYS`, in the order of registration.

    Raises:
      InputError: a name is no group.
    """
    names = list(names)
    for group in names:
        if group not in groups():
            raise unknown("config.measures: group", group, groups())
    return [m for m in MEASURES.values() if m.group in (ALWAYS, *names)]


def in_step(names: Iterable[str], slow: bool = False) -> dict[str, Measure]:
    """The measures of these groups by the column they fill in the step: keyed ones use the keys of that moment.

    Args:
      names: of groups.
      slow: the slow ones only; by default the others only.
    """
    return {m.name + "_online" * m.keyed: m for m in of_groups(names) if m.slow == slow}


def final(names: Iterable[str]) -> dict[str, Measure]:
    """The keyed measures of these groups by the column they fill once a run has ended and its keys are final."""
    return {m.name: m for m in of_groups(names) if m.keyed}


def compute(columns: dict[str, Measure], shared: Shared) -> dict[str, jax.Array]:
    """Evaluates those measures that are defined for the model; what two of them share is computed once."""
    return {
        name: m.function(shared)
        for name, m in columns.items()
        if not m.undefined_for(shared) and (shared.has_update or not m.needs_update)
    }


def metrics_columns(groups: Iterable[str]) -> dict[str, Measure]:
    """The measures in a metrics table by column: those of the step, slow ones too, and keyed ones with final keys."""
    groups = list(groups)
    return in_step(groups) | in_step(groups, slow=True) | final(groups)


def counts_to_shares(
    columns: Mapping[str, Measure], values: Mapping[str, Any], problem: Problem
) -> dict[str, np.ndarray]:
    """Divides counts by what they are out of, in float64, so that values are as a column holds them.

    Args:
      columns: measures by column name.
      values: by column name, as the device returned them.
      problem: of the models.

    Returns:
      NumPy arrays by column name.
    """
    result = {}
    for name, value in values.items():
        of = columns[name].count_of
        result[name] = np.asarray(value) / COUNTS[of](problem) if of else np.asarray(value)
    return result
