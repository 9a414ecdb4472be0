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
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from grokjax import tasks
from grokjax.columns import Column
from grokjax.core.problem import Problem
from grokjax.errors import InputError, line_in, refuse_clash, shown, unknown
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
    "sums": blocks.n_sums,
}


def n_pairs(problem: Problem) -> int:
    """The number of pairs that the problem's task has answers to."""
    return tasks.n_pairs(problem.model.p, problem.nonzero_b)


@dataclasses.dataclass(frozen=True)
class Measure(Column):
    """A column and the function that fills it; `@measure` makes one of a function.

    Attributes:
      group: `config.measures` chooses groups.
      function: of a `Shared`, to an array of the declared shape and dtype.
    """

    group: str
    function: Callable[[Shared], jax.Array]

    @property
    def is_own(self) -> bool:
        """Whether it is none of the package's, so that whatever it raises is its author's to mend."""
        return not self.function.__module__.startswith(f"{__package__}.")


MEASURES: dict[str, Measure] = {}


def measure(
    group: str,
    *,
    unit: str = "",
    description: str = "",
    source: str = "",
    name: str | None = None,
    shape: tuple[str, ...] = (),
    dtype: str = "float",
    range: str = "(-∞, ∞)",
    undefined: str = "",
    count_of: str | None = None,
    keyed: bool = False,
    needs_sum: bool = False,
    needs_update: bool = False,
    slow: bool = False,
    version: int = 1,
    even_only: bool = False,
    cyclic_only: bool = False,
    needs_waves: bool = False,
    whole_grid: bool = False,
    transformer_only: bool = False,
    parameter: str = "",
) -> Callable:
    """Registers the decorated function, of a `Shared`, as a measure.

    Args:
      group: by which `config.measures` chooses it; a new name makes a new group.
      unit: of the value: "nats", "1" for pure numbers, "steps", …; must be given.
      description: one sentence, which may hold a formula; must be given.
      source: paper and section, or "this study"; must be given.
      name: of the column; by default the function's.
      shape: of the value: () for a number, or for a column of lists ("freq",), one per frequency k = 1 … P//2
        or block of a group, ("neuron",) or ("head",), one per neuron or head.
      dtype: of the value, "float", "int32" or "bool".
      range: of the value, as a mathematician writes it.
      undefined: when the value is undefined and comes out as NaN, in words; "" if never.
      count_of: for an int32 count, what it is divided by on the host: "train pairs", "test pairs" or "sums".
      keyed: whether it looks at `s.key_freqs_K`; it then has a second column, its name with "_online".
      needs_sum: whether it means something only for tasks of a + b or a - b; null for others.
      needs_update: whether it looks at `s.updates`, which saved parameters do not have.
      slow: whether it is too costly for every evaluation, so that it is computed every slow_every steps.
      version: of the definition; one more with each change of what the column holds, so that no table mixes two.
      even_only: whether this version differs from the one before for even P alone.
      cyclic_only: whether it looks at single functions of residues, or at sums and differences: null for groups that
        are read by blocks.
      needs_waves: whether it looks at single functions of a block, which are cosines and sines in cyclic groups alone;
        null for others.
      whole_grid: whether it reads frequencies over all P² pairs; null for tasks that leave pairs out.
      transformer_only: whether it reads positions, which an MLP has not; null for MLPs.
      parameter: the name of one that it reads, such as "W_pos"; null for models that have none.

    Raises:
      InputError: unit, description or source is missing, an argument is none of those known, or the name is taken by
        another function.

    Example:
      >>> import jax.numpy as jnp
      >>> @measure("mine", unit="nats", description="Largest loss of any pair.", source="this study")
      ... def loss_max(s):
      ...     return jnp.max(s.loss_N)
      >>> MEASURES["loss_max"].unit
      'nats'
    """
    column = dict(locals())
    del column["group"], column["name"]
    if not isinstance(group, str):
        raise InputError(f"@measure is given {shown(group)} for a group: {EXAMPLE}.")

    def decorate(function):
        new = Measure(name or function.__name__, group=group, function=function, **column)
        old = MEASURES.get(new.name)
        if old:
            refuse_clash(f"measure '{new.name}'", old.function, function)
        _refuse_bad(new)
        MEASURES[new.name] = new
        return function

    return decorate


