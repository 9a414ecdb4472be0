"""The shapes and dtypes that signatures tell are those that there are; nothing else checks them."""

import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_case
from jaxtyping import AbstractArray, jaxtyped

from grokjax.core import fourier, losses, model
from grokjax.core.native import kernels
from grokjax.measures import marginals, vectors
from grokjax.measures.shared import Shared

CASE = random_case(p=7, d_model=12, n_heads=3, d_mlp=10)
CFG, P, K = CASE.cfg, 7, 3
PARAMS = {name: jnp.asarray(x) for name, x in CASE.params.items()}
PAIRS_B, GRID_NxC = jnp.arange(4), jnp.ones((P * P, 5))


def fits(value, hint) -> bool:
    """Whether a value is what its annotation says, sizes as in the values before it."""
    if typing.get_origin(hint) is tuple:
        hints = typing.get_args(hint)
        hints = hints[:1] * len(value) if hints[-1] is ... else hints
        return len(value) == len(hints) and all(map(fits, value, hints))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return fits_fields(value)
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return isinstance(value, hint)
    return True


def fits_fields(value) -> bool:
    return all(fits(getattr(value, name), hint) for name, hint in typing.get_type_hints(type(value)).items())


def check(function, *args):
    """Calls a function; its arguments and its result have the shapes of its signature."""
    hints = typing.get_type_hints(function)
    given = inspect.signature(function).bind(*args).arguments
    result = function(*args)
    with jaxtyped("context"):
        for name, value in given.items():
            assert fits(value, hints.get(name)), f"{name}: {np.shape(value)} is no {hints[name]}"
        assert fits(result, hints["return"]), f"{jax.tree.map(np.shape, result)} is no {hints['return']}"


CALLS = [
    (fourier.basis, P),
    (fourier.transform, jnp.ones((P, 5))),
    (fourier.inverse, jnp.ones((P, 5, 2))),
    (fourier.per_freq, jnp.ones((P, 5))),
    (fourier.per_component, jnp.ones(K), P),
    (fourier.norms, jnp.ones((P, 5))),
    (fourier.sum_index, P),
    (fourier.sums, P),
    (fourier.sum_mean, GRID_NxC, P),
    (losses.cross_entropy, jnp.ones((4, P)), PAIRS_B),
    (losses.cross_entropy_of, jnp.ones((4, P)), jnp.ones(4)),
    (losses.correct, jnp.ones((4, P)), PAIRS_B),
    (model.tokens, PAIRS_B, P),
    (model.tables, CFG, PARAMS),
    (model.attend, CFG, model.tables(CFG, PARAMS), model.lookup(PAIRS_B, P)),
    (model.factored, CFG, PARAMS, model.lookup(PAIRS_B, P)),
    (model.token_by_token, CFG, PARAMS, model.lookup(PAIRS_B, P)),
    (model.forward_grid, CFG, PARAMS),
    (model.neuron_to_logit, CFG, PARAMS),
    (kernels.tokens, PAIRS_B, jnp.arange(P * P), P),
    (kernels.rows, CFG, model.tables(CFG, PARAMS)),
    (marginals.spectra, GRID_NxC, P),
    (marginals.energy, tuple(marginals.spectra(GRID_NxC, P)[2:])),
    (marginals.keep, marginals.spectra(GRID_NxC, P), jnp.arange(K) > 0),
    (vectors.norm, [GRID_NxC]),
    (vectors.entropy_rank, jnp.ones(5)),
]


@pytest.mark.parametrize(
    ("function", "args"), [(function, args) for function, *args in CALLS], ids=lambda x: getattr(x, "__name__", "")
)
def test_functions(function, args):
    check(function, *args)


@pytest.mark.long
def test_shared_intermediates_agree_on_every_size():
    s = Shared(CFG, 1, PARAMS, jnp.asarray(CASE.train_pairs), jnp.asarray(CASE.answers), update_fn=dict)
    hints = {}
    for name, value in vars(Shared).items():
        getter = getattr(value, "func", None) or getattr(value, "fget", None)
        if getter and not name.startswith("_"):
            hints[name] = typing.get_type_hints(getter)["return"]
    assert len(hints) > 30
    with jaxtyped("context"):
        for name, hint in hints.items():
            assert fits(getattr(s, name), hint), f"{name} is no {hint}"


def test_a_wrong_shape_is_seen():
    """The tests above can fail."""
    hints = typing.get_type_hints(losses.correct)
    with jaxtyped("context"):
        assert fits(jnp.ones((4, P)), hints["logits_BxC"])
        assert not fits(jnp.arange(5), hints["labels_B"])
        assert not fits(jnp.ones(4), hints["return"])
