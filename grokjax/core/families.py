"""Model families: what config.model.architecture can name. `core.model` registers the transformer and the MLP.

Size letters: B pairs, P residues, M d_mlp, X whatever an embedding holds of a token.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from grokjax.core.pairs import lookup
from grokjax.errors import InputError, refuse_clash, unknown

if TYPE_CHECKING:
    from grokjax.core.architecture import ModelConfig

EMBEDDING, SECOND, UNEMBEDDING = "embed.W_E", "embed_b.W_E", "unembed.W_U"  # keys that measures read


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
      init: of the shape, a key and init_scale, to the initial parameters by key.
      forward: of the shape, the parameters, pairs and a key or None, to logits [B, P] and neurons [B, M].
    """

    init: Callable
    forward: Callable


FAMILIES: dict[str, Family] = {}


def register(function=None, *, init: Callable, name: str | None = None):
    """Adds a model family under the name of its forward pass, or under `name`.

    Args:
      function: the forward pass: of `cfg` (`ModelConfig`, with p, d_model, d_mlp, n_layers, act, …), the parameters,
        `pairs` (`model.spread(pairs, a_PxX, b_PxX)` looks up the rows of their tokens in two tables), and a key, from
        which a training step with dropout draws, or None. Returns logits [B, P] and the neurons [B, d_mlp] that W_U, or
        what stands before it, reads; JAX code that `jax.grad` can differentiate.
      init: of `cfg`, a JAX key and `init_scale`, a factor on every weight (both traced), to a flat dict of parameters.
        Measures read "embed.W_E" [P or more, X], where b has its own also "embed_b.W_E", and "unembed.W_U" [d_mlp, P].
      name: the name for `config.model.architecture`; that of the function by default.

    Returns:
      The function, unchanged.

    Raises:
      InputError: the name is taken by another function.

    Example:
      >>> def init(cfg, key, init_scale):
      ...     e, u = jax.random.split(key)
      ...     W_E = jax.random.normal(e, (cfg.p, cfg.d_mlp)) * init_scale
      ...     return {"embed.W_E": W_E, "unembed.W_U": jax.random.normal(u, (cfg.d_mlp, cfg.p)) * init_scale}
      >>> @register(init=init)
      ... def product(cfg, params, pairs, key=None):
      ...     a_BxM, b_BxM = model.spread(pairs, params["embed.W_E"], params["embed.W_E"])
      ...     return a_BxM * b_BxM @ params["unembed.W_U"], a_BxM * b_BxM
      >>> "product" in FAMILIES
      True
    """
    if function is None:
        return functools.partial(register, init=init, name=name)
    name = name or function.__name__
    if name in FAMILIES:
        refuse_clash(f"model '{name}'", FAMILIES[name].forward, function)
    FAMILIES[name] = Family(init, function)
    return function


def get(name: str) -> Family:
    """The family of that name.

    Raises:
      InputError: there is none; names the known ones.
    """
    if name not in FAMILIES:
        raise unknown("config.model.architecture", name, FAMILIES)
    return FAMILIES[name]


def shapes(cfg: "ModelConfig") -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, by key; nothing is allocated."""
    return {key: leaf.shape for key, leaf in _abstract(cfg).items()}


def _abstract(cfg: "ModelConfig") -> dict[str, jax.ShapeDtypeStruct]:
    init = get(cfg.architecture).init
    return jax.eval_shape(lambda: init(cfg, jax.random.key(0), jnp.float32(1)))


def n_parameters(cfg: "ModelConfig") -> int:
    """The number of weights."""
    return sum(map(math.prod, shapes(cfg).values()))


def token_embedding(cfg: "ModelConfig", params) -> jax.Array:
    """What measures of W_E read: its rows of the P residues, with those of b beside them where b has its own."""
    return jnp.concatenate([jnp.asarray(params[name])[: cfg.p] for name in (EMBEDDING, SECOND) if name in params], 1)


def check(cfg: "ModelConfig") -> None:
    """Traces a family of one's own, and holds what it returns against what training and measures read of it.

    Raises:
      InputError: it fails, lacks a parameter, or one of its arrays has another shape.
    """
    _check(cfg, get(cfg.architecture))


@functools.lru_cache(maxsize=256)
def _check(cfg: "ModelConfig", family: Family) -> None:
    n, p, m = 3, cfg.p, cfg.d_mlp  # a number of pairs that is nobody's size
    try:
        params = _abstract(cfg)
        pairs_B = jax.ShapeDtypeStruct((n,), jnp.int32)
        found = jax.eval_shape(lambda w, i: family.forward(cfg, w, lookup(i, p), None), params, pairs_B)
        logits, neurons = (list(x.shape) for x in found)
    except InputError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"model '{cfg.architecture}' failed with {type(error).__name__}: {said}") from error
    W_E, W_U = (list(params[key].shape) if key in params else "not there" for key in (EMBEDDING, UNEMBEDDING))
    wanted = (
        ("its logits for 3 pairs", logits, [n, p], logits == [n, p]),
        ("its neurons for 3 pairs", neurons, [n, m], neurons == [n, m]),
        (UNEMBEDDING, W_U, [m, p], [m, p] == W_U),
        (EMBEDDING, W_E, f"[{p} or more, X]", isinstance(W_E, list) and len(W_E) == 2 and W_E[0] >= p),
    )
    for what, given, right, holds in wanted:
        if not holds:
            raise InputError(
                f"model '{cfg.architecture}': {what} must be {right} (P {p}, d_mlp {m}), but it is {given}."
            )
