import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokjax.phases import survival

# Remission times in weeks under 6-mercaptopurine (Freireich et al. 1963), the textbook example of censoring.
REMISSION = np.array([6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35], float)
RELAPSED = np.arange(REMISSION.size) < 9


# statsmodels 0.15.0, proportion_confint(method="wilson").
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 3, 0.0, 0.5614970317550455), (5, 10, 0.2365930905, 0.7634069095), (28, 30, 0.7867654164, 0.9815229762)],
)
def test_wilson(k, n, low, high):
    assert survival.wilson(k, n) == pytest.approx((low, high), abs=1e-9)
    assert survival.wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_wilson_of_no_runs():
    assert np.isnan(survival.wilson(0, 0)).all()


def test_six_runs_bracket_a_median():
    assert survival.few_runs() == 6
    assert 1 - 2 * 0.5**6 >= 0.95 > 1 - 2 * 0.5**5
    assert survival.few_runs(0.5) == 2


def test_survival_of_the_textbook_example():
    curve = survival.survival(REMISSION, RELAPSED).set_index("step")
    assert curve.loc[[6, 7, 10, 13, 16, 22, 23], "survival"].tolist() == pytest.approx(
        [0.85714286, 0.80672269, 0.75294118, 0.69019608, 0.62745098, 0.53781513, 0.44817927]  # statsmodels 0.15.0
    )
    assert curve.loc[[6, 10, 23], "at_risk"].tolist() == [21, 15, 6]
    assert survival.survival_median(REMISSION, RELAPSED) == 23
    median = survival.median_time(REMISSION, RELAPSED)
    assert median.value == 23
    assert 10 <= median.low <= 22
    assert np.isinf(median.high)
    assert median.runs == 21


def test_without_censoring_the_median_is_the_median():
    times = np.arange(1, 10) * 100.0
    assert survival.survival_median(times, np.ones(9, bool)) == 500
    assert np.isinf(survival.survival_median(times, np.zeros(9, bool)))
    assert np.isnan(survival.median_time([], []).value)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_median_is_read_off_the_survival_curve(runs):
    times, observed = (np.array(values) for values in zip(*runs, strict=True))
    curve = survival.survival(times, observed)
    below = curve.loc[curve["survival"] <= 0.5 + 1e-12, "step"]
    assert survival.survival_median(times, observed) == (below.iloc[0] if len(below) else np.inf)


def test_bootstrap_is_reproducible_and_covers():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(60):
        true = rng.exponential(1_000, 40)
        budget = rng.uniform(1_000, 3_000, 40)
        median = survival.median_time(np.minimum(true, budget), true <= budget, seed=seed, resamples=300)
        covered.append(median.low <= 1_000 * math.log(2) <= median.high)
    assert np.mean(covered) > 0.88  # of 95 %
    args = (np.minimum(true, budget), true <= budget)
    assert survival.median_time(*args, seed=1) == survival.median_time(*args, seed=1)


def expand(levels, wins, runs):
    """One entry per run from counts."""
    succeeded = np.concatenate([np.arange(n) < k for k, n in zip(wins, runs, strict=True)])
    return np.repeat(levels, runs), succeeded


def test_critical_value_of_a_published_shape():
    # Bins as in arXiv 2605.20441; statsmodels 0.15.0, GLM with a binomial family, gives the estimates.
    values, grokked = expand([0.001, 0.01, 0.02, 0.05, 0.1, 0.5], [0, 2, 16, 9, 10, 10], [10, 30, 20, 10, 10, 10])
    fit = survival.threshold(values, grokked, np.full(values.size, 100.0))
    assert fit.critical.value == pytest.approx(0.016483142540906753, rel=1e-6)
    assert fit.slope.value == pytest.approx(9.800990778, rel=1e-6)
    assert fit.critical.low < fit.critical.value < fit.critical.high
    assert (fit.critical.runs, fit.critical.warning) == (90, "")
    order = np.random.default_rng(0).permutation(values.size)
    shuffled = survival.threshold(values[order], grokked[order], np.full(values.size, 100.0))
    assert shuffled.critical.value == pytest.approx(fit.critical.value, rel=1e-12)


