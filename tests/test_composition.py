"""Logits read by the blocks of a group: against loops in float64, on random and on planted models."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_groups
import pytest

from grokjax import tasks
from grokjax.core import composition, fourier, losses
from grokjax.finite_groups import named

# Orders even and odd, abelian and not; types real, complex and quaternionic.
GROUPS = ["Z_7", "Z_8", "Z_2 x Z_4", "S_3", "A_4", "D_5", "Q_8", "Z_7 x Z_3"]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def random_logits(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n * n, n)) * 3


def masks(blocks):
    """Every block alone, none, all, and every other one."""
    n = len(blocks.sizes) - 1
    return [*np.eye(n, dtype=bool), np.zeros(n, bool), np.ones(n, bool), np.arange(n) % 2 == 0]


@pytest.mark.parametrize("name", GROUPS)
def test_restricted_and_excluded_logits_are_the_oracles(name):
    group = named(name)
    n, c = group.order, composition.of_task(tasks.get(f"group {name}"), group.order)
    grid = random_logits(n)
    train = [tuple(divmod(int(x), n)) for x in np.random.default_rng(1).choice(n * n, n * n // 2, replace=False)]
    numbers = np.array([a * n + b for a, b in train])
    spectrum = c.transform(c.mean(grid))
    by_block = oracle_groups.projections(c.blocks, group)

    @jax.jit
    @jax.vmap
    def both(keep):
        gone = c.excluded(grid, spectrum, keep)[numbers]
        found = losses.cross_entropy(c.restricted(spectrum, keep), jnp.arange(n))
        return jnp.mean(found), jnp.mean(losses.cross_entropy(gone, jnp.asarray(c.products[numbers])))

    every = np.array(masks(c.blocks))
    for keep, restricted, excluded in zip(every, *both(every), strict=True):
        kept = sum((p for p, k in zip(by_block[1:], keep, strict=True) if k), np.zeros((n, n)))
        expected = oracle_groups.restricted_loss(group.table, grid.reshape(n, n, n), kept + by_block[0])
        np.testing.assert_allclose(restricted, expected, rtol=1e-11)
        expected = oracle_groups.excluded_loss(group.table, grid.reshape(n, n, n), kept, train)
        np.testing.assert_allclose(excluded, expected, rtol=1e-11)


@pytest.mark.parametrize("name", GROUPS)
def test_parseval_over_blocks(name):
    """All of a function of a∘b is in the blocks; of any logits no more than there is."""
    c = composition.in_group(named(name))
    n, m = c.order, np.random.default_rng(2).normal(size=(c.order, c.order))
    of_product = m[c.products]
    spectrum = c.transform(c.mean(of_product))
    constant = n * np.sum(np.square(m.mean(0))) * n
    np.testing.assert_allclose(np.sum(c.squares(spectrum)) + constant, np.sum(of_product**2), rtol=1e-12)
    grid = random_logits(n)
    share = np.sum(c.squares(c.transform(c.mean(grid)))) / np.sum((grid - grid.mean()) ** 2)
    assert 0 < share < 1
    keep = np.ones(len(c.blocks.sizes) - 1, bool)
    np.testing.assert_allclose(c.restricted(spectrum, keep), m, atol=1e-12)
    np.testing.assert_allclose(c.excluded(of_product, spectrum, keep), np.tile(m.mean(0), (n * n, 1)), atol=1e-12)


@pytest.mark.parametrize("name", [*GROUPS, "S_4"])
def test_planted_characters_are_found(name):
    group = named(name)
    c = composition.in_group(group)
    n, k = group.order, len(c.blocks.sizes) - 1
    planted = np.where(np.arange(k) % 2 == 0, np.arange(1, k + 1.0), 0)
    logits = oracle_groups.planted(group, c.blocks, planted).reshape(n * n, n)
    np.testing.assert_allclose(logits.max(1), logits[np.arange(n * n), c.products], rtol=1e-12)
    spectrum = c.transform(c.mean(logits))
    np.testing.assert_allclose(c.coefficients(spectrum), planted, atol=1e-11)
    squares = c.character_squares(spectrum)
    np.testing.assert_allclose(np.sum(squares), np.sum(logits**2), rtol=1e-11)
    np.testing.assert_allclose(squares, c.squares(spectrum), atol=1e-9)
    assert ((squares > 1e-6) == (planted > 0)).all()
    # What is no function of a∘b∘c⁻¹ changes none of it.
    rng = np.random.default_rng(3)
    other = logits + rng.normal(size=n) + rng.normal(size=n * n)[:, None]
    np.testing.assert_allclose(c.coefficients(c.transform(c.mean(other))), planted, atol=1e-11)


@pytest.mark.parametrize("name", ["S_3", "Q_8", "A_4"])
def test_a_block_holds_more_than_its_character(name):
    """A function of a∘b and c in a block that is none of a∘b∘c⁻¹: the wrong answer by a fixed factor."""
    group = named(name)
    c = composition.in_group(group)
    n = group.order
    planted = oracle_groups.planted(group, c.blocks, np.ones(len(c.blocks.sizes) - 1)).reshape(n * n, n)
    x = int(np.argmax(group.table[1] != group.table[:, 1]))  # moves the classes: χ(a∘b∘x⁻¹∘c⁻¹)
    moved = planted[:, group.table[:, x]]
    spectrum = c.transform(c.mean(moved))
    np.testing.assert_allclose(c.squares(spectrum), c.squares(c.transform(c.mean(planted))), rtol=1e-10)
    assert np.sum(c.character_squares(spectrum)) < 0.9 * np.sum(moved**2)


@pytest.mark.parametrize("p", [7, 8])
@pytest.mark.parametrize(("task", "direction"), [("add", 1), ("subtract", -1)])
def test_modular_addition_is_todays_reading(p, task, direction):
    c = composition.of_task(tasks.get(task), p)
    assert np.array_equal(c.pairs, fourier.sum_index(p, direction))
    assert np.array_equal(c.products, fourier.sums(p, direction))
    grid = random_logits(p)
    mean = fourier.sum_mean(grid, p, direction)
    assert np.array_equal(c.mean(grid), mean)
    assert np.array_equal(c.transform(mean), fourier.transform(mean))


def test_multiplication_and_division_are_read_by_discrete_logarithms():
    p = 11
    log = {int(x): i for i, x in enumerate(composition.powers(p))}
    assert sorted(log) == list(range(1, p))
    for task, sign in (("multiply", 1), ("divide", -1)):
        c = composition.of_task(tasks.get(task), p)
        answers = tasks.answers(task, p)
        for number in range(p * p):
            a, b = divmod(number, p)
            if a == 0 or b == 0:
                assert c.products[number] == -1
            else:
                assert c.products[number] == (log[a] + sign * log[b]) % (p - 1) == log[int(answers[number])]
        assert (c.elements[c.products[c.pairs]] == answers[c.pairs]).all()
        # cos(w_k(log a ± log b - log c)) is one block, and what pairs or classes with a zero say is not read.
        k, logs = 3, np.arange(p - 1)
        wave = 2 * np.cos(2 * np.pi * k * (logs[:, None] - logs) / (p - 1))
        grid = np.random.default_rng(0).normal(size=(p * p, p)) * 1e3
        grid[np.ix_(c.pairs.ravel(), c.elements)] = wave[c.products[c.pairs.ravel()]]
        spectrum = c.transform(c.mean(grid))
        np.testing.assert_allclose(c.coefficients(spectrum), np.arange(1, p // 2 + 1) == k, atol=1e-12)
        gone = c.excluded(grid, spectrum, np.arange(1, p // 2 + 1) == k)
        np.testing.assert_allclose(gone[np.ix_(c.pairs.ravel(), c.elements)], 0, atol=1e-12)
        assert np.array_equal(gone[c.products < 0], grid[c.products < 0])
        assert np.array_equal(gone[:, 0], grid[:, 0])


def test_powers_are_those_of_the_smallest_primitive_root():
    assert composition.powers(7).tolist() == [1, 3, 2, 6, 4, 5]
    assert composition.powers(113)[1] == 3
    assert composition.powers(97)[1] == 5
    assert composition.powers(3).tolist() == [1, 2]


def test_the_mean_over_some_pairs():
    group = named("S_3")
    c = composition.in_group(group)
    grid, chosen = random_logits(6), np.arange(36) % 5 != 0
    mean, count = c.mean_of_some(grid, chosen)
    for s in range(6):
        pairs = [x for x in range(36) if chosen[x] and group.table[divmod(x, 6)] == s]
        assert count[s] == len(pairs)
        np.testing.assert_allclose(mean[s], grid[pairs].mean(0), rtol=1e-12)
    nothing, none = c.mean_of_some(grid, c.products != 2)
    assert none[2] == 0
    assert (nothing[2] == 0).all()


def test_tasks_that_are_no_composition_have_none():
    assert composition.of_task(tasks.get("quadratic"), 7) is None
    assert composition.of_task(tasks.get("random"), 7) is None
    found = composition.of_task(tasks.get("a^2 + 2*a*b + b^2"), 7)  # a function of a + b
    assert np.array_equal(found.products, fourier.sums(7, 1))


@pytest.mark.parametrize("name", ["Q_8", "A_4"])
def test_under_jit_and_vmap_it_is_the_same(name):
    c = composition.in_group(named(name))
    grids = np.stack([random_logits(c.order, seed) for seed in (0, 1)])
    keep = np.arange(len(c.blocks.sizes) - 1) % 2 == 0

    def read(grid, keep):
        spectrum = c.transform(c.mean(grid))
        return c.restricted(spectrum, keep), c.squares(spectrum), c.coefficients(spectrum)

    together = jax.jit(jax.vmap(read, (0, None)))(grids, keep)
    for i, grid in enumerate(grids):
        for found, expected in zip(together, read(grid, keep), strict=True):
            np.testing.assert_allclose(found[i], expected, atol=1e-11)
