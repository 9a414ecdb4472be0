"""Every measure of one trained model."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grokjax.columns import is_of_model
from grokjax.core.precision import unemulated
from grokjax.interp.checkpoint import Checkpoint, load_checkpoint
from grokjax.interp.subject import Subject, described, subject_of
from grokjax.measures import registry
from grokjax.measures.blocks import shared_of
from grokjax.measures.registry import Measure
from grokjax.training import one_run

NO_SPLIT = "the split is not known (give --split, such as --split=python:0:0.3)"
NO_UPDATE = "the optimizer's state is not part of a saved model"


def measure(
    model: str | Path | Checkpoint,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
    groups: Iterable[str] = (),
) -> dict[str, Any]:
    """Measures a trained model.

    Args:
      model: a file or snapshot as `load_checkpoint` takes it, or what it returned.
      keys: the key frequencies; none for the model's own by `rule`.
      rule: key_rule; by default the run's, or else the config's default.
      threshold: key_threshold, likewise.
      split: "mask" for the model's own, "jax:SEED:FRACTION", "python:SEED:FRACTION", or "all" to take every pair for a
        training pair; by default the model's own if it has one.
      task: what the model computes; by default what it says itself, or else "add".
      groups: of measures; none for all.

    Returns:
      Each measure's value by name, ready for JSON: numbers, lists, and sets of frequencies (key_freqs) as lists of k;
      None where it is undefined. Under "null" the reason for every None; under "measured" what was measured and how.

    Raises:
      InputError: bad model or arguments.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    columns = {m.name: m for m in registry.of_groups(list(groups) or registry.groups())}
    subject = subject_of(checkpoint, tuple(keys), rule, threshold, split, task)
    values, null, given_N = _compute(subject, columns)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where there are no test pairs
        values = registry.counts_to_shares(columns, values, subject.problem)
    no_test = ["there are no test pairs"] if subject.n_train == registry.n_pairs(subject.problem) else []
    for name in [name for name, value in values.items() if not np.all(np.isfinite(value))]:
        null[name] = ", or ".join(filter(None, [columns[name].undefined, *no_test])) or "it is not finite"
    found = {name: None if name in null else plain(m, values[name]) for name, m in columns.items()}
    return {**found, "null": null, "measured": described(subject, given_N)}


def to_json(found: Mapping[str, Any], indent: str = "") -> str:
    """Writes what `measure` returned as JSON, one line per entry, however long its list."""
    lines = []
    for name, value in found.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, dict) and value:
            text = to_json(value, indent + " ")
        lines.append(f"{indent} {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def plain(m: Measure, value: np.ndarray):
    """Turns a value into what JSON can hold; a set of frequencies as the list of its k."""
    if m.shape == ("freq",) and m.dtype == "bool":
        return [int(k) + 1 for k in np.flatnonzero(value)]
    return np.asarray(value).tolist()


def _compute(
    subject: Subject, columns: Mapping[str, Measure]
) -> tuple[dict[str, np.ndarray], dict[str, str], np.ndarray]:
    """Computes values by name, the reason for each that cannot be computed, and the model's answer to every pair."""
    problem, null = subject.problem, {}

    def compute(params, inputs, keys_K):
        if inputs.train_pairs is None:
            rule = problem.key_rule, problem.key_threshold
            shared = shared_of(problem, params, inputs.answers[:0], inputs.answers, None, *rule)
            del shared.train_pairs_B  # so that what asks for them, however far down, fails
        else:
            shared = one_run.shared(problem, inputs, params)
        if keys_K is not None:
            shared.key_freqs_K = keys_K
        values = {}
        for name, m in columns.items():
            if reason := m.undefined_for(shared):
                about = "the model" if is_of_model(reason) else f"task '{subject.task.name}'"
                null[name] = f"{about} {reason}"
            elif m.needs_update and not shared.has_update:
                null[name] = NO_UPDATE
            else:
                try:
                    values[name] = registry.value(m, shared)
                except AttributeError as error:
                    if error.name != registry.SPLIT:
                        raise
                    null[name] = NO_SPLIT
        return values, jnp.argmax(shared.logits_NxP, 1)

    found = jax.jit(unemulated(compute, problem.precision))(subject.params, subject.inputs, subject.keys_K)
    values, given_N = jax.device_get(found)
    return values, null, given_N