EXAMPLE = 'give @measure("mine", unit="nats", description="Largest loss.", source="this study"), and what else fits'
DTYPES = {"float": "fiu", "int32": "iu", "bool": "b"}  # and the kinds of NumPy's dtypes that a column of it can hold


def _refuse_bad(new: Measure) -> None:
    called = f"measure '{new.name}'"
    for field in ("unit", "description", "source"):
        if not (isinstance(given := getattr(new, field), str) and given.strip()):
            raise InputError(f"{called} has {field}={shown(given)}, but its column must say that: {EXAMPLE}.")
    if not isinstance(new.shape, tuple):
        raise InputError(f"{called} has shape={shown(new.shape)}, but it must be a tuple, such as () or ('freq',).")
    for dim in new.shape:
        if dim not in DIMS:
            raise unknown(f"{called}: dimension", dim, DIMS)
    if new.dtype not in DTYPES:
        raise unknown(f"{called}: dtype", new.dtype, DTYPES)
    if new.count_of is not None and new.count_of not in COUNTS:
        raise unknown(f"{called}: count_of", new.count_of, COUNTS)


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
    """The keyed measures of these groups by the column they fill once a run has ended and its keys are final.

    Where there are any, the keys themselves are among them: by their column a sweep knows that it has them.
    """
    found = {m.name: m for m in of_groups(names) if m.keyed}
    return found | {"key_freqs": MEASURES["key_freqs"]} if found else found


def compute(columns: Mapping[str, Measure], shared: Shared) -> dict[str, jax.Array]:
    """Evaluates those measures that are defined for the model; what two of them share is computed once.

    Raises:
      InputError: as for `value`.
    """
    return {
        name: value(m, shared)
        for name, m in columns.items()
        if not m.undefined_for(shared) and (shared.has_update or not m.needs_update)
    }


def value(m: Measure, shared: Shared) -> jax.Array:
    """Evaluates a measure.

    Raises:
      InputError: it is none of the package's, and fails or returns another shape or dtype than its column has.
    """
    if not m.is_own:
        return m.function(shared)
    code = inspect.unwrap(m.function).__code__
    file, first = code.co_filename, f"line {code.co_firstlineno}"
    try:
        found = m.function(shared)
    except InputError:
        raise
    except Exception as error:
        if getattr(error, "name", "") == SPLIT and isinstance(error, AttributeError):
            raise  # of a model whose split is not known, which is no fault of the measure
        place, said = line_in(error, file) or first, (str(error).splitlines() or [""])[0]
        raise InputError(
            f"measure '{m.name}' ({file}, {place}) failed with {type(error).__name__}: {said} {_there_is(shared)}"
        ) from error
    wanted = tuple(_length(dim, shared) for dim in m.shape)
    shape, dtype = getattr(found, "shape", np.shape(found)), np.dtype(getattr(found, "dtype", type(found)))
    if shape != wanted or dtype.kind not in DTYPES[m.dtype]:
        raise InputError(
            f"measure '{m.name}' ({file}, {first}) returned {dtype}{list(shape)}, but its "
            f"column, shape={m.shape} and dtype='{m.dtype}', holds {m.dtype}{list(wanted)}. {_there_is(shared)}"
        )
    return found


def _length(dim: str, shared: Shared) -> int:
    return shared.n_freqs if dim == "freq" else DIMS[dim](Problem(shared.cfg, n_train=0))


SPLIT = "train_pairs_B"  # of a `Shared`; taken away where a model's split is not known


def _there_is(shared: Shared) -> str:
    """The arrays that a measure has to start from, in words; of several layers the first one's."""
    arrays = {name: x for name, x in shared.params.items() if not re.match(r"blocks\.[1-9]", name)}
    keys = ", ".join(f"{name} {list(x.shape)}" for name, x in arrays.items())
    others = f", and as many in each of {shared.cfg.n_layers} layers" if len(arrays) < len(shared.params) else ""
    cfg = shared.cfg
    return (
        f"s.logits_NxP is [{cfg.p**2}, {cfg.p}], s.loss_N [{cfg.p**2}], s.acts_NxM [{cfg.p**2}, {cfg.d_mlp}]; "
        f"s.params has {keys}{others}."
    )


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
