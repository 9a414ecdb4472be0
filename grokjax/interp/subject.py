"""The subject of a measurement: a trained model with the task, split and key frequencies that it is measured by.

Size letters: N all P² pairs, B training pairs, K = P//2 frequencies.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int32

from grokjax import finite_groups, tasks
from grokjax.config import FIELDS, coerce
from grokjax.core import environment, losses
from grokjax.core.problem import Inputs, Problem
from grokjax.errors import InputError, unknown
from grokjax.interp.checkpoint import Checkpoint, refuse_contradiction
from grokjax.measures.blocks import blocks_of, n_blocks
from grokjax.measures.shared import KEY_RULES
from grokjax.store.sweep import refuse_other_answers


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and what it is measured by; made by `subject_of`.

    Attributes:
      checkpoint: the model.
      task: that the model computes.
      answers: the task's.
      train_pairs: sorted, each a * P + b; None where the split is not known.
      split: where train_pairs come from, in words; "" if there are none.
      keys: the given key frequencies, k from 1; empty for the model's own by `problem.key_rule`.
      problem: with the settings by which to measure.
    """

    checkpoint: Checkpoint
    task: tasks.Task
    answers: Int32[np.ndarray, " N"]
    train_pairs: Int32[np.ndarray, " B"] | None
    split: str
    keys: tuple[int, ...]
    problem: Problem

    @property
    def n_train(self) -> int | None:
        """The number of training pairs; None where the split is not known."""
        return None if self.train_pairs is None else len(self.train_pairs)

    @property
    def inputs(self) -> Inputs:
        """What a run is evaluated by, its split being known."""
        trained = self.checkpoint.trained_answers
        noise = trained is not None and self.train_pairs is self.checkpoint.train_pairs
        answers = np.asarray(self.answers)
        given = (trained, answers) if noise else (answers, None)
        return Inputs(np.uint32(0), {}, self.train_pairs, given[0], task_answers=given[1])

    @property
    def keys_K(self) -> Bool[np.ndarray, " K"] | None:
        """The given keys; None for the model's own."""
        return np.isin(np.arange(n_blocks(self.problem)) + 1, self.keys) if self.keys else None

    @property
    def params(self) -> dict[str, jax.Array]:
        """The parameters in JAX's widest float."""
        return {name: jnp.asarray(x, dtype()) for name, x in self.checkpoint.params.items()}


def subject_of(
    checkpoint: Checkpoint,
    keys: tuple[int, ...],
    rule: str | None,
    threshold: float | None,
    split: str | None,
    task: str | None,
) -> Subject:
    """Finds the task, split and keys to measure a model by; arguments as for `measure.measure`.

    Raises:
      InputError: an argument is none of those known, or does not fit the model.
    """
    p = checkpoint.cfg.p
    settings = {name: FIELDS[name].default for name in ("key_rule", "key_threshold", "precision", "loss")}
    settings |= dict(checkpoint.settings)
    if threshold is not None:
        settings["key_threshold"] = coerce("key_threshold", threshold, "--threshold")
    if settings["loss"] not in losses.LOSSES and checkpoint.experiment:
        raise InputError(
            f"{checkpoint.source} has a loss of its own, '{settings['loss']}': give --experiment=FILE, which defines "
            f"it and is run for it. The sweep was made from {checkpoint.experiment}."
        )
    found = task_of(checkpoint, task)
    if found.name == checkpoint.task:
        refuse_other_answers(checkpoint.source, {"answers": checkpoint.answers}, [(found.name, p)])
    train_pairs, words, seed = _split(checkpoint, split, found.nonzero_b)
    if found.draws and seed is None:
        raise InputError(f"task '{found.name}' draws its answers by the split's seed: give --split=jax:SEED:FRACTION.")
    rule = rule or settings["key_rule"]
    if rule not in KEY_RULES:
        raise unknown("--rule", rule, KEY_RULES)
    if rule == "logits" and found.direction_at(p) is None and not found.read_by(p) and not keys:
        raise InputError(f"--rule is logits, but task '{found.name}' is no function of a + b or a - b: choose another.")
    problem = Problem(
        checkpoint.cfg,
        n_train=0 if train_pairs is None else len(train_pairs),
        direction=found.direction_at(p),
        nonzero_b=found.nonzero_b,
        group=found.read_by(p),
        precision=settings["precision"],
        loss=settings["loss"],
        key_rule=rule,
        key_threshold=settings["key_threshold"],
    )
    check_keys(problem, keys)
    answers = tasks.answers(found, p, seed or 0)
    return Subject(checkpoint, found, answers, train_pairs, words, keys, problem)


