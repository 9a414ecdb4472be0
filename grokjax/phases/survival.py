"""Statistics of runs: shares, times to an event that some runs never reach, a critical value, a power law.

Every function takes arrays with one entry per run and says how much the runs can bear. Intervals are bootstrap
percentiles over runs unless noted, from a seed, so that they can be printed again.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
RESAMPLES = 2_000  # the 2.5 % quantile then rests on the 50 lowest resamples
MIN_LEVELS = 3  # a straight line through two values of the swept field always fits
SMALL_SHARE = 0.05  # resamples without an estimate that are passed over in silence


class Estimate(NamedTuple):
    """An estimate with its interval and what it rests on.

    Attributes:
      value: NaN if it cannot be estimated.
      low, high: the interval; NaN if there is none.
      runs: how many runs it rests on.
      warning: why it should be doubted, in plain sentences; empty if nothing speaks against it.
    """

    value: float
    low: float
    high: float
    runs: int
    warning: str = ""


def few_runs(confidence: float = CONFIDENCE) -> int:
    """The smallest number of runs whose extremes bracket a median with this confidence: 6 for 95 %.

    The median lies outside the range of n values with probability 2 · ½ⁿ; below that no distribution-free interval for
    a median exists, and a bootstrap's is too narrow.
    """
    return math.ceil(math.log2(2 / (1 - confidence)))


def _scipy_stats():
    """Loaded on first use: it takes longer than most tables."""
    from scipy import stats  # type: ignore[import-untyped]

    return stats


def wilson(successes: int, runs: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a share (1927): sensible at 0 of n and n of n; NaN for no runs."""
    if not runs:
        return math.nan, math.nan
    interval = _scipy_stats().binomtest(int(successes), int(runs)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def survival(times: np.ndarray, observed: np.ndarray) -> pd.DataFrame:
    """The share of runs in which an event has not happened yet (Kaplan & Meier 1958).

    Args:
      times: step of the event, or, for a censored run, the last step at which it was known not to have happened.
      observed: whether the event happened.

    Returns:
      Rows per distinct time: step, survival (the share just after that step), at_risk (runs just before it).
    """
    times, observed = np.asarray(times, float), np.asarray(observed, bool)
    if not times.size:
        return pd.DataFrame({"step": [], "survival": [], "at_risk": []}, dtype=float)
    stats = _scipy_stats()
    curve = stats.ecdf(stats.CensoredData(uncensored=times[observed], right=times[~observed])).sf
    at_risk = (times[None] >= curve.quantiles[:, None]).sum(1)
    return pd.DataFrame({"step": curve.quantiles, "survival": curve.probabilities, "at_risk": at_risk})


def survival_median(times: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """The first time at which the Kaplan–Meier curve is at or below one half, along the last axis.

    Infinite where it stays above: the median lies beyond what was observed. Equals the median read off `survival`, but
    takes a stack of resamples at once.
    """
    times, observed = np.broadcast_arrays(np.asarray(times, float), np.asarray(observed, bool))
    n = times.shape[-1]
    if not n:
        return np.full(times.shape[:-1], np.nan)
    order = np.lexsort((~observed, times), axis=-1)  # at equal times, events come before censorings
    times, observed = np.take_along_axis(times, order, -1), np.take_along_axis(observed, order, -1)
    curve = np.cumprod(np.where(observed, 1 - 1 / np.arange(n, 0, -1), 1.0), axis=-1)
    half = curve <= 0.5 + 1e-12  # a curve of exactly one half may have rounded up
    first = np.take_along_axis(times, half.argmax(-1)[..., None], -1)[..., 0]
    return np.where(half.any(-1), first, np.inf)


def median_time(
    times: np.ndarray,
    observed: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The Kaplan–Meier median of the time to an event; infinite, as its upper bound may be, if beyond the budget.

    Fewer than `few_runs` get no interval.

    Args:
      times, observed: as for `survival`.
      seed: of the bootstrap.
      resamples: of the bootstrap.
      confidence: of the interval.
    """
    times, observed = np.asarray(times, float), np.asarray(observed, bool)
    n = times.size
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0, "no runs")
    median = float(survival_median(times, observed))
    if n < few_runs(confidence):
        return Estimate(median, math.nan, math.nan, n, _too_few(n, confidence))
    pick = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return Estimate(median, *_interval(survival_median(times[pick], observed[pick]), confidence), n)


def _too_few(n: int, confidence: float) -> str:
    return f"{counted(n, 'run')}, where an interval for a median needs {few_runs(confidence)}"


def _interval(estimates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentiles that are themselves among the estimates, which may be infinite."""
    estimates = estimates[~np.isnan(estimates)]
    if not estimates.size:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


class Threshold(NamedTuple):
    """Where half of the runs succeed, and how much longer the few that do take as it is approached.

    Attributes:
      critical: the value at which a logistic curve in log10 of the field crosses one half.
      slope: of that curve, in log-odds per decade; infinite if the runs are separated.
      exponent, prefactor: time = prefactor · (value − critical)^−exponent, fitted above the critical value.
      r_squared: of that line in logarithms.
    """

    critical: Estimate
    slope: Estimate
    exponent: Estimate
    prefactor: Estimate
    r_squared: Estimate


def threshold(
    values: np.ndarray,
    succeeded: np.ndarray,
    times: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Threshold:
    """The critical value of a swept field and the power law of time above it (arXiv 2605.20441).

    The critical value is that of a maximum-likelihood logistic regression on log10(value). If every failure lies below
    every success, likelihood cannot tell where between the two the edge is: the estimate is then the middle in log10
    (the limit of an ever weaker ridge penalty) and the interval is the gap itself. The power law is a least-squares
    line of log10(time) on log10(value − critical) over the runs that succeeded above it. Resamples are drawn within
    each value, since those were chosen and the seeds were not, and both fits are repeated on each.

    Args:
      values: of the field, such as weight decay; runs at 0 or below have no logarithm and are left out.
      succeeded: whether the run grokked.
      times: steps to grok; read where `succeeded`.
      seed: of the bootstrap.
      resamples: of the bootstrap.
      confidence: of the intervals.
    """
    values, succeeded, times = np.asarray(values, float), np.asarray(succeeded, bool), np.asarray(times, float)
    usable = (values > 0) & np.isfinite(values)
    said = []
    if not usable.all():
        said.append(
            f"{counted((~usable).sum(), 'run')} at 0 or below, of which {succeeded[~usable].sum()} grokked, "
            "left out of a fit in logarithms"
        )
    order = np.argsort(values[usable], kind="stable")
    values, succeeded, times = values[usable][order], succeeded[usable][order], times[usable][order]
    levels, start, count = np.unique(values, return_index=True, return_counts=True)
    said += _doubts(levels, count, succeeded, start, confidence)
    nothing = Estimate(math.nan, math.nan, math.nan, values.size)
    if not _estimable(levels, succeeded, said):
        text = _sentences(said)
        return Threshold(*(nothing._replace(warning=text) for _ in Threshold._fields))

    pick = _within(start, count, resamples, seed)
    wins = np.add.reduceat(succeeded[pick], start, axis=1, dtype=float)
    x = np.log10(levels)
    (middle,), (slope,) = _logistic(x, np.add.reduceat(succeeded, start, dtype=float)[None], count)
    middles, slopes = _logistic(x, wins, count)
    if math.isnan(middle):
        said.append("larger values do not grok more often, so there is no critical value")
        return Threshold(*(nothing._replace(warning=_sentences(said)) for _ in Threshold._fields))
    enough = count.min() >= few_runs(confidence)
    low, high = (float(_ten_to(end)) for end in _interval(middles, confidence)) if enough else (math.nan, math.nan)
    if math.isinf(slope):
        low, high, gap = _gap(levels, succeeded, values)
        said.append(gap)
    elif np.isnan(middles).mean() > SMALL_SHARE:
        said.append(f"{np.isnan(middles).mean():.0%} of resamples have no critical value")
    critical = Estimate(float(_ten_to(middle)), low, high, values.size, _sentences(said))
    bounds = _interval(slopes, confidence) if enough else (math.nan, math.nan)
    slope_ = Estimate(float(slope), *bounds, values.size, critical.warning)
    return Threshold(
        critical, slope_, *_power_law(values, succeeded, times, critical, _ten_to(middles), pick, confidence)
    )


def rising(values: np.ndarray, succeeded: np.ndarray) -> np.ndarray:
    """Which runs lie at or below the value where most succeed, the largest of several such values.

    `threshold` of these is where runs begin to succeed, whatever larger values do: decay that is too strong keeps runs
    from learning at all, and a logistic curve follows no fall.
    """
    at = np.unique(np.asarray(values, float), return_inverse=True)[1]
    share = np.bincount(at, np.asarray(succeeded, float)) / np.bincount(at)
    return at <= np.flatnonzero(share == share.max()).max(initial=0)


def _gap(levels, succeeded, values) -> tuple[float, float, str]:
    """Of separated runs: the largest value without successes, the smallest without failures, and that in words.

    0 where some run succeeds at every value, infinite where some run fails at every value.
    """
    none, every = np.setdiff1d(levels, values[succeeded]), np.setdiff1d(levels, values[~succeeded])
    low, high = none.max(initial=0.0), every.min(initial=math.inf)
    if not none.size:
        said = f"some runs grokked at every value and all from {high:g} on, so only that upper bound is known"
    elif not every.size:
        said = f"no run up to {low:g} grokked, and at no value did all, so only that lower bound is known"
    else:
        said = f"no run up to {low:g} and every run from {high:g} grokked, so only that gap is known"
    return float(low), float(high), said


def counted(n: int, noun: str) -> str:
    """A number and its noun: "1 run", "3 runs"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _sentences(said: list[str]) -> str:
    return "; ".join(said)


def _doubts(levels, count, succeeded, start, confidence) -> list[str]:
    said = []
    enough = few_runs(confidence)
    if levels.size and count.min() < enough:
        said.append(f"as few as {counted(count.min(), 'run')} at one value, where an interval needs {enough}")
    if levels.size > 1:
        wins = np.add.reduceat(succeeded, start, dtype=int)
        bounds = np.array([wilson(k, n, confidence) for k, n in zip(wins, count, strict=True)])
        if bounds[-1, 1] < bounds[:-1, 0].max():
            said.append(f"fewer runs grok at {levels[-1]:g} than below it, which a logistic curve cannot follow")
    return said


def _estimable(levels, succeeded, said: list[str]) -> bool:
    if levels.size < 2:
        said.append(f"a critical value needs runs at 2 values above 0, and there are {levels.size}")
    elif succeeded.all():
        said.append(f"every run grokked, so the critical value is below {levels[0]:g}")
    elif not succeeded.any():
        said.append(f"no run grokked, so the critical value is above {levels[-1]:g}")
    else:
        return True
    return False


def _within(start: np.ndarray, count: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Indices [resamples, runs] drawn with replacement within each group of consecutive runs."""
    size = np.repeat(count, count)
    draws = np.random.default_rng(seed).random((resamples, size.size))
    return np.repeat(start, count) + (draws * size).astype(int)


def _logistic(x: np.ndarray, wins: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where logistic regressions cross one half, and their slopes: Newton's method on a stack of data sets.

    Args:
      x: [levels], increasing.
      wins: [sets, levels], successes.
      count: [levels], runs.

    Returns:
      Crossing and slope, [sets]. A set with failures below successes has an infinite slope and the middle between
      them; one with a slope of 0 or less, or only failures or only successes, has the crossing NaN.
    """
    failures = count - wins
    worst = np.where(failures > 0, x, -np.inf).max(1)
    best = np.where(wins > 0, x, np.inf).min(1)
    mixed = (failures > 0).any(1) & (wins > 0).any(1)
    rises = worst <= best
    falls = np.where(wins > 0, x, -np.inf).max(1) <= np.where(failures > 0, x, np.inf).min(1)
    fit = mixed & ~rises & ~falls

    z = (x - x.mean()) / x.std()
    beta = np.zeros((wins.shape[0], 2))
    design = np.stack([np.ones_like(z), z], 1)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(beta @ design.T, -30, 30)))
        gradient = (wins - count * p) @ design
        hessian = np.einsum("sl,la,lb->sab", count * p * (1 - p), design, design)
        hessian[~fit] = np.eye(2)
        step = np.where(fit[:, None], np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient[..., None])[..., 0], 0.0)
        # No step beyond 1 or twice the coefficients, lest it overshoots.
        longest = np.maximum(np.abs(beta).max(1, keepdims=True), 1.0)
        beta += step / np.maximum(np.abs(step).max(1, keepdims=True) / longest, 1.0)
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    slope = beta[:, 1] / x.std()
    slope = np.select([~mixed | (rises & falls), rises, falls], [np.nan, np.inf, -np.inf], slope)
    crossing = np.full(slope.shape, np.nan)
    separated = slope == np.inf
    crossing[separated] = (worst[separated] + best[separated]) / 2
    fitted = fit & (slope > 0)
    crossing[fitted] = x.mean() - beta[fitted, 0] / slope[fitted]
    return crossing, slope


def _ten_to(exponent):
    """10 ** exponent; infinite where a nearly flat fit puts its middle beyond what a float holds."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float64(10) ** exponent


def _power_law(values, succeeded, times, critical: Estimate, criticals, pick, confidence) -> list[Estimate]:
    """Exponent, prefactor and R² of time against value − critical, each resample with its own critical value."""
    above = values > critical.value
    used = above & succeeded
    n_levels = np.unique(values[used]).size
    nothing = Estimate(math.nan, math.nan, math.nan, int(used.sum()))
    if math.isnan(critical.value):
        return [nothing._replace(warning="there is no critical value to measure from")] * 3
    if n_levels < MIN_LEVELS:
        warning = f"runs grokked at {counted(n_levels, 'value')} above the critical one, and a line needs {MIN_LEVELS}"
        return [nothing._replace(warning=warning)] * 3
    said = ["taken from the middle of the critical value's gap"] if np.ptp(criticals) == 0 else []
    if used.sum() < few_runs(confidence):
        said.append(f"only {counted(used.sum(), 'run')}, where an interval needs {few_runs(confidence)}")
    if (above & ~succeeded).any():
        missed = (above & ~succeeded).sum()
        are = "is" if missed == 1 else "are"
        said.append(
            f"{counted(missed, 'run')} above the critical value did not grok and {are} left out: times look short"
        )
    (exponent,), (prefactor,), (r2,) = _line(values, times[None], used[None], np.array([critical.value]))
    exponents, prefactors, r2s = _line(values, times[pick], succeeded[pick], criticals)
    enough = used.sum() >= few_runs(confidence)
    estimates = ((exponent, exponents), (prefactor, prefactors), (r2, r2s))
    return [
        Estimate(
            float(v), *(_interval(b, confidence) if enough else (math.nan, math.nan)), int(used.sum()), _sentences(said)
        )
        for v, b in estimates
    ]


def _line(values, times, usable, criticals):
    """Least squares of log10 time on log10(value − critical), one per row of `times`.

    NaN where values do not vary; R², the share of the times' variance that the line explains, also where times do not.
    """
    distance = values - criticals[:, None]
    usable = usable & (distance > 0)
    u = np.log10(np.where(usable, distance, 1.0))
    v = np.log10(np.where(usable, np.maximum(times, 1.0), 1.0))  # an event at step 0 counts as step 1
    n = np.maximum(usable.sum(1), 1)[:, None]
    du, dv = (np.where(usable, a - np.where(usable, a, 0).sum(1, keepdims=True) / n, 0.0) for a in (u, v))
    suu, suv, svv = (du * du).sum(1), (du * dv).sum(1), (dv * dv).sum(1)
    ok = suu > 1e-12  # all at one value
    slope = np.divide(suv, suu, out=np.full(suu.shape, np.nan), where=ok)
    centre_u, centre_v = (np.where(usable, a, 0).sum(1) / n[:, 0] for a in (u, v))
    r2 = np.divide(suv**2, suu * svv, out=np.full(suu.shape, np.nan), where=ok & (svv > 1e-12))
    return -slope, 10 ** np.clip(centre_v - slope * centre_u, -300, 300), r2
