"""The table of claims: each number with what the paper says of it. The command, the Parquet schema, the docs read it.

    @number("W_L", claim="…", paper="under 0.55 %", unit="fraction", description="…", source="…", show=text.percent)
    def W_L_residual(s): ...

    @ablation(claim="…", paper="2.48e-7", description="…", source="…")
    def loss_neurons_as_polynomials(s): ...  # the logits with something replaced

`s` is an `Anatomy`. An ablation makes three numbers: the loss on all pairs under its own name, and those on the
training and test pairs under names that end in _train and _test.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grokjax.interp.circuit import text
from grokjax.interp.circuit.anatomy import Anatomy
from grokjax.measures.registry import MEASURES, Measure

PAIRS = {"": "all pairs", "_train": "the training pairs", "_test": "the test pairs"}


@dataclasses.dataclass(frozen=True)
class Number(Measure):
    """A measure of a finished model that the paper has a number of; the group is the part of the model it is about.

    Attributes:
      claim: what the paper claims, in words; "" for a number that is shown in another's row.
      paper: the paper's number for its mainline model, "" if it has none.
      show: how the number is printed.
      needs_split: whether it is of the training or test pairs alone.
      in_group: the claim in the words of a group that is read by blocks, where they differ.
      of_blocks: whether it is a number of such groups alone, and left out for others.
    """

    claim: str = ""
    paper: str = ""
    show: text.Show = text.scalar
    needs_split: bool = False
    in_group: str = ""
    of_blocks: bool = False

    def claim_for(self, in_blocks: bool) -> str:
        """The claim, of a group that is read by blocks or of another task; "" where there is none."""
        if in_blocks:
            return (self.in_group or self.claim) * (not self.cyclic_only)
        return self.claim * (not self.of_blocks)


NUMBERS: dict[str, Number] = {}


def numbers(in_blocks: bool) -> dict[str, Number]:
    """The numbers of models of a group that is read by blocks, or of other tasks."""
    return {name: f for name, f in NUMBERS.items() if in_blocks or not f.of_blocks}


def number(group: str, **column) -> Callable:
    """Registers the decorated function, of an `Anatomy`, as a number of the paper; see `Number` and `Measure`."""

    def decorate(function):
        _add(Number(function.__name__, group, function, **column))
        return function

    return decorate


def known(name: str, group: str, **changed) -> None:
    """Registers a measure as a number of the paper, with what changes beside the claim."""
    m = MEASURES[name]
    kept = {field.name: getattr(m, field.name) for field in dataclasses.fields(m)}
    _add(Number(**{**kept, "group": group, "count_of": None, **changed}))


def ablation(per_freq: bool = False, **column) -> Callable:
    """Registers the losses of a function that returns logits, [P², P].

    Args:
      per_freq: whether the function also takes a frequency's index, k - 1, and the losses are lists over frequencies.
      column: as for `Number`; the description says what is replaced.
    """

    def decorate(function):
        given = column | {"unit": "nats", "range": "[0, ∞)", "show": text.losses}
        if per_freq:
            given |= {"shape": ("freq",), "show": text.at_keys(text.loss_text)}
        for i, (suffix, pairs) in enumerate(PAIRS.items()):
            given["description"] = f"Loss on {pairs} with {column['description']}."
            if suffix:
                given |= {"claim": "", "in_group": "", "paper": "", "needs_split": True}
            _add(Number(function.__name__ + suffix, "ablations", _one_of(function, per_freq, i), **given))
        return function

    return decorate


def _one_of(function: Callable, per_freq: bool, which: int) -> Callable[[Any], jax.Array]:
    """The loss on one set of pairs; that on the three of them is computed once per model."""

    def loss(s: Anatomy):
        cache: dict[str, Any] = s.__dict__.setdefault("ablated", {})
        if function.__name__ not in cache:
            cache[function.__name__] = _for_each_freq(s, function) if per_freq else s.mean_losses(function(s))
        return cache[function.__name__][..., which]

    return loss


def _for_each_freq(s: Anatomy, function: Callable) -> jax.Array:
    """`mean_losses` for each frequency, [P//2, 3], one at a time to save memory."""
    # Once outside: what is first made inside the loop belongs to its trace and must not be kept.
    function(s, 0)
    _ = s.train_mask_N
    return jax.lax.map(lambda k: s.mean_losses(function(s, k)), jnp.arange(s.n_freqs))


def _add(new: Number) -> None:
    assert new.name not in NUMBERS, f"two numbers are named {new.name}"
    NUMBERS[new.name] = new
