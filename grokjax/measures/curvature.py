"""The shape of the training loss around the weights, and of the neurons' regions around the inputs; all slow.

Derivatives are Hessian-vector products, each worth about three gradients; nothing of the Hessian's size is formed.

Size letters: W all parameters, B points, V directions, T positions, D d_model, M neurons.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from grokjax.core import model
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared

N_LANCZOS = 20
N_PROBES = 8
N_POINTS, N_DIRECTIONS, RADIUS = 256, 25, 0.05


def _hessian(s: Shared):
    """The product of the Hessian with a flat vector, and that vector's length."""
    flat, unravel = ravel_pytree(s.params)
    gradient = jax.grad(lambda flat: s.loss_fn(unravel(flat)))
    return lambda v: jax.jvp(gradient, (flat,), (v,))[1], flat.size


def _unit(v):
    """v / |v|, or zeros if there is nothing left of v."""
    size = jnp.linalg.norm(v)
    return jnp.where(size > 0, v / jnp.where(size > 0, size, 1), 0)


def krylov(
    product: Callable[[Float[Array, " W"]], Float[Array, " W"]], start: Float[Array, " W"], n: int
) -> Float[Array, " n"]:
    """Ritz values in the space spanned by start, H start, H² start, …: n products, orthogonalised in full.

    Returns:
      Ascending; where the space has fewer dimensions, its first Rayleigh quotient takes their places.
    """

    def step(i, carry):
        basis, images = carry
        image = product(basis[i])
        images = images.at[i].set(image)
        rest = image
        for _ in range(2):  # once leaves rounding errors that grow
            rest = rest - basis.T @ (basis @ rest)
        # Of a space that H maps into itself only rounding errors are left.
        rest = jnp.where(jnp.linalg.norm(rest) > 1e-5 * jnp.linalg.norm(image), _unit(rest), 0)
        return basis.at[i + 1].set(rest, mode="drop"), images

    empty = jnp.zeros((n, start.size), start.dtype)
    basis, images = jax.lax.fori_loop(0, n, step, (empty.at[0].set(_unit(start)), empty))
    small = basis @ images.T
    found = jnp.sum(basis**2, 1) > 0.5
    return jnp.linalg.eigvalsh((small + small.T) / 2 + jnp.diag(jnp.where(found, 0, small[0, 0])))


@measure(
    "curvature",
    unit="nats",
    slow=True,
    description="Largest eigenvalue of the training loss's Hessian by all parameters: largest Ritz value of"
    f" {N_LANCZOS} Lanczos steps from a fixed start, a lower bound.",
    source="Cohen et al. 2021, App. (edge of stability)",
)
def hessian_top(s: Shared):
    product, n = _hessian(s)
    start = jax.random.normal(jax.random.key(0), (n,), ravel_pytree(s.params)[0].dtype)
    return krylov(product, start, N_LANCZOS)[-1]


@measure(
    "curvature",
    unit="nats",
    slow=True,
    description="Trace of the training loss's Hessian by all parameters, estimated as the mean of v·Hv over"
    f" {N_PROBES} fixed vectors v of ±1.",
    source="Hutchinson 1990",
)
def hessian_trace(s: Shared):
    product, n = _hessian(s)
    probes = jax.random.rademacher(jax.random.key(1), (N_PROBES, n), ravel_pytree(s.params)[0].dtype)
    return jnp.mean(jax.lax.map(lambda v: v @ product(v), probes))


def frame(n_inputs: int) -> Float[np.ndarray, "V n_inputs"]:
    """Fixed orthonormal directions in the space of all positions' inputs: 25, or as many as there are."""
    drawn = np.random.default_rng(0).normal(size=(n_inputs, min(N_DIRECTIONS, n_inputs)))
    return np.linalg.qr(drawn)[0].T


def points(p: int) -> Int[np.ndarray, " B"]:
    """Fixed pairs around which to look: 256, or as many as there are."""
    return np.random.default_rng(0).choice(p * p, min(N_POINTS, p * p), replace=False)


def _signs(net: model.Transformer, x_BxTxD):
    """Whether each neuron's pre-activation above the last token is positive, over all layers: bool [B, layers · M]."""
    found = []
    for block in net.blocks:
        mid_BxTxD = block.mid(x_BxTxD)
        found.append(block.pre(mid_BxTxD[:, -1]) > 0)
        x_BxTxD = block.after(mid_BxTxD)
    return jnp.concatenate(found, 1)


def _crossings(net: model.Transformer, x_TxD, directions_VxTxD):
    offsets_VxTxD = RADIUS * jnp.linalg.norm(x_TxD) * directions_VxTxD
    signs_VxM = _signs(net, jnp.concatenate([x_TxD + offsets_VxTxD, x_TxD - offsets_VxTxD]))
    return jnp.sum(jnp.any(signs_VxM, 0) & ~jnp.all(signs_VxM, 0))


@measure(
    "curvature",
    unit="neurons",
    range="[0, n_layers d_mlp]",
    slow=True,
    description=f"How many pre-activations above the last token change sign among the {2 * N_DIRECTIONS} corners x ± r"
    f" v of a neighbourhood of the embedded positions x (r = {RADIUS} |x|, {N_DIRECTIONS} fixed orthonormal v), mean"
    f" over {N_POINTS} fixed pairs (or all, if fewer).",
    source="Humayun et al. 2024 (there around images, with r not relative)",
    transformer_only=True,
)
def local_complexity(s: Shared):
    net = model.module(s.cfg, s.params)
    x_BxTxD = net.embedded(jnp.asarray(points(s.cfg.p)))
    n_ctx, d_model = s.cfg.n_ctx, s.cfg.d_model
    directions = jnp.asarray(frame(n_ctx * d_model), x_BxTxD.dtype).reshape(-1, n_ctx, d_model)
    counts_B = jax.lax.map(partial(_crossings, net, directions_VxTxD=directions), x_BxTxD, batch_size=16)
    return jnp.mean(counts_B)
