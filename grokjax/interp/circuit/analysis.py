"""The numbers of the paper's reverse engineering, of one model."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grokjax.columns import is_of_model
from grokjax.core.model import Params
from grokjax.core.precision import unemulated
from grokjax.core.problem import Problem
from grokjax.interp.checkpoint import Checkpoint, load_checkpoint
from grokjax.interp.circuit.blocks import anatomy_of
from grokjax.interp.circuit.registry import numbers
from grokjax.interp.measure import NO_SPLIT, plain
from grokjax.interp.subject import Subject, described, subject_of
from grokjax.measures.blocks import n_blocks

NO_KEY = "the model has no key frequency by this rule"
NO_TEST = "there are no test pairs"

# --- one model ------------------------------------------------------------------------------------------------------


def analyse(
    model: str | Path | Checkpoint,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """The numbers of the paper's reverse engineering, of one model; of a group's blocks in place of frequencies.

    Args:
      model: a file or snapshot as `checkpoint.load_checkpoint` takes it, or what it returned.
      keys, rule, threshold, split, task: as for `measure.measure`.

    Returns:
      Each of `registry.numbers` by name, ready for JSON: numbers, lists, and sets of frequencies as lists of k; lists
      over frequencies start at k = 1. None where it is undefined. Under "null" the reason for every None; under
      "measured" what was measured and how.

    Raises:
      InputError: bad arguments.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    subject = subject_of(checkpoint, tuple(keys), rule, threshold, split, task)
    values, given_N = _values(subject)
    null = _null(subject, values)
    of_kind = numbers(bool(subject.problem.group))
    found = {name: None if name in null else plain(f, values[name]) for name, f in of_kind.items()}
    return {**found, "null": null, "measured": described(subject, given_N)}


def _values(subject: Subject) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every number that is defined for the task, and the model's answer to every pair."""
    p = subject.problem.model.p
    train_N = np.zeros(p * p, bool)
    if subject.train_pairs is not None:
        train_N[subject.train_pairs] = True
    keys_K = np.zeros(n_blocks(subject.problem), bool) if subject.keys_K is None else subject.keys_K
    # The split enters as a mask, so that its size is nothing to compile for.
    problem = dataclasses.replace(subject.problem, n_train=0)
    compute = unemulated(functools.partial(_compute, problem), problem.precision)
    return jax.device_get(compute(subject.params, train_N, subject.answers, keys_K))


@functools.partial(jax.jit, static_argnums=0)
def _compute(problem: Problem, params: Params, train_N, answers, keys_K) -> tuple[dict[str, jax.Array], jax.Array]:
    """One compilation serves all models of a shape; no key in `keys_K` asks for the model's own."""
    s = anatomy_of(problem, params, answers)
    s.train_mask_N = train_N
    s.key_freqs_K = jnp.where(jnp.any(keys_K), keys_K, s.keys_by(problem.key_rule))
    values = {name: f.function(s) for name, f in numbers(s.in_blocks).items() if not f.undefined_for(s)}
    return values, jnp.argmax(s.logits_NxP, 1)


def _null(subject: Subject, values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The reason for each number that this model does not have."""
    n_pairs, no_key = subject.checkpoint.cfg.p**2, not np.any(values["key_freqs"])
    null, s = {}, anatomy_of(subject.problem, {}, subject.answers)
    for name, f in numbers(s.in_blocks).items():
        if name not in values:
            reason = f.undefined_for(s)
            about = "the model" if is_of_model(reason) else f"task '{subject.task.name}'"
            null[name] = f"{about} {reason}"
        elif f.keyed and no_key:
            null[name] = NO_KEY
        elif f.needs_split and subject.train_pairs is None:
            null[name] = NO_SPLIT
        elif name.endswith("_test") and subject.n_train == n_pairs:
            null[name] = NO_TEST
        elif not np.all(np.isfinite(values[name])):
            null[name] = f.undefined or "it is not finite"
    return null