def task_of(checkpoint: Checkpoint, task: str | None) -> tasks.Task:
    """The task to measure a model by: that given, or its own, or the default.

    Raises:
      InputError: it is unknown, or does not fit the model.
    """
    if not task and checkpoint.task is not None and not tasks.is_known(checkpoint.task) and checkpoint.experiment:
        raise InputError(
            f"{checkpoint.source} has a task of its own, '{checkpoint.task}': give --experiment=FILE, which defines it "
            f"and is run for it. The sweep was made from {checkpoint.experiment}."
        )
    if task and task != checkpoint.origin.get("task", task) and tasks.is_known(task):
        flag, given = ("--group", task.removeprefix(IN_GROUP)) if task.startswith(IN_GROUP) else ("--task", task)
        refuse_contradiction(flag, given, checkpoint.source, "task", checkpoint.origin["task"])
    found = tasks.get(task or checkpoint.task or FIELDS["task"].default)
    if found.group and found.group.order != checkpoint.cfg.p:
        raise InputError(
            f"{checkpoint.source} has P = {checkpoint.cfg.p}, but {found.name} has {found.group.order} elements: "
            "name the group that it was trained on."
        )
    return found


IN_GROUP = f"{tasks.GROUP} "


def task_given(task: str | None, group: str | None) -> str | None:
    """The name of a task from what --task and --group say; None where neither says anything.

    Raises:
      InputError: they do not go together, or there is no such group.
    """
    if group is None:
        if task == tasks.GROUP:
            raise InputError("--task is group, but not which: give --group, such as --group=S_5.")
        return task
    if task not in (None, tasks.GROUP):
        raise InputError(f"--task is {task}, but --group is {group}: leave out one of the two.")
    try:
        return f"{IN_GROUP}{finite_groups.recorded(finite_groups.named(group).name)}"
    except InputError as error:
        raise InputError(str(error).replace("config.group", "--group", 1)) from None


def check_keys(problem: Problem, keys: Iterable[int]) -> None:
    """Makes sure that given keys are frequencies, or blocks of the problem's group, counted from 1.

    Raises:
      InputError: one is not.
    """
    n = n_blocks(problem)
    what = f"blocks of {problem.group}" if problem.group else f"for P = {problem.model.p} frequencies"
    for k in keys:
        if not 1 <= k <= n:
            raise InputError(f"--keys has {k}, but {what} are 1 to {n}.")


def _split(
    checkpoint: Checkpoint, given: str | None, nonzero_b: bool
) -> tuple[Int32[np.ndarray, " B"] | None, str, int | None]:
    """The training pairs, where they come from in words, and the split's seed if it is known."""
    p = checkpoint.cfg.p
    if given is None or given == "mask":
        if given and checkpoint.train_pairs is None:
            raise InputError(f"--split=mask asks for the model's own split, but {checkpoint.source} does not tell it.")
        return checkpoint.train_pairs, checkpoint.split, checkpoint.split_seed
    if given == "all":
        every = np.arange(p * p, dtype=np.int32)
        every = every[every % p != 0] if nonzero_b else every
        return every, "all pairs taken for training pairs", checkpoint.split_seed
    kind, *numbers = given.split(":")
    try:
        seed, fraction = int(numbers[0]), float(numbers[1])
    except (ValueError, IndexError):
        raise InputError(
            f"--split={given} is not understood: mask, all, jax:SEED:FRACTION or python:SEED:FRACTION is expected."
        ) from None
    seed = coerce("split_seed", seed, "--split's seed")
    fraction = coerce("train_fraction", fraction, "--split's fraction")
    n, of = tasks.n_train(p, fraction, nonzero_b), tasks.n_pairs(p, nonzero_b)
    if not 0 < n < of:
        raise InputError(f"--split={given} leaves {n} of {of} pairs to train on.")
    kind, told = coerce("split", kind, "--split"), checkpoint.train_pairs
    pairs = tasks.train_pairs(p, fraction, seed, kind, nonzero_b)
    if checkpoint.origin and told is not None and not np.array_equal(pairs, told):
        refuse_contradiction("--split", given, checkpoint.source, "split", checkpoint.split)
    return pairs, given, seed


