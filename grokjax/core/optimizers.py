"""Optax chains built from traced hyperparameters.

Each is made anew inside the traced step from the run's own numbers, so that sweeping any of them never recompiles and
the arithmetic stays that of the plain optax optimizer (`optax.inject_hyperparams` drifts from it: optax issues 583 and
1532). Weight decay applies to every parameter, biases and embeddings included, as in Nanda et al. 2023.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from grokjax.errors import unknown

Hyperparameters = Mapping[str, Float[Array, ""]]


def warmup(h: Hyperparameters) -> optax.Schedule:
    """learning_rate * min(step / warmup_steps, 1), from step 0, whose rate is thus 0; constant if warmup_steps is 0."""
    steps = h["warmup_steps"]
    return lambda count: h["learning_rate"] * jnp.where(steps > 0, jnp.minimum(count / jnp.maximum(steps, 1), 1), 1)


def adamw(h: Hyperparameters) -> optax.GradientTransformation:
    """AdamW; the decay is multiplied by the learning rate, as in PyTorch and the paper's code."""
    return optax.adamw(warmup(h), b1=h["beta1"], b2=h["beta2"], eps=h["eps"], weight_decay=h["weight_decay"])


def sgd(h: Hyperparameters) -> optax.GradientTransformation:
    """SGD with momentum beta1 and decay added to the gradient, as in PyTorch; beta2 and eps are not used."""
    return optax.chain(optax.add_decayed_weights(h["weight_decay"]), optax.sgd(warmup(h), momentum=h["beta1"]))


OPTIMIZERS: dict[str, Callable[[Hyperparameters], optax.GradientTransformation]] = {"adamw": adamw, "sgd": sgd}


def build(name: str, h: Hyperparameters) -> optax.GradientTransformation:
    """The optimizer of that name for one run's hyperparameters (scalars, traced or not)."""
    if name not in OPTIMIZERS:
        raise unknown("config.optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](h)
