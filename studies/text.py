"""Numbers on a study's page."""

import math

import numpy as np
from numpy.typing import ArrayLike

from grokjax.phases.survival import Estimate, median_time, wilson


def number(value: float, digits: int = 3) -> str:
    """Writes so many digits, with commas above a thousand."""
    if math.isnan(value):
        return "–"
    if not value:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}".replace("e-0", "e−").replace("e-", "e−").replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.{decimals}f}".replace("-", "−")


def interval(middle: float, low: float, high: float, digits: int = 3) -> str:
    """Writes "0.14 [0.05, 0.21]"."""
    return f"{number(middle, digits)} [{number(low, digits)}, {number(high, digits)}]"


def time(times: ArrayLike, observed: ArrayLike, budget: float) -> str:
    """Writes the Kaplan–Meier median with its interval; "> 5,000" for what lies beyond the budget."""

    def step(value: float) -> str:
        return f"> {budget:,.0f}" if math.isinf(value) else "–" if math.isnan(value) else f"{value:,.0f}"

    found = median_time(np.asarray(times), np.asarray(observed))
    if math.isinf(found.value):
        return step(found.value)
    return step(found.value) + ("" if math.isnan(found.low) else f" [{step(found.low)}, {step(found.high)}]")


def share(n: int, of: int) -> str:
    """Writes "7 of 8 [0.53, 0.98]", with Wilson's interval."""
    low, high = wilson(n, of)
    return f"{n} of {of} [{low:.2f}, {high:.2f}]"


def estimate(found: Estimate) -> str:
    """Writes an estimate with its interval, or why there is none."""
    if math.isnan(found.value):
        return found.warning or "–"
    low = "0" if found.low == 0 else number(found.low, 2)
    high = "∞" if math.isinf(found.high) else number(found.high, 2)
    return f"{number(found.value, 2)} [{low}, {high}]" if not math.isnan(found.low) else number(found.value, 2)