CHANCE = 3  # an accuracy up to this many times a guess's says nothing for the task
CHANCE_SLACK = 0.05  # but no more than this above a guess's, where P is small
FITS = 0.5  # from which accuracy on a model's answers are said to be a task's
SURE = 0.9  # from which they are no other's, although half of them may be


def doubt(subject: Subject, given_N: Int32[np.ndarray, " N"]) -> str:
    """Says in a sentence that a model's answers are hardly better than a guess, and which task's they are instead.

    Tasks may agree on some pairs, as addition and subtraction do for even P; so an accuracy above a guess's is doubted
    too where another task fits. Groups of the same order are tried as `finite_groups.named` numbers their elements.

    Args:
      subject: the model with the task that it is measured by.
      given_N: the class of its largest logit, for every pair.

    Returns:
      "" where nothing speaks against the task.
    """
    p = subject.checkpoint.cfg.p
    accuracy = float(np.mean(given_N == subject.answers))
    # Two groups of one order may agree on most pairs, as Z_3 x Z_5 does with Z_15.
    if accuracy >= (SURE if subject.task.group else FITS):
        return ""
    share, fits = max(_others(subject, given_N), key=lambda other: other[0])
    said = (
        f"its answers to task '{subject.task.name}' are hardly better than a guess ({accuracy:.1%} of all pairs right, "
        f"a guess has {1 / p:.1%}), so the numbers may say nothing of it"
    )
    if accuracy >= FITS:
        said = f"its answers fit task '{subject.task.name}' on {accuracy:.1%} of all pairs alone"
        return f"{said}; they fit {fits.format(share=f'{share:.1%}')}." if share >= SURE else ""
    if share >= FITS:
        return f"{said}; they fit {fits.format(share=f'{share:.1%}')}."
    is_chance = accuracy <= min(CHANCE / p, 1 / p + CHANCE_SLACK)
    return f"{said}; no built-in task or group fits them." if is_chance else ""


MOST_TRIED = 256  # elements of groups that are tried; larger ones take long to make


def _others(subject: Subject, given_N: Int32[np.ndarray, " N"]) -> Iterator[tuple[float, str]]:
    """Other tasks: which share of a model's answers each has, and what it is with what to give for it, in words."""
    p = subject.checkpoint.cfg.p
    for name, task in tasks.TASKS.items():
        if not task.draws and (tasks.is_prime(p) or not task.needs_prime):
            share = float(np.mean(given_N == tasks.answers(name, p)))
            yield share, f"task '{name}' ({{share}}): give --task={name}"
    own = subject.task.group
    names = finite_groups.of_order(p) if p <= MOST_TRIED else []
    for group in [*([own] if own else []), *map(finite_groups.named, names)]:
        shares = [float(np.mean(given_N == table.ravel())) for table in (group.table, group.table.T)]
        yield shares[0], f"group '{group.name}' ({{share}}): give --group={shlex.quote(group.name)}"
        if shares[0] < shares[1]:
            yield (
                shares[1],
                f"group '{group.name}' with a and b exchanged ({{share}}), as where permutations compose from right to "
                "left: give --group=FILE.npy with its Cayley table transposed",
            )


def described(subject: Subject, given_N: Int32[np.ndarray, " N"] | None = None) -> dict[str, Any]:
    """Describes what is measured and how, ready for JSON; with the model's answers, whether they fit its task."""
    checkpoint, problem = subject.checkpoint, subject.problem
    keys: dict[str, Any] = {"given": list(subject.keys)}
    if not subject.keys:
        keys = {"rule": problem.key_rule}
        if problem.key_rule in ("W_L", "W_E"):
            keys["threshold"] = problem.key_threshold
    return {
        "model": checkpoint.source,
        "layout": checkpoint.format,
        "notes": list(checkpoint.notes),
        "origin": dict(checkpoint.origin),
        **dataclasses.asdict(checkpoint.cfg),
        "differs": checkpoint.cfg.differs if checkpoint.cfg.is_transformer else "",
        "shapes": {name: list(x.shape) for name, x in checkpoint.params.items()},
        "dtype": str(np.result_type(*checkpoint.params.values())),
        "task": subject.task.name,
        **({"blocks": blocks_of(problem)} if problem.group else {}),
        "doubt": "" if given_N is None else doubt(subject, given_N),
        "split": subject.split or None,
        "n_train": subject.n_train,
        "keys": keys,
        "computed_in": str(dtype()),
        "precision": problem.precision,
        **environment.environment(),
    }


def dtype() -> np.dtype:
    """JAX's widest float."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))
