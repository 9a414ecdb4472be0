"""The registry: a measure is one function of the shared intermediates and the column that it fills.

    from grokjax.measures import measure

    @measure("mine", unit="nats", description="Largest loss of any training pair.", source="this study")
    def train_loss_max(s):
        return jnp.max(jnp.where(s.train_mask_N, s.loss_N, 0))

What a column says of itself here is what the Parquet schema, the README's table and the docs say of it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax

from grokjax.errors import InputError, unknown
from grokjax.measures.shared import Shared

# Lengths that a column's shape may name; each is a function of the model's configuration.
DIMS: dict[str, Callable[[Any], int]] = {
    "freq": lambda cfg: (cfg.p - 1) // 2,
    "neuron": lambda cfg: cfg.d_mlp,
    "head": lambda cfg: cfg.n_heads,
}
# What an integer count may be divided by on the host, so that an accuracy of 1 is exactly 1.
COUNTS: dict[str, Callable[[Any, int], int]] = {
    "train pairs": lambda cfg, n_train: n_train,
    "test pairs": lambda cfg, n_train: cfg.p**2 - n_train,
    "sums": lambda cfg, n_train: cfg.p,
}


@dataclasses.dataclass(frozen=True)
class Measure:
    """One column and the function that fills it.

    Attributes:
      name: the column's name (keyed measures are logged in the step as name + "_online").
      group: `config.measures` chooses groups.
      function: of a `Shared`, to an array of the declared shape and dtype.
      unit: "nats", "1" for pure numbers, ….
      description: one sentence; may hold a formula.
      source: paper and section.
      shape: names of `DIMS`, () for a number per row.
      dtype: of the value in the compiled step, "float", "int32" or "bool".
      range: of the value, as a mathematician writes it.
      count_of: for an integer count, the name in `COUNTS` of what it is divided by on the host.
      keyed: depends on the set of key frequencies.
      needs_sum: defined only for tasks whose answer is a function of a + b or a - b; null otherwise.
    """

    name: str
    group: str
    function: Callable[[Shared], jax.Array]
    unit: str
    description: str
    source: str
    shape: tuple[str, ...] = ()
    dtype: str = "float"
    range: str = "(-∞, ∞)"
    count_of: str | None = None
    keyed: bool = False
    needs_sum: bool = False

    def defined(self, direction: int | None) -> bool:
        """Whether the measure means anything for a task of that direction."""
        return direction is not None or not self.needs_sum

    @property
    def when_null(self) -> str:
        """When a row holds null instead of a value."""
        always = "the run diverged"
        return f"the task is no function of a ± b, or {always}" if self.needs_sum else always


MEASURES: dict[str, Measure] = {}


def measure(group: str, *, name: str | None = None, **column) -> Callable:
    """Registers the decorated function as a measure; see `Measure` for the arguments.

    Raises:
      InputError: the name is taken by another function.
    """

    def decorate(function):
        new = Measure(name or function.__name__, group, function, **column)
        old = MEASURES.get(new.name)
        if old and _origin(old.function) != _origin(function):
            raise InputError(
                f"measure '{new.name}' is already defined in {_origin(old.function)[0]}: choose another name."
            )
        for dim in new.shape:
            if dim not in DIMS:
                raise unknown(f"measure '{new.name}': dimension", dim, DIMS)
        MEASURES[new.name] = new
        return function

    return decorate


def _origin(function) -> tuple[str, str]:
    # Loading an experiment file twice defines the same function twice; that is no clash.
    return function.__code__.co_filename, function.__qualname__


def groups() -> list[str]:
    """The names that `config.measures` may hold."""
    return list(dict.fromkeys(m.group for m in MEASURES.values()))


def of_groups(names: Iterable[str]) -> list[Measure]:
    """The measures of these groups, in the order of registration.

    Raises:
      InputError: a name is no group.
    """
    names = list(names)
    for group in names:
        if group not in groups():
            raise unknown("config.measures: group", group, groups())
    return [m for m in MEASURES.values() if m.group in names]


def in_step(names: Iterable[str]) -> dict[str, Measure]:
    """The measures of these groups by the column they fill in the step: keyed ones use the keys of that moment."""
    return {m.name + "_online" * m.keyed: m for m in of_groups(names)}


def compute(columns: dict[str, Measure], shared: Shared) -> dict[str, jax.Array]:
    """Evaluates the measures that are defined for the task; what two of them share is computed once."""
    return {name: m.function(shared) for name, m in columns.items() if m.defined(shared.direction)}
