"""Run descriptions for training and evaluation: the static `Problem`, the traced `Inputs`, the `State` between steps.

Size letters: B training pairs, N all P² pairs.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Float, Float32, Int32, UInt32

from grokjax.core import architecture
from grokjax.core.model import ModelConfig, Params

Array = Any  # jax.Array where traced, NumPy's where made on the host

# Of every run; core.optimizers tells which more a problem's runs have.
HYPERPARAMETERS = ("learning_rate", "weight_decay", "beta1", "beta2", "eps", "warmup_steps", "init_scale")


@dataclasses.dataclass(frozen=True)
class Problem:
    """The static part of a run, evaluation included: one compilation serves every run that shares it.

    Attributes:
      model: its shape.
      n_train: the number of training pairs.
      loss: that is trained on, a name in `LOSSES` of core.losses.
      optimizer: a name in `OPTIMIZERS` of core.optimizers, and
      gradient_transform: in its `TRANSFORMATIONS`, or "none".
      schedule: of the learning rate after warm-up, in its `SCHEDULES`.
      decay_to: "zero" or "init", what weight decay is towards.
      norm_constraint: "none", or "init" where the norm of all weights stays that of the initial ones.
      penalties: those of its `PENALTIES` that are on.
      label_noise: whether a share of the training answers is drawn anew.
      is_started: whether a run begins with given weights.
      precision: of products, a name in core.precision.
      direction: +1 or -1 if the task's answer is a function of a + b or a - b, else None.
      nonzero_b: whether the task leaves out the pairs with b = 0.
      group: whose composition the task is, by whose blocks it is read; None for Z_P, whose blocks are frequencies.
      eval_every: steps between evaluations.
      measures: groups to evaluate.
      key_rule: a name in `KEY_RULES` of measures.shared.
      key_threshold: of the rules W_L and W_E, a fraction of the largest norm.
      batch_size: training pairs of a step; 0 for all.
    """

    model: ModelConfig
    n_train: int
    loss: str = "cross_entropy"
    optimizer: str = "adamw"
    gradient_transform: str = "none"
    schedule: str = "constant"
    decay_to: str = "zero"
    norm_constraint: str = "none"
    penalties: tuple[str, ...] = ()
    label_noise: bool = False
    is_started: bool = False
    precision: str = "float32"
    direction: int | None = 1
    nonzero_b: bool = False
    group: str | None = None
    eval_every: int = 100
    measures: tuple[str, ...] = ("paper",)
    key_rule: str = "W_L"
    key_threshold: float = 0.25
    batch_size: int = 0

    @property
    def counts_steps(self) -> bool:
        """Whether a run's next step depends on how many it has done."""
        return bool(self.batch_size) or self.model.has_dropout

    @property
    def n_step(self) -> int:
        """The number of training pairs that a step sees."""
        return self.batch_size or self.n_train


class Inputs(NamedTuple):
    """The traced part of a run: what may differ between runs of one compilation."""

    seed: UInt32[Array, ""]
    hyperparameters: dict[str, Float[Array, ""]]  # by the names that optimizers.hyperparameters gives
    train_pairs: Int32[Array, " B"]  # a * P + b
    answers: Int32[Array, " N"]  # those of training pairs as they are trained on
    stop_loss: Float32[Array, ""] = np.float32(0)  # nats; a test loss is never below 0
    stop_evals: Int32[Array, ""] = np.int32(1)
    task_answers: Int32[Array, " N"] | None = None  # where label noise makes them others
    start: dict[str, Array] | None = None  # given weights to begin with


class State(NamedTuple):
    """A run in training."""

    params: Params
    opt_state: optax.OptState
    inputs: Inputs
    below: Int32[Array, ""] = np.int32(0)  # evaluations in a row with the test loss below stop_loss
    step: Int32[Array, ""] | None = None  # steps done, where `Problem.counts_steps`: it tells what to draw next


def bound(problem: Problem, inputs: Inputs) -> Problem:
    """The problem with a run's own rates in its model, to be used inside its trace alone."""
    if not problem.model.traced:
        return problem
    return dataclasses.replace(problem, model=architecture.bound(problem.model, inputs.hyperparameters))
