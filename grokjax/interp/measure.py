"""Every measure of one trained model."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grokjax import tasks
from grokjax.config import FIELDS, coerce
from grokjax.core import environment, fourier
from grokjax.core.precision import products
from grokjax.core.problem import Inputs, Problem
from grokjax.errors import InputError, one_line, unknown
from grokjax.interp.checkpoint import Checkpoint, load_checkpoint
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from grokjax.measures.shared import KEY_RULES, Shared
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
      model: a file or snapshot as `interop.load` takes it, or what it returned.
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
    subject = settle(checkpoint, tuple(keys), rule, threshold, split, task)
    values, null = _compute(subject, columns)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where there are no test pairs
        values = registry.counts_to_shares(columns, values, checkpoint.cfg, subject.n_train or 0)
    no_test = ["there are no test pairs"] if subject.n_train == checkpoint.cfg.p**2 else []
    for name in [name for name, value in values.items() if not np.all(np.isfinite(value))]:
        null[name] = ", or ".join(filter(None, [columns[name].undefined, *no_test])) or "it is not finite"
    found = {name: None if name in null else plain(m, values[name]) for name, m in columns.items()}
    return {**found, "null": null, "measured": described(subject)}


def to_json(found: Mapping[str, Any], indent: str = "") -> str:
    """What `measure` returned as JSON, one line per entry, however long its list."""
    lines = []
    for name, value in found.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, dict) and value:
            text = to_json(value, indent + " ")
        lines.append(f"{indent} {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def plain(m: Measure, value: np.ndarray):
    """A value for JSON; a set of frequencies as the list of its k."""
    if m.shape == ("freq",) and m.dtype == "bool":
        return [int(k) + 1 for k in np.flatnonzero(value)]
    return np.asarray(value).tolist()


# --- what is measured -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with its task, split and keys settled."""

    checkpoint: Checkpoint
    task: tasks.Task
    answers: np.ndarray
    train_pairs: np.ndarray | None
    split: str
    keys: tuple[int, ...]
    problem: Problem

    @property
    def n_train(self) -> int | None:
        return None if self.train_pairs is None else len(self.train_pairs)

    @property
    def keys_K(self) -> np.ndarray | None:
        """The given keys, bool [(P-1)//2]; None for the model's own."""
        return np.isin(np.arange(fourier.n_freqs(self.problem.model.p)) + 1, self.keys) if self.keys else None

    @property
    def params(self) -> dict[str, jax.Array]:
        """The parameters in JAX's widest float."""
        return {name: jnp.asarray(x, dtype()) for name, x in self.checkpoint.params.items()}


def settle(
    checkpoint: Checkpoint,
    keys: tuple[int, ...],
    rule: str | None,
    threshold: float | None,
    split: str | None,
    task: str | None,
) -> Subject:
    """Settles what a model is measured by; arguments as for `measure`.

    Raises:
      InputError: an argument is none of those known, or does not fit the model.
    """
    p = checkpoint.cfg.p
    settings = {name: FIELDS[name].default for name in ("key_rule", "key_threshold", "precision")}
    settings |= dict(checkpoint.settings)
    if threshold is not None:
        settings["key_threshold"] = coerce("key_threshold", threshold, "--threshold")
    train_pairs, words, seed = _split(checkpoint, split)
    if not task and checkpoint.task is not None and checkpoint.task not in tasks.TASKS and checkpoint.experiment:
        raise InputError(
            f"{checkpoint.source} has a task of its own, '{checkpoint.task}': give --experiment=FILE, which defines it "
            f"and is run for it. The sweep was made from {checkpoint.experiment}."
        )
    found = tasks.get(task or checkpoint.task or FIELDS["task"].default)
    if found.draws and seed is None:
        raise InputError(f"task '{found.name}' draws its answers by the split's seed: give --split=jax:SEED:FRACTION.")
    rule = rule or settings["key_rule"]
    if rule not in KEY_RULES:
        raise unknown("--rule", rule, KEY_RULES)
    if rule == "logits" and found.direction is None and not keys:
        raise InputError(f"--rule is logits, but task '{found.name}' is no function of a + b or a - b: choose another.")
    n_freqs = fourier.n_freqs(p)
    for k in keys:
        if not 1 <= k <= n_freqs:
            raise InputError(f"--keys has {k}, but for P = {p} frequencies are 1 to {n_freqs}.")
    problem = Problem(
        checkpoint.cfg,
        n_train=0 if train_pairs is None else len(train_pairs),
        direction=found.direction,
        precision=settings["precision"],
        key_rule=rule,
        key_threshold=settings["key_threshold"],
    )
    answers = tasks.answers(found.name, p, seed or 0)
    return Subject(checkpoint, found, answers, train_pairs, words, keys, problem)


def _split(checkpoint: Checkpoint, given: str | None) -> tuple[np.ndarray | None, str, int | None]:
    """The training pairs, where they come from in words, and the split's seed if it is known."""
    p = checkpoint.cfg.p
    if given is None or given == "mask":
        if given and checkpoint.train_pairs is None:
            raise InputError(f"--split=mask asks for the model's own split, but {checkpoint.source} does not tell it.")
        return checkpoint.train_pairs, checkpoint.split, checkpoint.split_seed
    if given == "all":
        return np.arange(p * p, dtype=np.int32), "all pairs taken for training pairs", checkpoint.split_seed
    kind, *numbers = given.split(":")
    try:
        seed, fraction = int(numbers[0]), float(numbers[1])
    except (ValueError, IndexError):
        raise InputError(
            f"--split={given} is not understood: mask, all, jax:SEED:FRACTION or python:SEED:FRACTION is expected."
        ) from None
    seed = coerce("split_seed", seed, "--split's seed")
    fraction = coerce("train_fraction", fraction, "--split's fraction")
    if not 0 < tasks.n_train(p, fraction) < p * p:
        raise InputError(f"--split={given} leaves {tasks.n_train(p, fraction)} of {p * p} pairs to train on.")
    return tasks.train_pairs(p, fraction, seed, coerce("split", kind, "--split")), given, seed


