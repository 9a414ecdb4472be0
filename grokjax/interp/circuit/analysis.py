"""The numbers of the paper's reverse engineering, of one model."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grokjax.columns import NO_SUM
from grokjax.core import fourier
from grokjax.core.model import Params
from grokjax.core.precision import unemulated
from grokjax.core.problem import Problem
from grokjax.errors import InputError
from grokjax.interp.checkpoint import Checkpoint, load_checkpoint
from grokjax.interp.circuit.anatomy import Anatomy
from grokjax.interp.circuit.registry import NUMBERS
from grokjax.interp.measure import NO_SPLIT, plain
from grokjax.interp.subject import Subject, described, subject_of

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
    """The numbers of the paper's reverse engineering, of one model.

    Args:
      model: of one layer; a file or snapshot as `checkpoint.load_checkpoint` takes it, or what it returned.
      keys, rule, threshold, split, task: as for `measure.measure`.

    Returns:
      Each of `registry.NUMBERS` by name, ready for JSON: numbers, lists, and sets of frequencies as lists of k; lists
      over frequencies start at k = 1. None where it is undefined. Under "null" the reason for every None; under
      "measured" what was measured and how.

    Raises:
      InputError: bad arguments, or a model of several layers.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    if checkpoint.cfg.is_mlp:
        raise InputError(f"{checkpoint.source} is an MLP, but {ONE_LAYER}.")
    if checkpoint.cfg.n_layers != 1:
        raise InputError(f"{checkpoint.source} has {checkpoint.cfg.n_layers} layers, but {ONE_LAYER}.")
    subject = subject_of(checkpoint, tuple(keys), rule, threshold, split, task)
    if subject.problem.group:
        raise InputError(f"{checkpoint.source} is of {subject.task.name}, but circuits are read modulo P alone so far.")
    values, given_N = _values(subject)
    null = _null(subject, values)
    found = {name: None if name in null else plain(f, values[name]) for name, f in NUMBERS.items()}
    return {**found, "null": null, "measured": described(subject, given_N)}


ONE_LAYER = "the reverse engineering is of one layer's parts"


def _values(subject: Subject) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every number that is defined for the task, and the model's answer to every pair."""
    p = subject.problem.model.p
    train_N = np.zeros(p * p, bool)
    if subject.train_pairs is not None:
        train_N[subject.train_pairs] = True
    keys_K = np.zeros(fourier.n_freqs(p), bool) if subject.keys_K is None else subject.keys_K
    # The split enters as a mask, so that its size is nothing to compile for.
    problem = dataclasses.replace(subject.problem, n_train=0)
    compute = unemulated(functools.partial(_compute, problem), problem.precision)
    return jax.device_get(compute(subject.params, train_N, subject.answers, keys_K))


@functools.partial(jax.jit, static_argnums=0)
def _compute(problem: Problem, params: Params, train_N, answers, keys_K) -> tuple[dict[str, jax.Array], jax.Array]:
    """One compilation serves all models of a shape; no key in `keys_K` asks for the model's own."""
    rule = problem.key_rule, problem.key_threshold
    no_pairs = jnp.zeros(0, jnp.int32)
    s = Anatomy(problem.model, problem.direction, params, no_pairs, answers, None, *rule, nonzero_b=problem.nonzero_b)
    s.train_mask_N = train_N
    s.key_freqs_K = jnp.where(jnp.any(keys_K), keys_K, s.keys_by(problem.key_rule))
    values = {name: f.function(s) for name, f in NUMBERS.items() if not f.undefined_for(s)}
    return values, jnp.argmax(s.logits_NxP, 1)


def _null(subject: Subject, values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The reason for each number that this model does not have."""
    n_pairs, no_key = subject.checkpoint.cfg.p**2, not np.any(values["key_freqs"])
    null = {}
    for name, f in NUMBERS.items():
        if name not in values:
            null[name] = f"task '{subject.task.name}' {NO_SUM}"
        elif f.keyed and no_key:
            null[name] = NO_KEY
        elif f.needs_split and subject.train_pairs is None:
            null[name] = NO_SPLIT
        elif name.endswith("_test") and subject.n_train == n_pairs:
            null[name] = NO_TEST
        elif not np.all(np.isfinite(values[name])):
            null[name] = f.undefined or "it is not finite"
    return null
