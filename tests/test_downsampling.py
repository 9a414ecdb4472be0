"""Thinned curves and images: what stands out stays."""

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax.report import downsampling

values_with_gaps = st.sampled_from([0.0, 1e-8, 1e-3, 0.5, 7.0, np.nan, np.inf])
curves = npst.arrays(np.float64, st.integers(0, 300), elements=values_with_gaps)


@given(curves, st.integers(8, 60))
def test_a_thinned_curve_keeps_its_extremes_ends_and_gaps_at_their_steps(values, limit):
    kept = downsampling.kept(values, limit)
    assert len(kept) <= limit or len(kept) == len(values)
    assert (np.diff(kept) > 0).all()
    if len(values) == 0:
        return
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    finite = np.isfinite(values)
    assert finite.all() == np.isfinite(values[kept]).all()
    if finite.any():
        assert values[kept][np.isfinite(values[kept])].max() == values[finite].max()
        assert values[kept][np.isfinite(values[kept])].min() == values[finite].min()


@given(st.integers(100, 5_000), st.integers(8, 90), st.data())
def test_no_single_spike_vanishes(n, limit, data):
    values = np.ones(n)
    at = data.draw(st.integers(0, n - 1))
    values[at] = data.draw(st.sampled_from([0.5, 2.0, np.nan]))
    assert at in downsampling.kept(values, limit)


@given(
    npst.arrays(
        np.float32, st.tuples(st.integers(1, 90), st.integers(1, 6)), elements=st.floats(2**-10, 2**10, width=32)
    )
)
def test_an_image_is_within_half_a_level_and_keeps_every_peak(values):
    scale = downsampling.value_range([values])
    half = downsampling.level_ratio(scale) ** 0.5
    whole = downsampling.image(np.arange(len(values)), values, scale, 1_000)
    shown = scale[0] * (scale[1] / scale[0]) ** (whole.levels / 254)
    inside = values >= scale[0]
    np.testing.assert_array_less(np.abs(np.log(shown / values))[inside], np.log(half) * 1.001 + 1e-6)
    thinned = downsampling.image(np.arange(len(values)), values, scale, 8)
    np.testing.assert_array_equal(thinned.levels.max(0), whole.levels.max(0))
    assert len(thinned.steps) == min(8, len(values))
    assert set(thinned.steps) <= set(range(len(values)))


def test_missing_norms_have_a_level_of_their_own():
    values = np.array([[1.0, np.nan], [0.0, 4.0]])
    assert downsampling.image(np.arange(2), values, (1.0, 4.0), 9).levels.tolist() == [[0, 255], [0, 254]]
    assert downsampling.value_range([np.zeros((2, 2))]) is None


def test_thinning_by_hand():
    values = np.arange(12.0)
    values[4] = -1.0
    assert downsampling.kept(values, 12).tolist() == list(range(12))
    assert downsampling.kept(values, 11).tolist() == [0, 3, 4, 7, 8, 11]  # three stretches of four
    values[9] = np.nan
    assert downsampling.kept(values, 11).tolist() == [0, 3, 4, 7, 8, 9, 11]
    image = downsampling.image(10 * np.arange(5), np.array([[1.0], [10], [1], [1], [100]]), (1.0, 100.0), 2)
    assert image.steps.tolist() == [0, 30]
    assert image.levels.tolist() == [[127], [254]]
    assert downsampling.value_range([np.array([0.0, 2, np.nan]), np.array([8.0, np.inf])]) == (2, 8)
    assert downsampling.value_range([np.array([1e-9, 10.0])]) == (pytest.approx(1e-4), 10)
    assert downsampling.value_range([np.array([5.0])]) == (0.5, 5)
    assert downsampling.value_range([]) is None
    assert downsampling.level_ratio((1.0, 2.0**254)) == pytest.approx(2)
