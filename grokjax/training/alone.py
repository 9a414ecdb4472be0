"""One run as a function of its hyperparameters, each of which may be a tracer: `train_one`."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from grokjax import config as config_lib
from grokjax import sweeps, tasks
from grokjax.config import FIELDS, TRACED
from grokjax.core import devices, losses, optimizers
from grokjax.core.problem import Inputs, Problem, State
from grokjax.errors import InputError, shown, unknown
from grokjax.experiment import load_experiment
from grokjax.training import one_run, starting

NAMES = tuple(path for path, field in FIELDS.items() if field.kind == TRACED)


def train_one(config, **fields) -> State:
    """Trains one run: a pure function, with no files and no progress, to go under your own `jit` and `vmap`.

    Args:
      config: of `grokjax.config.default`, or an experiment's name such as "experiments/wd_sweep.py:small", whose sweep
        is left aside.
      **fields: seed, split_seed, init_scale, learning_rate, weight_decay and every other field that is swept without
        recompiling, where they differ from the config's; numbers, or arrays and tracers of shape []. Names with a dot
        go in a dict: `**{"model.attention_rate": 0.5}`.

    Returns:
      The state after the last step: `params` by TransformerLens key, `opt_state`, and `inputs`, which holds the
      training pairs and the answers. XLA takes the gradients, on every kind of device; a run's bits depend on the width
      under `vmap`, as in a sweep.

    Raises:
      InputError: a field is unknown, is not one of these, or has a value that it cannot have.

    Example:
      Four runs of two steps each, side by side:

      >>> import grokjax, jax, jax.numpy as jnp
      >>> c = grokjax.config.small()
      >>> c.p, c.model.d_model, c.model.d_mlp = 7, 8, 16
      >>> def final(seed, weight_decay):
      ...     return grokjax.train_one(c, seed=seed, weight_decay=weight_decay, steps=2).params["embed.W_E"]
      >>> jax.vmap(final)(jnp.arange(4), jnp.array([0.0, 0.3, 1.0, 3.0])).shape
      (4, 8, 8)
    """
    devices.require()
    if isinstance(config, str | Path):
        _, config = load_experiment(str(config))
    values = config_lib.flat(config)
    for name, value in fields.items():
        if name not in FIELDS:
            raise unknown("field", name, NAMES)
        if name not in NAMES:
            raise InputError(f"{name} shapes arrays or chooses code, so it is the config's: set config.{name}.")
        values[name] = _checked(name, value)
    # What is checked of steps goes with evaluations, of which there are none here; tracers have no values to check.
    known = {name: _stand_in(name) if _is_array(value) else value for name, value in values.items()}
    known, values = sweeps.settled(known), sweeps.settled(values)
    sweeps.check(known | {"steps": values["eval_every"]})
    problem = sweeps.Run(0, known).problem()
    stops = _is_array(values["stop_loss"]) or values["stop_loss"] > 0
    made_of = losses.get(problem.loss), optimizers.get(problem.optimizer)
    return _through(problem, made_of, stops, _inputs(problem, values), jnp.asarray(values["steps"], jnp.int32))


def _stand_in(name: str) -> Any:
    """A value for what is checked and compiled where a field is a tracer."""
    field = FIELDS[name]
    return field.default if field.on is None else field.on


def _is_array(value) -> bool:
    return isinstance(value, jax.Array)


def _checked(name: str, value: Any):
    """A number as the field's type, checked; an array or tracer as it is."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.ndim == 0 else jnp.asarray(value)
    if not _is_array(value):
        return config_lib.coerce(name, value, name)
    if value.shape:
        raise InputError(f"{name} is an array of shape {shown(value.shape)}, but one run has one number: use jax.vmap.")
    return value


def _inputs(problem: Problem, values: Mapping[str, Any]) -> Inputs:
    """The traced part of a run, as `sweeps.Run.inputs` makes it of numbers."""
    seed = values["seed"]
    p, split_seed = values["p"], seed if values["split_seed"] is None else values["split_seed"]
    train_pairs = _train_pairs(values, tasks.of(values).nonzero_b, split_seed)
    answers, task_answers = _answers(tasks.of(values), p, split_seed), None
    if problem.label_noise:
        task_answers, answers = answers, tasks.with_noise(answers, train_pairs, p, values["label_noise"], split_seed)
    return Inputs(
        seed=jnp.asarray(seed, jnp.uint32),
        hyperparameters={name: jnp.asarray(values[name], jnp.float32) for name in optimizers.hyperparameters(problem)},
        train_pairs=train_pairs,
        answers=answers,
        stop_loss=jnp.asarray(values["stop_loss"], jnp.float32),
        stop_evals=jnp.asarray(values["stop_evals"], jnp.int32),
        task_answers=task_answers,
        start=starting.start(values, problem),
    )


def _train_pairs(values: Mapping[str, Any], nonzero_b: bool, seed: Int[Array, ""] | int) -> Int32[Array, " B"]:
    """The training pairs that `tasks.train_pairs` gives."""
    p, fraction, split = values["p"], values["train_fraction"], values["split"]
    n = tasks.n_train(p, fraction, nonzero_b)
    if not isinstance(seed, jax.Array):
        return jnp.asarray(tasks.train_pairs(p, fraction, seed, split, nonzero_b))
    if split == "jax":
        return jnp.sort(tasks.shuffled(seed, p, nonzero_b)[:n]).astype(jnp.int32)
    return _by_host(lambda seed: tasks.train_pairs(p, fraction, seed, split, nonzero_b), n, seed)


def _answers(task: tasks.Task, p: int, seed: Int[Array, ""] | int) -> Int32[Array, " N"]:
    """The answers that `tasks.answers` gives."""
    if not isinstance(seed, jax.Array):
        return jnp.asarray(tasks.answers(task, p, seed))
    if not task.draws:
        return jnp.asarray(tasks.answers(task, p))
    return _by_host(lambda seed: tasks.answers(task, p, seed), p * p, seed)


def _by_host(function, n: int, seed: Int[Array, ""]) -> Int32[Array, " n"]:
    """What the host draws from a seed, once it is known."""
    shape = jax.ShapeDtypeStruct((n,), jnp.int32)
    return jax.pure_callback(lambda seed: function(int(seed)), shape, seed, vmap_method="sequential")


@partial(jax.jit, static_argnums=(0, 1, 2))
def _through(problem: Problem, made_of: tuple, stops: bool, inputs: Inputs, n_steps: Int32[Array, ""]) -> State:
    """Takes a run from its first step to its last; where it may stop early, by way of its evaluations.

    `made_of` tells redefined losses and optimizers of one name apart.
    """
    del made_of
    state = one_run.init(problem, inputs)
    if not stops:
        return one_run.train(problem, state, n_steps)

    def goes_on(carry):
        state, step = carry
        return (step < n_steps) & ~one_run.stopped(state)

    def segment(carry):
        state, step = carry
        length = jnp.minimum(problem.eval_every, n_steps - step)
        return counted(one_run.train(problem, state, length)), step + length

    def counted(state):
        return one_run.counted(state, one_run.evaluate(losses_alone, state)["test_loss"])

    losses_alone = dataclasses.replace(problem, measures=())
    return jax.lax.while_loop(goes_on, segment, (counted(state), jnp.int32(0)))[0]
