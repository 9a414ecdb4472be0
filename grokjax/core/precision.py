"""Precision of the products in a training step.

An accelerator has such products, most of them. A CPU multiplies in float32 whatever is asked of it, and a GPU loses
digits where a product takes several bfloat16 ones; in a program for one of these they are emulated: factors are rounded
(or split into rounded parts), products are summed in float32, which is what the hardware does.

| name | a factor is | bits of the significand |
| --- | --- | --- |
| float32 | itself | 24 |
| tensorfloat32 | rounded | 11 |
| bfloat16_6x | split in three, the six largest products kept | 24 |
| bfloat16_3x | split in two, the three largest products kept | 16 |
| bfloat16 | rounded | 8 |
"""

from collections.abc import Callable, Sequence

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from grokjax.core import platforms
from grokjax.errors import InputError

# By name: that of jax.default_matmul_precision. Algorithms, where there are any: JAX's own "tensorfloat32" and
# "bfloat16" are levels, which a GPU takes for float32 and TF32.
JAX_NAMES = {
    "float32": "highest",
    "tensorfloat32": "TF32_TF32_F32",
    "bfloat16_6x": "BF16_BF16_F32_X6",
    "bfloat16_3x": "BF16_BF16_F32_X3",
    "bfloat16": "BF16_BF16_F32",
}
# Where they are emulated: bits of the significand stored per part, and the pairs of parts whose products are summed,
# smallest first.
EMULATED = {
    "tensorfloat32": (10, ((0, 0),)),
    "bfloat16_6x": (7, ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0))),
    "bfloat16_3x": (7, ((1, 0), (0, 1), (0, 0))),
    "bfloat16": (7, ((0, 0),)),
}
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")  # primitives whose program is inlined


def lacking(platform: str) -> tuple[str, ...]:
    """The precisions that devices of this platform, as JAX names it, do not have."""
    return ("tensorfloat32",) if platform == "tpu" else ()


def require(name: str, platform: str) -> None:
    """Refuses a precision that the devices do not have.

    Raises:
      InputError: devices of this platform, as JAX names it, have no such products.
    """
    if name in (missing := lacking(platform)):
        others = ", ".join(other for other in JAX_NAMES if other not in missing)
        raise InputError(f"config.precision is {name}, which a {platform.upper()} does not have: it has {others}.")


def rounded(function: Callable, name: str) -> Callable:
    """Wraps a function so that its products have this precision: the device's own, or emulated ones where it has none.

    Emulated are all on a CPU, and on a GPU those that are split, by its own bfloat16 products of the parts.
    """
    if name not in EMULATED:
        return _of_device(function, name)
    if not _is_split(name):
        return lambda *args: platforms.choose(_emulated(function, name), _of_device(function, name), *args)
    of_gpu = _emulated(function, name, "bfloat16")

    def elsewhere(*args):
        return platforms.choose_gpu(of_gpu, _of_device(function, name), *args)

    return lambda *args: platforms.choose(_emulated(function, name), elsewhere, *args)


def unemulated(function: Callable, name: str) -> Callable:
    """Wraps a function so that its products have this precision where the device has it by itself, else float32."""
    if name not in EMULATED:
        return _of_device(function, name)
    exact, own = _of_device(function, "float32"), _of_device(function, name)
    if not _is_split(name):
        return lambda *args: platforms.choose(exact, own, *args)
    return lambda *args: platforms.choose(exact, lambda *args: platforms.choose_gpu(exact, own, *args), *args)


def _is_split(name: str) -> bool:
    """Whether products are sums over parts of the factors.

    On an H200 XLA's own lost what the smaller parts hold (jaxlib 0.11.2; the errors are in docs/performance.md).
    """
    return len(EMULATED[name][1]) > 1


def _emulated(function: Callable, name: str, parts: str = "float32") -> Callable:
    """A function with every product emulated, from products of the parts in a precision that holds these exactly."""

    def emulated(*args):
        with jax.default_matmul_precision(JAX_NAMES[parts]):
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        results = _evaluate(closed, jax.tree.leaves(args), name)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return emulated


def _of_device(function: Callable, name: str) -> Callable:
    def traced(*args):
        with jax.default_matmul_precision(JAX_NAMES[name]):
            return function(*args)

    return traced


def _evaluate(closed: jex.ClosedJaxpr, args: Sequence[jax.Array], name: str) -> list[jax.Array]:
    """A program's results, with every product emulated, those of the programs that it calls too."""
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))
    for eqn in jaxpr.eqns:
        given = [v.val if isinstance(v, jex.Literal) else values[v] for v in eqn.invars]
        results = _apply(eqn, given, name)
        values |= zip(eqn.outvars, results, strict=True)
    return [v.val if isinstance(v, jex.Literal) else values[v] for v in jaxpr.outvars]


def _apply(eqn, given: list, name: str) -> list[jax.Array]:
    params = eqn.params
    if eqn.primitive.name == "dot_general":
        return [_product(given[0], given[1], params, name)]
    if eqn.primitive.name == "scan":
        params = params | {"jaxpr": _rewritten(params["jaxpr"], name)}
    elif eqn.primitive.name == "cond":
        params = params | {"branches": tuple(_rewritten(branch, name) for branch in params["branches"])}
    elif eqn.primitive.name == "while":
        raise NotImplementedError("no products inside 'while' are emulated")
    elif eqn.primitive.name in CALLS:
        inner = params.get("jaxpr") or params["call_jaxpr"]
        closed = inner if isinstance(inner, jex.ClosedJaxpr) else jex.ClosedJaxpr(inner, ())
        return _evaluate(closed, given, name)
    results = eqn.primitive.bind(*given, **params)
    return results if eqn.primitive.multiple_results else [results]


def _rewritten(closed: jex.ClosedJaxpr, name: str) -> jex.ClosedJaxpr:
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *args: _evaluate(closed, args, name))(*shapes)


def _product(x: jax.Array, y: jax.Array, params, name: str) -> jax.Array:
    """lax.dot_general(x, y) from rounded parts."""
    n_bits, pairs = EMULATED[name]
    n_parts = 1 + max(i for i, _ in pairs)
    x_parts, y_parts = _split(x, n_bits, n_parts), _split(y, n_bits, n_parts)
    dot = jax.lax.dot_general_p
    terms = [dot.bind(x_parts[i], y_parts[j], **params) for i, j in pairs]
    return sum(terms[1:], terms[0])


def _split(x: jax.Array, n_bits: int, n_parts: int) -> list[jax.Array]:
    """x as a sum of parts with so many bits, largest first; what the last leaves over is dropped."""
    parts, left = [], jnp.asarray(x)
    for _ in range(n_parts):
        parts.append(jax.lax.reduce_precision(left, exponent_bits=8, mantissa_bits=n_bits))
        left = left - parts[-1]
    return parts