def test_a_logistic_curve_by_hand():
    # Odds of 1/3, 1 and 3 a decade apart: a slope of ln 3, and one half at the middle.
    values, grokked = expand([0.1, 1.0, 10.0], [2, 4, 6], [8] * 3)
    fit = survival.threshold(values, grokked, np.full(24, 100.0), resamples=200)
    assert fit.critical.value == pytest.approx(1, abs=1e-9)
    assert fit.slope.value == pytest.approx(math.log(3))
    assert (fit.critical.runs, fit.slope.runs) == (24, 24)
    # Of two values, the curve goes through both shares: ln 3 below zero, ln 7 above it.
    values, grokked = expand([0.1, 1.0], [2, 7], [8] * 2)
    fit = survival.threshold(values, grokked, np.full(16, 100.0), resamples=200)
    assert fit.slope.value == pytest.approx(math.log(3) + math.log(7))
    assert np.log10(fit.critical.value) == pytest.approx(math.log(3) / fit.slope.value - 1)


@pytest.mark.parametrize(
    ("wins", "value", "gap"),
    [([0, 6, 6], math.sqrt(2), (1, 2)), ([0, 0, 6], math.sqrt(8), (2, 4)), ([0, 3, 6], 2, (1, 4))],
)
def test_separated_runs_leave_a_gap(wins, value, gap):
    values, grokked = expand([1.0, 2.0, 4.0], wins, [6] * 3)
    fit = survival.threshold(values, grokked, np.full(18, 100.0), resamples=50)
    assert fit.critical[:4] == pytest.approx((value, *gap, 18))
    assert fit.critical.warning == (
        f"no run up to {gap[0]} and every run from {gap[1]} grokked, so only that gap is known"
    )
    assert fit.slope.value == math.inf


def line(times, levels=(0.5, 2.0, 11.0, 101.0)):
    """Fits a power law above the critical value 1, the middle of 0.5 and 2: distances of 1, 10 and 100."""
    values, grokked = expand(levels, [0, *[6] * (len(levels) - 1)], [6] * len(levels))
    return survival.threshold(values, grokked, np.repeat([np.nan, *times], 6), resamples=20)


def test_a_power_law_by_hand():
    # Logarithms 0, 1, 2 and 3, 1, 2: a slope of −1/2 through (1, 2), and R² = 1² / (2 · 2).
    fit = line([1_000, 10, 100])
    assert fit.exponent[:4] == pytest.approx((0.5, 0.5, 0.5, 18))
    assert fit.prefactor.value == pytest.approx(10**2.5)
    assert fit.r_squared.value == pytest.approx(0.25)
    assert fit.exponent.warning == "taken from the middle of the critical value's gap"
    from_0 = line([0, 10, 100])  # an event at step 0 counts as step 1
    assert (from_0.exponent.value, from_0.prefactor.value) == pytest.approx((-1, 1))
    assert np.isnan(line([100, 100, 100]).r_squared.value)
    assert line([100, 100, 100]).exponent.value == 0
    two = line([10, 100], levels=(0.5, 2.0, 11.0)).exponent
    assert (two.runs, two.warning) == (12, "runs grokked at 2 values above the critical one, and a line needs 3")
    assert np.isnan(two.value)


def test_warnings_of_a_threshold_are_whole_sentences():
    values, grokked = expand(
        [-1.0, 0.0, np.inf, 0.01, 0.1, 0.3, 1.0, 3.0], [0, 1, 0, 0, 5, 9, 10, 10], [1, 4, 0, *[10] * 5]
    )
    fit = survival.threshold(values, grokked, np.where(grokked, 500.0, np.nan), resamples=50)
    assert fit.critical.warning == "5 runs at 0 or below, of which 1 grokked, left out of a fit in logarithms"
    assert fit.critical.runs == 50
    values, grokked = expand([1.0, 2.0], [1, 4], [5, 6])
    warning = survival.threshold(values, grokked, np.full(11, 9.0), resamples=50).critical.warning
    assert warning.startswith("as few as 5 runs at one value, where an interval needs 6")
    values, grokked = expand([1.0, 2.0], [6, 0], [6, 6])
    for estimate in survival.threshold(values, grokked, np.full(12, 9.0)):
        assert estimate.warning == (
            "fewer runs grok at 2 than below it, which a logistic curve cannot follow; "
            "larger values do not grok more often, so there is no critical value"
        )
    values, grokked = expand([0.01, 0.1, 1.0, 10.0], [0, 9, 10, 8], [10] * 4)
    assert survival.threshold(values, grokked, np.full(40, 9.0), resamples=50).critical.warning == ""
    values, grokked = expand([1.0, 2.0, 3.0], [3, 3, 3], [6] * 3)
    warning = survival.threshold(values, grokked, np.full(18, 9.0)).critical.warning
    assert warning == "larger values do not grok more often, so there is no critical value"


