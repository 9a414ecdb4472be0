"""Backends, which compute a run's gradient and its logits over the grid of pairs.

XLA does it anywhere, C++ (`core.native`) on CPUs. A backend is static, since it chooses code, and a run's bits depend
on it.

Size letters: B training pairs (of a block), N all P² pairs, P residues, M d_mlp.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from grokjax.core import devices, losses, model
from grokjax.core.model import ModelConfig, Params
from grokjax.core.native import kernels
from grokjax.core.problem import Inputs, Problem

BLOCK_BYTES = 3 << 19  # of one block's neurons


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to compute: JAX's own programs, or the C++ for one-layer models on CPUs.

    Attributes:
      block: training pairs whose gradients XLA takes at a time, for models of one layer; 0 for all of them.
      n_parts: of the training pairs whose gradients C++ takes side by side, at most `kernels.MOST_PARTS`; 0 for XLA.
      pairs_last: whether XLA lays attention out as TPUs want it, for models of one layer.
    """

    block: int = 0
    n_parts: int = 0
    pairs_last: bool = False

    def gradient(self, problem: Problem, inputs: Inputs) -> Callable[..., Params]:
        """The gradient of a run's training loss, as a function of the parameters, and of a key from which dropout draws
        where there is any; made once, outside the loop.
        """
        if self.n_parts:
            tokens = kernels.tokens(inputs.train_pairs, inputs.answers, problem.model.p)
            return lambda params: kernels.gradient(problem.model, params, tokens, self.n_parts)
        pairs = blocks(problem, inputs, self.block, self.pairs_last)
        return lambda params, *key: gradient(problem, params, pairs, *key)

    def forward(self, cfg: ModelConfig, params: Params) -> tuple[Float[Array, "N P"], Float[Array, "N M"]]:
        """Logits and MLP activations of all pairs; not necessarily differentiable."""
        return kernels.forward(cfg, params) if self.n_parts else model.forward_grid(cfg, params, self.pairs_last)

    def serves(self, problem: Problem, platform: str) -> bool:
        """Whether this backend can compute such runs on devices of this platform, as JAX names it."""
        if not self.n_parts:
            return True
        return suits(problem) and platform == "cpu" and not kernels.unavailable()

    def identity(self) -> str | None:
        """The compiler that bits depend on beside JAX's own, in a line; None where there is none."""
        return kernels.identity() if self.n_parts else None

    def record(self) -> dict[str, int]:
        """The backend as config.json holds it; `pairs_last` only where it is so."""
        fields = {"block": self.block, "n_parts": self.n_parts}
        return {**fields, "pairs_last": 1} if self.pairs_last else fields


XLA = Backend()
ON_TPU = Backend(pairs_last=True)


def suits(problem: Problem) -> bool:
    """Whether the C++ is made for such runs."""
    return not unsuited(problem)


def unsuited(problem: Problem) -> str:
    """What the C++ is made for and such runs are not, in words; "" if it suits."""
    reasons = {
        "precision float32": problem.precision == "float32",
        "full batches": not problem.batch_size,
        f"loss {losses.EXACT}": problem.loss == losses.EXACT,
    }
    wanted = [name for name, holds in reasons.items() if not holds]
    return ", ".join(filter(None, [*wanted, kernels.unsuited(problem.model)]))


def recorded(record: Mapping[str, Any]) -> Backend:
    """The backend of `record`, or of a directory from before there was a choice."""
    return Backend(record.get("block", 0), record.get("n_parts", 0), bool(record.get("pairs_last", 0)))


