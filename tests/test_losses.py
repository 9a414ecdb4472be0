"""Small losses are exact, in float32, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax.core import losses

N_CLASSES = 11


@jax.jit
def loss_and_gradient(logits, labels):
    loss, back = jax.vjp(losses.cross_entropy, logits, labels)
    return loss, back(jnp.ones_like(loss))[0]


@jax.jit
def optax_s(logits, labels):
    loss, back = jax.vjp(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels), logits)
    return loss, back(jnp.ones_like(loss))[0]


def check(logits, labels, rtol):
    """Loss and gradient of float32 logits against exact formulas in long double, entry by entry."""
    logits = np.asarray(logits, np.float32)
    loss, gradient = map(np.asarray, loss_and_gradient(logits, labels))
    assert loss.dtype == gradient.dtype == np.float32
    for got, exact in (
        (loss, oracle.cross_entropy(logits, labels)),
        (gradient, oracle.cross_entropy_gradient(logits, labels)),
    ):
        # Below float32's smallest normal number there are no digits left to be right.
        np.testing.assert_allclose(got, exact.astype(np.float64), rtol=rtol, atol=2e-38)
    return loss


def some_logits(margin, n=64, seed=0):
    """Random logits, the right one raised by `margin`."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, N_CLASSES)), rng.integers(0, N_CLASSES, n)
    logits[np.arange(n), labels] += margin
    return logits, labels


@pytest.mark.parametrize("margin", [0, 5, 10, 20, 30, 40, 50, 60, 70, 80])
def test_loss_and_gradient_are_exact_down_to_1e_30(margin):
    loss = check(*some_logits(margin), rtol=2e-5)
    assert np.all(loss > 0)
    if margin == 70:
        assert np.max(loss) < 1e-26
        assert np.min(loss) < 1e-29


def test_the_usual_formula_would_fail_here():
    logits, labels = some_logits(30)
    usual = optax.softmax_cross_entropy_with_integer_labels(np.float32(logits), labels)
    assert np.sum(usual == 0) > len(labels) // 2
    assert np.all(check(logits, labels, rtol=2e-5) > 0)


@pytest.mark.parametrize("margin", [-1, -10, -100])
def test_wrong_answers(margin):
    loss = check(*some_logits(margin), rtol=2e-5)
    assert np.mean(loss) > -margin


@pytest.mark.parametrize("level", [100, -300, 1e3, 1e4])
@pytest.mark.parametrize("margin", [0, 18, 40])
def test_a_common_level_of_the_logits_costs_no_digits(level, margin):
    logits, labels = some_logits(margin)
    check(np.float32(logits) + np.float32(level), labels, rtol=1e-5)


@pytest.mark.parametrize("right", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("wrong", [-1e4, 0.0, 1e4])
def test_no_nan_at_extremes(right, wrong):
    logits, labels = np.full((2, N_CLASSES), wrong, np.float32), np.array([0, 3])
    logits[np.arange(2), labels] = right
    check(logits, labels, rtol=1e-5)
    loss, gradient = loss_and_gradient(logits, labels)
    assert np.all(np.isfinite(loss))
    assert np.all(np.isfinite(gradient))


def test_equal_logits_give_log_of_their_number():
    loss = losses.cross_entropy(jnp.full((3, N_CLASSES), 7.0), jnp.arange(3))
    np.testing.assert_allclose(loss, np.log(N_CLASSES), rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_equals_optax_on_ordinary_logits(seed, scale):
    logits, labels = some_logits(0, n=16, seed=seed)
    logits = np.float32(scale * logits)
    (loss, gradient), (usual, usual_gradient) = loss_and_gradient(logits, labels), optax_s(logits, labels)
    np.testing.assert_allclose(loss, usual, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, usual_gradient, atol=5e-6)


def test_gradient_entries_sum_to_zero_and_have_their_signs():
    logits, labels = some_logits(25)
    gradient = np.asarray(loss_and_gradient(np.float32(logits), labels)[1], np.float64)
    right = gradient[np.arange(len(labels)), labels]
    assert np.all(right < 0)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-6 * np.abs(right).max())
    assert np.sum(gradient > 0) == gradient.size - len(labels)


def test_gradient_of_a_mean_carries_the_weights():
    logits, labels = map(np.asarray, some_logits(12, n=8))
    weights = np.linspace(0, 1, 8).astype(np.float32)
    gradient = jax.grad(lambda x: jnp.sum(weights * losses.cross_entropy(x, labels)))(np.float32(logits))
    exact = weights[:, None] * oracle.cross_entropy_gradient(np.float32(logits), labels)
    np.testing.assert_allclose(gradient, exact.astype(np.float64), rtol=2e-5)


def test_same_under_vmap_and_without_jit():
    logits, labels = some_logits(20, n=12)
    logits = np.float32(logits)
    in_threes = jax.vmap(loss_and_gradient)(logits.reshape(3, 4, -1), labels.reshape(3, 4))
    for got, alone in zip(in_threes, loss_and_gradient(logits, labels), strict=True):
        np.testing.assert_allclose(got.reshape(alone.shape), alone, rtol=2e-5)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), loss_and_gradient(logits, labels)[0], rtol=2e-5)


def test_correct():
    logits = np.array([[0.0, 1.0, -1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 5.0]], np.float32)
    assert losses.correct(logits, np.array([1, 1, 2])).tolist() == [True, False, True]
