"""The Fourier basis, sum directions and anti-diagonal averages against their definitions."""

import math

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grokjax.core import fourier

SIZES = [*range(2, 21), 53, 113]
FEW = st.sampled_from([3, 4, 7, 12, 13])  # each size is compiled anew


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("p", SIZES)
def test_basis_is_orthonormal_and_is_the_definition(p):
    basis = fourier.basis(p)
    assert basis.dtype == np.float64
    assert basis.shape == (p, p)
    np.testing.assert_allclose(basis @ basis.T, np.eye(p), atol=2e-14)
    np.testing.assert_allclose(basis, oracle.basis(p), atol=1e-13)


def test_basis_is_shared_and_so_cannot_be_written_to():
    assert fourier.basis(7) is fourier.basis(7)
    with pytest.raises(ValueError, match="read-only"):
        fourier.basis(7)[0, 0] = 1


@pytest.mark.parametrize("p", SIZES)
def test_n_freqs(p):
    assert fourier.n_freqs(p) == len(oracle.freqs(p))
    # With the constant they make up the whole basis.
    assert 1 + sum(fourier.freq_sizes(p)) == p
    assert [len(oracle.waves(p, k)) for k in oracle.freqs(p)] == fourier.freq_sizes(p).tolist()


@pytest.mark.parametrize("p", SIZES)
def test_no_shift_mixes_two_blocks_and_each_is_mixed_in_itself(p):
    """Irreducible: shifts turn any function of a block into all of them."""
    harmonics = fourier.harmonics(p)
    turned = np.einsum("in,jsn->sij", harmonics.basis, harmonics.basis[:, (np.arange(p)[:, None] + np.arange(p)) % p])
    reached = np.max(np.abs(turned), 0) > 1e-9
    np.testing.assert_array_equal(reached, harmonics.block_of_row[:, None] == harmonics.block_of_row)


def test_blocks_of_unlike_sizes():
    """As of a group whose irreps have unlike dimensions: 1, 1 and 2² = 4 rows."""
    harmonics = fourier.Harmonics(np.eye(6), (1, 1, 4))
    c = np.array([100.0, 10.0, 1.0, 2.0, 3.0, 4.0], np.float32)
    assert harmonics.per_block(c).tolist() == [10, 10]
    assert harmonics.per_row(jnp.array([7.0, 8.0])).tolist() == [0, 7, 8, 8, 8, 8]
    assert harmonics.rows.tolist() == [[1, 6, 6, 6], [2, 3, 4, 5]]
    np.testing.assert_array_equal(fourier.with_zero_row(c)[harmonics.rows], [[10, 0, 0, 0], [1, 2, 3, 4]])


@given(FEW, st.integers(0, 2**32 - 1))
def test_transform_keeps_squares_and_inverts(p, seed):
    x = random(p, 3, seed=seed)
    c = fourier.transform(x)
    assert c.dtype == np.float32
    np.testing.assert_allclose(c, oracle.basis(p) @ x.astype(np.float64), atol=1e-5)
    np.testing.assert_allclose(np.sum(c**2, 0), np.sum(x**2, 0), rtol=1e-5)
    np.testing.assert_allclose(fourier.inverse(c), x, atol=1e-5)
    np.testing.assert_allclose(fourier.transform(fourier.inverse(x)), x, atol=1e-5)


@given(FEW, st.data())
def test_a_single_wave_has_a_single_frequency(p, data):
    k = data.draw(st.integers(1, fourier.n_freqs(p)))
    phase = data.draw(st.floats(0, 6.28))
    x = np.cos(2 * np.pi * k * np.arange(p) / p + phase).astype(np.float32)
    size = p * math.cos(phase) ** 2 if 2 * k == p else p / 2
    assume(size > 0.1)
    squares = np.asarray(fourier.per_freq(fourier.transform(x) ** 2))
    assert np.argmax(squares) == k - 1
    np.testing.assert_allclose(squares, size * (np.arange(len(squares)) == k - 1), atol=1e-4)


@given(FEW, st.integers(0, 100))
def test_a_shift_moves_phases_and_leaves_norms(p, shift):
    x = random(p, 3, seed=p)
    np.testing.assert_allclose(fourier.norms(np.roll(x, shift, 0))[1], fourier.norms(x)[1], rtol=1e-4)


@pytest.mark.parametrize("p", SIZES)
def test_norms(p):
    x = random(p, 5)
    components, per_freq = fourier.norms(x)
    expected = oracle.fourier_norms(x)
    np.testing.assert_allclose(components, expected[0], rtol=1e-5)
    np.testing.assert_allclose(per_freq, expected[1], rtol=1e-5)


@pytest.mark.parametrize("p", SIZES)
def test_per_freq_and_per_component(p):
    expected = [0.0, *(float(k) for k in oracle.freqs(p) for _ in oracle.waves(p, k))]
    c = np.array([1e6, *expected[1:]])
    assert np.asarray(fourier.per_freq(c)).tolist() == [len(oracle.waves(p, k)) * k for k in oracle.freqs(p)]
    f = jnp.array([float(k) for k in oracle.freqs(p)])
    assert np.asarray(fourier.per_component(f, p)).tolist() == expected


def test_per_freq_keeps_further_axes():
    x = random(7, 3, 2)
    np.testing.assert_allclose(fourier.per_freq(x), [x[1] + x[2], x[3] + x[4], x[5] + x[6]], rtol=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("p", [2, 3, 4, 7, 12, 13])
def test_sum_index_and_sums(p, direction):
    expected = [{a * p + b for a in range(p) for b in range(p) if (a + direction * b - s) % p == 0} for s in range(p)]
    index = fourier.sum_index(p, direction)
    assert [set(row) for row in index.tolist()] == expected
    assert index.shape == (p, p)
    sums = fourier.sums(p, direction)
    assert [set(np.flatnonzero(sums == s).tolist()) for s in range(p)] == expected
    assert index.dtype == sums.dtype == np.int32


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("p", [3, 4, 5, 8, 11, 12, 23])
def test_sum_mean_is_the_projection_on_constant_and_sum_directions(p, direction):
    grid = random(p * p, 3, seed=p)
    directions = [oracle.constant_direction(p), *(oracle.sum_directions(p, k, direction) for k in oracle.freqs(p))]
    directions = np.concatenate(directions)
    np.testing.assert_allclose(directions @ directions.T, np.eye(p), atol=1e-12)
    mean = fourier.sum_mean(grid, p, direction)
    assert mean.shape == (p, 3)
    np.testing.assert_allclose(mean[fourier.sums(p, direction)], oracle.project(grid, directions), atol=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_transform_of_sum_mean_gives_each_coefficient(direction):
    p = 13
    grid = random(p * p, 4)
    spectrum = np.asarray(fourier.transform(fourier.sum_mean(grid, p, direction)))
    for k in oracle.freqs(p):
        # The unit vector of the grid is 1/√P times the one-dimensional one, repeated over P pairs of each sum.
        coefficients = oracle.sum_directions(p, k, direction) @ grid / np.sqrt(p)
        np.testing.assert_allclose(spectrum[2 * k - 1 : 2 * k + 1], coefficients, atol=1e-6)


@given(st.sampled_from([1, -1]), FEW, st.integers(0, 2**32 - 1))
def test_sum_mean_keeps_functions_of_the_sum(direction, p, seed):
    of_sum = random(p, 2, seed=seed)
    grid = np.array([of_sum[(a + direction * b) % p] for a in range(p) for b in range(p)])
    np.testing.assert_allclose(fourier.sum_mean(grid, p, direction), of_sum, atol=1e-6)