@pytest.mark.parametrize(
    ("wins", "last"), [((0, 1, 2, 0), 2), ((0, 2, 2, 1), 2), ((2, 1, 0, 0), 0), ((0, 0, 0, 0), 3), ((1, 1, 1, 1), 3)]
)
def test_the_rising_side_ends_where_most_succeed(wins, last):
    values, succeeded = expand([0.1, 1.0, 10.0, 100.0], wins, [2] * 4)
    shuffled = np.array([3, 0, 7, 2, 1, 6, 5, 4])
    expected = values[shuffled] <= [0.1, 1.0, 10.0, 100.0][last]
    assert survival.rising(values[shuffled], succeeded[shuffled]).tolist() == expected.tolist()


def test_resamples_without_a_critical_value_are_told():
    values, grokked = expand([1.0, 2.0, 4.0], [8, 9, 10], [20] * 3)
    said = survival.threshold(values, grokked, np.full(60, 9.0)).critical.warning
    share = int(said.removesuffix("% of resamples have no critical value"))
    assert 15 < share < 35  # the slope is 0.63 deviations above 0: 26 % of resamples fall
    values, grokked = expand([1.0, 2.0, 4.0], [1, 10, 19], [20] * 3)
    assert survival.threshold(values, grokked, np.full(60, 9.0)).critical.warning == ""


def test_nothing_has_no_median():
    assert survival.survival_median(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2,)
    assert survival.median_time([], [])[3:] == (0, "no runs")
    assert survival.survival([], []).shape == (0, 3)


def simulated(rng, critical=0.0158, exponent=0.757, runs=20):
    values = np.repeat([0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3, 1.0, 2.0], runs)
    grokked = rng.random(values.size) < 1 / (1 + np.exp(-13.7 * np.log10(values / critical)))
    times = 140 * np.maximum(values - critical, 1e-3) ** -exponent * np.exp(0.1 * rng.standard_normal(values.size))
    return values, grokked, times


def test_intervals_cover_what_was_simulated():
    rng = np.random.default_rng(1)
    covered, errors = [], []
    for seed in range(30):
        fit = survival.threshold(*simulated(rng), seed=seed, resamples=200)
        covered.append(fit.critical.low <= 0.0158 <= fit.critical.high)
        errors.append([np.log10(fit.critical.value / 0.0158), fit.exponent.value - 0.757])
    assert np.mean(covered) > 0.8  # of 95 %, with 30 repeats
    assert np.abs(np.median(errors, axis=0)).max() < 0.05


def test_power_law_is_exact_without_noise():
    values = np.repeat([0.05, 0.1, 0.2, 0.4, 0.8], 6)
    succeeded = values > 0.07
    critical = math.sqrt(0.05 * 0.1)  # the middle of the gap
    times = 1_000 * np.maximum(values - critical, 1e-9) ** -0.75
    fit = survival.threshold(values, succeeded, times)
    assert fit.critical.value == pytest.approx(critical)
    assert (fit.critical.low, fit.critical.high) == (0.05, 0.1)
    assert np.isinf(fit.slope.value)
    assert fit.exponent[:3] == pytest.approx((0.75, 0.75, 0.75))
    assert fit.prefactor.value == pytest.approx(1_000)
    assert fit.r_squared.value == pytest.approx(1)
    assert fit.exponent.runs == 24
    assert "middle of the critical value's gap" in fit.exponent.warning


def test_power_law_counts_the_runs_it_leaves_out():
    values, succeeded = expand([0.01, 0.1, 0.3, 1.0, 3.0], [0, 5, 9, 10, 10], [10] * 5)
    fit = survival.threshold(values, succeeded, np.where(succeeded, 500 / values, np.nan))
    assert fit.critical.value == pytest.approx(0.1, rel=0.1)
    assert fit.exponent.runs == succeeded[values > fit.critical.value].sum()
    assert "above the critical value did not grok" in fit.exponent.warning


