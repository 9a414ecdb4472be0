"""A one-layer model's logits and the gradient of its loss on a CPU, by C++ (kernels.cc) that stays in a core's caches.

A pair's pre-activations, and what reaches its logits past the MLP, are sums of table rows, one for each token and
head, weighted by attention: two products less per pair, forward and twice backward. What is left are the products with
W_L = W_U W_out, the softmax, and these sums. Size letters as in `core.model`, N some pairs or all P² of them; Y is the
columns of the rows: the neurons, filled up with zeros to a multiple of 32, and then the logits, filled up to a multiple
of 16.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from grokjax.core.model import ModelConfig, Params, Tables, tables
from grokjax.core.native import build

MOST_PARTS = 8  # of the pairs, on as many threads: each has tables of its own to add to, which takes time


class Rows(NamedTuple):
    """Products of one layer's parameters, multiplied out until only sums over heads are left for a pair.

    The weights that attention gives to a, b and "=" add up to 1, so the rows of a and b are differences from "="'s,
    whose own rows are in the bias.
    """

    score_a_PxH: Float[Array, "P H"]
    score_b_PxH: Float[Array, "P H"]
    score_last_H: Float[Array, " H"]
    row_a_HxPxY: Float[Array, "H P Y"]
    row_b_HxPxY: Float[Array, "H P Y"]
    bias_Y: Float[Array, " Y"]
    out_PxM: Float[Array, "P M"]


class Tokens(NamedTuple):
    """The training pairs, in an order in which one and the same first token's rows are used again and again."""

    a: Int[Array, " N"]
    b: Int[Array, " N"]
    labels: Int[Array, " N"]


@functools.cache
def unavailable() -> str:
    """The reason why there is no C++ to use, in words; empty if there is."""
    try:
        _targets()
    except build.Unavailable as error:
        return str(error)
    return ""


def identity() -> str | None:
    """The compiler and sources that the bits of the C++ depend on, in a line; None where there is none."""
    return None if unavailable() else build.identity()


LEAST_HEAD = 4  # with narrower heads, sums of rows cost what products do


def suits(cfg: ModelConfig) -> bool:
    """Whether the C++ is made for such a model."""
    return not unsuited(cfg)


def unsuited(cfg: ModelConfig) -> str:
    """What the C++ is made for and such a model is not, in words; "" if it suits."""
    reasons = {
        "transformers": cfg.is_transformer,
        "one layer": cfg.n_layers == 1,
        "relu": cfg.act == "relu",
        "the paper's architecture": not cfg.is_transformer or cfg.is_plain,
        f"heads of {LEAST_HEAD} or more dimensions": cfg.d_head >= LEAST_HEAD,
        "float32, not JAX_ENABLE_X64": jnp.result_type(float) == jnp.float32,
    }
    return ", ".join(name for name, holds in reasons.items() if not holds)


@functools.cache
def _targets() -> dict[str, str]:
    """The names that XLA knows the library's functions by; those of another library have other names."""
    names = {}
    for name in ("grokjax_gradient", "grokjax_forward"):
        names[name] = f"{name}_{build.identity().rsplit(' ', 1)[1]}"
        jax.ffi.register_ffi_target(names[name], jax.ffi.pycapsule(getattr(build.library(), name)), platform="cpu")
    return names


def _call(name: str, results, pairs: Tokens, r: Rows, **attributes):
    return jax.ffi.ffi_call(_targets()[name], results, vmap_method="broadcast_all")(*pairs, *r, **attributes)


def tokens(pairs_N: Int[Array, " N"], answers: Int[Array, " grid"], p: int) -> Tokens:
    """Sorts pairs, numbered a * P + b, so that rows stay in the cache, and picks their answers from all P²."""
    pairs_N = jnp.sort(pairs_N)
    return Tokens(pairs_N // p, pairs_N % p, jnp.asarray(answers)[pairs_N])


def rows(cfg: ModelConfig, t: Tables) -> Rows:
    """A model's rows, from its tables."""
    p, h, e = cfg.p, cfg.n_heads, cfg.d_head
    spare_M, spare_P = -cfg.d_mlp % 32, -p % 16
    in_DxY = jnp.concatenate(
        [jnp.pad(t.in_DxM, ((0, 0), (0, spare_M))), jnp.pad(t.skip_PxD.T, ((0, 0), (0, spare_P)))], 1
    )
    bias_Y = jnp.concatenate([jnp.pad(t.in_M, (0, spare_M)), jnp.pad(t.skip_P, (0, spare_P))])
    in_HxExY, last_HxE = in_DxY.reshape(h, e, -1), t.last_X[h:].reshape(h, e)
    row_a, row_b = (
        jnp.einsum("phe,hey->hpy", x[:, h:].reshape(p, h, e) - last_HxE, in_HxExY) for x in (t.a_PxX, t.b_PxX)
    )
    return Rows(
        score_a_PxH=t.a_PxX[:, :h],
        score_b_PxH=t.b_PxX[:, :h],
        score_last_H=t.last_X[:h],
        row_a_HxPxY=row_a,
        row_b_HxPxY=row_b,
        bias_Y=bias_Y + jnp.einsum("he,hey->y", last_HxE, in_HxExY),
        out_PxM=t.out_PxM,
    )


def of_rows(r: Rows, pairs: Tokens, n_parts: int = 1) -> Rows:
    """The gradient, by the rows, of the cross-entropy summed over the pairs.

    Args:
      r: float32.
      pairs: at least one.
      n_parts: of the pairs that several threads may take; the bits depend on it, on the number of threads they do not.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in r]
    return Rows(*_call("grokjax_gradient", shapes, pairs, r, n_parts=n_parts))


def gradient(cfg: ModelConfig, params: Params, pairs: Tokens, n_parts: int = 1) -> Params:
    """The gradient of the mean cross-entropy over the pairs by every parameter; `n_parts` as in `of_rows`."""
    found, pull_back = jax.vjp(lambda params: rows(cfg, tables(cfg, params)), params)
    sums = of_rows(found, pairs, n_parts)
    return pull_back(jax.tree.map(lambda x: x / pairs.labels.shape[-1], sums))[0]


def forward(cfg: ModelConfig, params: Params) -> tuple[Float[Array, "N P"], Float[Array, "N M"]]:
    """Runs `model.forward` on all P² pairs; it has no gradient.

    Returns:
      Logits, and MLP activations after ReLU.
    """
    a_N, b_N = jnp.divmod(jnp.arange(cfg.p**2, dtype=jnp.int32), cfg.p)
    results = [jax.ShapeDtypeStruct((cfg.p**2, n), jnp.float32) for n in (cfg.p, cfg.d_mlp)]
    return tuple(
        _call("grokjax_forward", results, Tokens(a_N, b_N, jnp.zeros_like(a_N)), rows(cfg, tables(cfg, params)))
    )
