"""A run as training and evaluation see it: the static `Problem`, the traced `Inputs`, the `State` between steps."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optax

from grokjax.core import model as model_lib
from grokjax.core.model import ModelConfig

Array = Any  # jax.Array where traced, NumPy's where made on the host

HYPERPARAMETERS = ("learning_rate", "weight_decay", "beta1", "beta2", "eps", "warmup_steps", "init_scale")


@dataclasses.dataclass(frozen=True)
class Problem:
    """The static part of a run: one compilation serves every run that shares it."""

    model: ModelConfig
    n_train: int
    direction: int | None = 1
    optimizer: str = "adamw"
    precision: str = "float32"
    eval_every: int = 100
    measures: tuple[str, ...] = ("paper",)
    key_rule: str = "W_L"
    key_threshold: float = 0.25


class Inputs(NamedTuple):
    """What makes a run that run."""

    seed: Array  # uint32 []
    hyperparameters: dict[str, Array]  # float [] each, by the names in HYPERPARAMETERS
    train_pairs: Array  # int32 [n_train], a * P + b
    answers: Array  # int32 [P²]
    stop_loss: Array = np.float32(0)  # float32 [], nats; a test loss is never below 0
    stop_evals: Array = np.int32(1)  # int32 []


class State(NamedTuple):
    """A run in training."""

    params: model_lib.Params
    opt_state: optax.OptState
    inputs: Inputs
    below: Array = np.int32(0)  # int32 [], evaluations in a row with the test loss below stop_loss


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a population is laid out: what is compiled, and so what bits depend on.

    Attributes:
      slots: runs per device.
      lanes: slots that train together under vmap; divides `slots`.
      eval_lanes: lanes evaluated together; evaluation holds activations of the whole grid for each.
      n_devices: devices over all processes, each with its own slots.
      block: training pairs whose gradients are taken at a time; 0 for all of them.
      n_parts: of the training pairs whose gradients are taken side by side in C++ (`grokjax.native`); 0 for XLA.
    """

    slots: int
    lanes: int
    eval_lanes: int
    n_devices: int
    block: int = 0
    n_parts: int = 0

    @property
    def width(self) -> int:
        """Slots over all devices."""
        return self.slots * self.n_devices