@pytest.mark.parametrize(
    ("values", "succeeded", "warning"),
    [
        ([], [], "needs runs at 2 values above 0, and there are 0"),
        ([1.0] * 8, [True] * 4 + [False] * 4, "and there are 1"),
        ([0.0] * 6 + [1.0] * 6, [False] * 6 + [True] * 6, "6 runs at 0 or below, of which 0 grokked"),
        ([1.0] * 6 + [2.0] * 6, [True] * 12, "every run grokked, so the critical value is below 1"),
        ([1.0] * 6 + [2.0] * 6, [False] * 12, "no run grokked, so the critical value is above 2"),
        ([1.0] * 6 + [2.0] * 6, [True] * 6 + [False] * 6, "larger values do not grok more often"),
        ([1.0, 2.0, 1.0, 2.0], [True, True, False, False], "as few as 2 runs at one value"),
    ],
)
def test_no_critical_value(values, succeeded, warning):
    fit = survival.threshold(values, succeeded, np.full(len(values), 100.0))
    assert warning in fit.critical.warning
    assert all(np.isnan(estimate[:3]).all() for estimate in fit)


def test_collapse_at_large_values_is_pointed_out():
    values, succeeded = expand([0.01, 0.1, 1.0, 10.0], [0, 9, 10, 0], [10] * 4)
    warning = survival.threshold(values, succeeded, np.full(40, 100.0)).critical.warning
    assert "fewer runs grok at 10 than below it" in warning


@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, 0.0, 1e-8, 0.3, 1.0, 1.001, 1e9]), st.booleans(), st.floats(0, 1e12)),
        max_size=25,
    )
)
@settings(max_examples=80, deadline=None)
def test_threshold_of_odd_sweeps(runs):
    values, succeeded, times = zip(*runs, strict=True) if runs else ([], [], [])
    fit = survival.threshold(values, succeeded, times, resamples=30)
    critical = fit.critical
    if not np.isnan(critical.value):
        assert not critical.low > critical.value * (1 + 1e-9)
    else:
        assert critical.warning


def test_few_runs_get_a_median_and_no_interval():
    times, observed = np.arange(1, 6) * 100.0, np.ones(5, bool)
    five = survival.median_time(times, observed)
    assert (five.value, five.runs) == (300, 5)
    assert np.isnan([five.low, five.high]).all()
    assert five.warning == "5 runs, where an interval for a median needs 6"
    six = survival.median_time(np.append(times, 600), np.ones(6, bool))
    assert np.isfinite([six.low, six.high]).all()
    values, grokked = expand([1.0, 2.0, 4.0], [1, 3, 4], [5] * 3)
    fit = survival.threshold(values, grokked, np.full(15, 9.0), resamples=50)
    assert np.isfinite(fit.critical.value)
    assert np.isnan([*fit.critical[1:3], *fit.slope[1:3]]).all()


@pytest.mark.parametrize(
    ("wins", "bounds", "said"),
    [
        ([3, 6], (0, 2), "some runs grokked at every value and all from 2 on, so only that upper bound is known"),
        ([0, 3], (1, math.inf), "no run up to 1 grokked, and at no value did all, so only that lower bound is known"),
    ],
)
def test_a_gap_that_is_open_on_one_side(wins, bounds, said):
    values, grokked = expand([1.0, 2.0], wins, [6] * 2)
    fit = survival.threshold(values, grokked, np.full(12, 9.0), resamples=50)
    assert fit.critical[1:3] == bounds
    assert fit.critical.warning == said
    assert "nan" not in "".join(estimate.warning for estimate in fit)


def test_r_squared_needs_times_that_differ():
    """Also where rounding leaves them a variance: the sixth root of ten is no float."""
    for time in (100.0, 10 ** (1 / 6), 1e5 / 3):
        fit = line([time, time, time])
        assert fit.exponent.value == pytest.approx(0, abs=1e-9)
        assert np.isnan(fit.r_squared.value)


def test_one_run_is_left_out_and_two_are():
    def warning(missed):
        grokked = [0, 6, 6 - missed, 6]
        values, succeeded = expand([0.5, 2.0, 11.0, 101.0], grokked, [6] * 4)
        return survival.threshold(values, succeeded, np.full(24, 9.0), resamples=20).exponent.warning

    assert "1 run above the critical value did not grok and is left out: times look short" in warning(1)
    assert "2 runs above the critical value did not grok and are left out: times look short" in warning(2)