def on_cpu(problem: Problem, n_devices: int, n_beside: int) -> Backend:
    """The fastest backend on a CPU.

    Args:
      problem: of the runs.
      n_devices: over all processes.
      n_beside: devices that share this process's cores.
    """
    native = Backend(n_parts=max(1, min(devices.n_cores() // n_beside, kernels.MOST_PARTS)))
    return native if native.serves(problem, "cpu") else xla_on_cpu(problem, n_devices)


def xla_on_cpu(problem: Problem, n_devices: int) -> Backend:
    """XLA on a CPU. A run that all cores share gains nothing from blocks, which are too short to be split well."""
    return Backend(block_of(problem) if n_devices > 1 or devices.n_cores() == 1 else 0)


def block_of(problem: Problem) -> int:
    """Training pairs per block where a core has a run to itself: about 1.5 MiB of neurons, which its caches hold."""
    if not problem.model.is_factored or problem.batch_size:
        return 0
    n_blocks = max(1, round(problem.n_train * problem.model.d_mlp * 4 / BLOCK_BYTES))
    return -(-problem.n_train // n_blocks) if n_blocks > 1 else 0


# --- by XLA ---------------------------------------------------------------------------------------------------------


class Blocks(NamedTuple):
    """The training pairs ready for the forward pass, in equal blocks; the same at every step of a run."""

    pairs: model.Pairs  # [blocks, B] each
    labels: Int[Array, "blocks B"]
    weights: Float[Array, "blocks B"]  # 1 for a pair and 0 for what fills the last block


def batch(problem: Problem, inputs: Inputs, pairs_last: bool = False) -> tuple[model.Pairs, Int[Array, " B"]]:
    """Prepares all training pairs for the forward pass, and looks up their answers."""
    return model.lookup(inputs.train_pairs, problem.model.p, pairs_last), inputs.answers[inputs.train_pairs]


def blocks(problem: Problem, inputs: Inputs, size: int = 0, pairs_last: bool = False) -> Blocks:
    """The training pairs in blocks.

    Args:
      problem: of the run.
      inputs: of the run.
      size: pairs per block at most, of a model with one layer; 0 for one block.
      pairs_last: as in `Backend`.
    """
    n, p = problem.n_train, problem.model.p
    n_blocks = -(-n // (size or n)) if problem.model.is_factored else 1
    length = -(-n // n_blocks)
    filled = jnp.resize(inputs.train_pairs, (n_blocks, length))
    weights = (jnp.arange(n_blocks * length) < n).astype(float).reshape(n_blocks, length)
    return Blocks(
        jax.vmap(lambda pairs_B: model.lookup(pairs_B, p, pairs_last))(filled),
        jnp.asarray(inputs.answers)[filled],
        weights,
    )


def loss(
    problem: Problem,
    params: Params,
    pairs: model.Pairs,
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"] | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The problem's loss, mean over the pairs; over those alone whose weight is 1 and not 0, where there are any.

    With a key it is a training step's, where dropout draws from it.
    """
    logits_BxP, _ = model.forward(problem.model, params, pairs, key)
    loss_B = losses.get(problem.loss)(logits_BxP, labels_B)
    return jnp.mean(loss_B) if weights_B is None else jnp.sum(loss_B * weights_B) / jnp.sum(weights_B)


def gradient(problem: Problem, params: Params, pairs: Blocks, key: Key[Array, ""] | None = None) -> Params:
    """The gradient of `loss` over all blocks, of which a model with dropout has one.

    Several blocks are taken one after another, so that a CPU's caches hold what a block needs; what does not depend on
    the pairs (`model.tables`) is computed, and differentiated, once.
    """
    if pairs.labels.shape[0] == 1:
        whole = jax.tree.map(lambda x: x[0], pairs)
        return jax.grad(loss, 1)(problem, params, whole.pairs, whole.labels, key=key)

    def block_loss(tables, block: Blocks):
        logits_BxP, _ = model.factored_tables(problem.model, tables, block.pairs)
        return jnp.sum(losses.get(problem.loss)(logits_BxP, block.labels) * block.weights)

    def add(sums, block: Blocks):
        return jax.tree.map(jnp.add, sums, jax.grad(block_loss)(tables, block)), None

    tables, pull_back = jax.vjp(functools.partial(model.tables, problem.model), params)
    sums, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, tables), pairs)
    return pull_back(jax.tree.map(lambda x: x / problem.n_train, sums))[0]