def described(subject: Subject) -> dict[str, Any]:
    """What was measured and how, ready for JSON."""
    checkpoint, problem = subject.checkpoint, subject.problem
    keys: dict[str, Any] = {"given": list(subject.keys)}
    if not subject.keys:
        keys = {"rule": problem.key_rule}
        if problem.key_rule in ("W_L", "W_E"):
            keys["threshold"] = problem.key_threshold
    return {
        "model": checkpoint.source,
        "layout": checkpoint.layout,
        "notes": list(checkpoint.notes),
        **dataclasses.asdict(checkpoint.cfg),
        "shapes": {name: list(x.shape) for name, x in checkpoint.params.items()},
        "dtype": str(np.result_type(*checkpoint.params.values())),
        "task": subject.task.name,
        "split": subject.split or None,
        "n_train": subject.n_train,
        "keys": keys,
        "computed_in": str(dtype()),
        "precision": problem.precision,
        **environment.environment(),
    }


# --- computing ------------------------------------------------------------------------------------------------------


class NeedsSplit(Exception):
    """A measure asked for the training pairs, which are not known."""


class _WithoutSplit(Shared):
    """A `Shared` whose training pairs are not known: what asks for them, however far down, raises `NeedsSplit`."""

    def __init__(self, problem: Problem, params, answers):
        rule = problem.key_rule, problem.key_threshold
        super().__init__(problem.model, problem.direction, params, answers[:0], answers, None, *rule)
        del self.train_pairs_B

    def __getattr__(self, name):
        raise NeedsSplit if name == "train_pairs_B" else AttributeError(name)


def _compute(subject: Subject, columns: Mapping[str, Measure]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Values by name, and the reason for each that cannot be computed."""
    problem, null = subject.problem, {}

    @jax.jit
    def compute(params, train_pairs, answers, keys_K):
        shared: Shared
        if train_pairs is None:
            shared = _WithoutSplit(problem, params, answers)
        else:
            shared = one_run.shared(problem, Inputs(0, {}, train_pairs, answers), params)
        if keys_K is not None:
            shared.key_freqs_K = keys_K
        values = {}
        for name, m in columns.items():
            if not m.defined(problem.direction, has_update=True):
                null[name] = f"task '{subject.task.name}' is no function of a ± b"
            elif not m.defined(problem.direction, shared.has_update):
                null[name] = NO_UPDATE
            else:
                try:
                    values[name] = m.function(shared)
                except NeedsSplit:
                    null[name] = NO_SPLIT
        return values

    with products(problem.precision):
        return jax.device_get(compute(subject.params, subject.train_pairs, subject.answers, subject.keys_K)), null


def dtype() -> np.dtype:
    """JAX's widest float."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


# --- the table ------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> str:
    """What `measure` returned, to read: one line per measure; lists are summarised."""
    rows = [("measure", "value", "unit", "range", "source")]
    for name, m in registry.MEASURES.items():
        if found.get(name) is not None:
            rows.append((name, _summary(m, found[name]), m.unit, m.range, m.source))
    return "\n".join([*heading(found["measured"]), "", *listing(rows, found["null"])])


def listing(rows: Sequence[Sequence[str]], null: Mapping[str, str]) -> list[str]:
    """Lines of rows in columns, and then what was left out, by reason."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for reason in dict.fromkeys(null.values()):
        names = [name for name, why in null.items() if why == reason]
        lines += ["", f"left out, since {reason}: {', '.join(names)}."]
    return lines


def heading(about: Mapping[str, Any]) -> list[str]:
    """What was measured and how, to read."""
    keys, split = about["keys"], "not known"
    if about["split"] is not None:
        split = f"{about['split']}: {about['n_train']} of {about['p'] ** 2} pairs are training pairs"
    threshold = f", key_threshold {keys['threshold']}" if "threshold" in keys else ""
    return [
        f"model  {one_line('; '.join([about['model'], about['layout'], *about['notes']]))}",
        f"       P = {about['p']}, n_layers {about['n_layers']}, d_model {about['d_model']}, n_heads {about['n_heads']}"
        f", d_mlp {about['d_mlp']}, {about['act']}; {about['dtype']}, computed in {about['computed_in']}",
        f"task   {about['task']}",
        f"split  {split}",
        f"keys   {'given' if 'given' in keys else f'''the model's own by key_rule {keys['rule']}{threshold}'''}",
    ]


def _summary(m: Measure, value) -> str:
    """A value in few words: the largest of many frequencies, the most common or the middle of many neurons."""
    if not isinstance(value, list):
        return _number(value)
    if m.dtype == "bool" and m.shape == ("freq",):
        return _few(value, 12) or "none"
    if m.shape == ("freq",):
        order = sorted(range(len(value)), key=lambda i: -abs(value[i]))
        return _few([f"{_number(value[i])} at k = {i + 1}" for i in order], 4)
    if m.shape == ("neuron",) and m.dtype == "int32":
        counts = {v: value.count(v) for v in value}
        return _few([f"{v} in {counts[v]}" for v in sorted(counts, key=lambda v: -counts[v])], 4)
    if m.shape == ("neuron",):
        return " … ".join(map(_number, (min(value), float(np.median(value)), max(value))))
    return _few(map(_number, value), 8)


def _few(items: Iterable[Any], limit: int) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:limit]) + ", …" * (len(texts) > limit)


def _number(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
