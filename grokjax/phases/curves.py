"""One run's curves, and the signs that are read off them: thresholds, turns, levels, bursts.

A sign is decided from what a run has shown so far and waits until it is confirmed. `grokjax.phases.rules` makes rules
of these.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from grokjax.errors import InputError, unknown
from grokjax.milestones import THRESHOLD, first_kept

# What a rule looks at, and the columns that hold it, the best first: the paper's final keys; then, for the excluded
# loss, the maximum over single frequencies, which needs no keys; then the keys of the model at each step.
QUANTITIES: dict[str, tuple[str, ...]] = {
    "train_loss": ("train_loss",),
    "test_loss": ("test_loss",),
    "train_acc": ("train_acc",),
    "test_acc": ("test_acc",),
    "excluded_loss": ("excluded_loss", "excluded_loss_max", "excluded_loss_online"),
    "heldout_restricted_loss": ("heldout_restricted_loss", "heldout_restricted_loss_online"),
    "weights": ("sum_sq_weights",),
    "gini": ("gini_W_L", "gini_W_E"),
}
LINEAR = frozenset({"train_acc", "test_acc", "gini"})  # the others are read on a logarithmic scale
COLUMNS = tuple(column for columns in QUANTITIES.values() for column in columns)
CLASS_RULES = ("relative", "absolute")
MIN_POINTS = 5  # a column with fewer values shows no turn between two flanks of two, so the next one is read
SMALLEST = float(np.finfo(np.float32).tiny)  # losses that underflowed to 0 are read as this


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every number that a reading depends on. Steps are optimizer steps, losses nats, accuracies shares in [0, 1].

    Attributes:
      train_accuracy: a run has memorised at this train accuracy (Power et al. 2022: 0.99). Where a table has no
        accuracies, at a train loss of −ln of it: the right answer's geometric mean probability is then this number.
      test_accuracy: the same on the test pairs: a run has grokked (Power et al. 2022: 0.99).
      ungrok_accuracy: a run that grokked loses it where two evaluations in a row are below this test accuracy, and has
        ungrokked if it ends below and does not come back. Lower than `test_accuracy`, so that a run that hovers about
        the one does not lose anything.
        Lower than `test_accuracy`, so that one that hovers there is not counted (0.95: "stable grok" of arXiv
        2602.16967).
      smooth: evaluations in the running median that takes spikes out of losses; odd. 5 removes spikes of up to two
        evaluations (slingshots) and moves no boundary of a monotone curve, however coarse.
      noise: a turning point is any evaluation within this many standard deviations of the extreme; the deviation is
        measured on the curve itself.
      turn: an extreme is confirmed once the curve has moved back by this share; until then it may not be the extreme.
      chance_loss: the loss of an uninformed guess, ln P for P equally likely answers. By default the run's own test
        loss at step 0; without that row, ln of column `p`; without that, the median at step 0 of the other runs.
      drop: the test loss has dropped when it is below this share of the chance loss. One half: half of the nats between
        a guess and certainty. A model that has memorised mostly lies above chance, so the crossing is steep and the
        number matters little. One that was trained on half of the pairs or more lies below (a + b = b + a), and has
        dropped when it is below this share of its highest within the last `level_window` of the steps elapsed.
      level_exponent: a loss has levelled off when it falls more slowly than elapsed steps to the minus this power. At
        1, training for twice as long no longer halves it.
      level_window: that fall is judged over the next quarter of the steps elapsed: several evaluations at any usual
        cadence, and shorter than the plateau between memorization and cleanup.
      level_depth: the train loss is not level where it falls by more than this factor further before the test loss
        drops; within an order of magnitude, where memorization takes it down by five to seven.
      settled: the test loss has settled from the first evaluation within this factor of where it levels off; at 2, it
        is not halved again.
      rate_window: speeds (of weights, of the Gini coefficient) are averaged over this share of the steps elapsed.
      burst: the time in which a speed exceeds this share of its maximum is a burst; one half is the usual full width at
        half maximum.
      gap: the generalisation gap has closed when the test loss is within this factor of the train loss: one order of
        magnitude, where memorised models are off by seven or eight.
      class_rule: "relative": a run that has grokked is grokking if its delay exceeds `class_ratio` times the time it
        took to memorise, and comprehension otherwise. "absolute": that of Liu et al. 2022 (arXiv 2205.10343), whose
        times are those of `class_accuracy` within `class_budget` steps: comprehension if they lie less than `class_gap`
        apart. 0.90, 10⁵ and 10³ are their choice for their models.
      class_accuracy, class_gap, class_budget: of the absolute rule.
      class_ratio: 1: it took more than twice as long to generalise as to memorise. A ratio does not change where a
        larger learning rate makes everything quicker.
      rules: one rule per phase to use instead of the default, such as {"memorization": "test_peak"}; a name is checked
        where it is used.

    Raises:
      InputError: a number lies outside its range.
    """

    train_accuracy: float = THRESHOLD
    test_accuracy: float = THRESHOLD
    ungrok_accuracy: float = 0.95
    smooth: int = 5
    noise: float = 2.0
    turn: float = 0.05
    chance_loss: float | None = None
    drop: float = 0.5
    level_exponent: float = 1.0
    level_window: float = 0.25
    level_depth: float = 10.0
    settled: float = 2.0
    rate_window: float = 0.1
    burst: float = 0.5
    gap: float = 10.0
    class_rule: str = "relative"
    class_accuracy: float = 0.90
    class_ratio: float = 1.0
    class_gap: float = 1_000
    class_budget: float = 100_000
    rules: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        shares = ("train_accuracy", "test_accuracy", "ungrok_accuracy", "turn", "drop", "burst", "class_accuracy")
        for name in shares:
            self._check(name, 0 < getattr(self, name) < 1, "between 0 and 1")
        for name in ("level_exponent", "level_window", "rate_window", "class_ratio", "class_gap", "class_budget"):
            self._check(name, 0 < getattr(self, name) < math.inf, "above 0")
        self._check("ungrok_accuracy", self.ungrok_accuracy <= self.test_accuracy, "at most test_accuracy")
        self._check("smooth", self.smooth > 0 and self.smooth % 2 == 1, "an odd number, such as 5")
        self._check("noise", self.noise >= 0, "0 or more")
        for name in ("gap", "level_depth", "settled"):
            self._check(name, getattr(self, name) > 1, "above 1")
        if self.class_rule not in CLASS_RULES:
            raise unknown("class_rule", self.class_rule, CLASS_RULES)
        self._check("chance_loss", self.chance_loss is None or self.chance_loss > 0, "above 0, such as ln P")

    def _check(self, name: str, right: bool, expected: str) -> None:
        if not right:
            raise InputError(f"setting {name} = {getattr(self, name)} must be {expected}.")


class Reading(NamedTuple):
    """A boundary between evaluations: after < boundary ≤ by, in steps; the rule points at evaluation `at`.

    What a run shows at its first evaluation already has after = 0, the start of training.
    """

    after: float
    at: float
    by: float


def side(reading: Reading | None, name: str) -> float:
    """Step `after`, `at` or `by` of a reading; NaN if there is none."""
    return getattr(reading, name) if reading else math.nan


class Series(NamedTuple):
    """One curve, or its logarithm, without the evaluations that lack it.

    Attributes:
      step: of each evaluation, increasing.
      raw: the values.
      value: after the running median.
      noise: standard deviation of the raw values from evaluation to evaluation.
    """

    step: np.ndarray
    raw: np.ndarray
    value: np.ndarray
    noise: float


class Curves:
    """One run's evaluations, as rules ask for them.

    Args:
      step: of each evaluation, increasing, without repeats.
      columns: values at those steps by column name, NaN where there is none.
      settings: of the analysis.
      chance_loss: loss of an uninformed guess, in nats; None if it is not known.
      diverged: whether the run diverged after the last of them.
    """

    def __init__(
        self,
        step: np.ndarray,
        columns: Mapping[str, np.ndarray],
        settings: Settings,
        chance_loss: float | None,
        diverged: bool = False,
    ):
        self.step, self.columns, self.settings, self.chance_loss = step, columns, settings, chance_loss
        self.diverged = diverged
        self._series: dict[str, Series] = {}
        self.readings: dict[str, Reading | None] = {}  # by rule, kept by `rules.read`

    def column(self, quantity: str) -> str | None:
        """The column that a quantity is read from; None if this run has none."""
        held = {name: np.isfinite(self.columns[name]).sum() for name in QUANTITIES[quantity] if name in self.columns}
        return next((name for least in (MIN_POINTS, 1) for name, n in held.items() if n >= least), None)

    def series(self, quantity: str) -> Series:
        """A quantity's curve, the logarithm of it unless it is in LINEAR; empty if this run has none."""
        if quantity not in self._series:
            column = self.column(quantity)
            values = self.columns[column] if column else np.full(self.step.shape, np.nan)
            held = np.isfinite(values)
            raw = values[held] if quantity in LINEAR else np.log(np.maximum(values[held], SMALLEST))
            smooth = running_median(raw, self.settings.smooth)
            self._series[quantity] = Series(self.step[held], raw, smooth, noise(raw))
        return self._series[quantity]

    def reached(self, split: str, accuracy: float) -> Reading | None:
        """The first evaluation at an accuracy on "train" or "test" that the next one keeps; see `grokjax.milestones`.

        Without accuracies, a loss of −ln of it stands in: the geometric mean of the right answers' probabilities.
        """
        s, there = self._at(split, accuracy)
        return self._kept(s, there)

    def _at(self, split: str, accuracy: float) -> tuple[Series, np.ndarray]:
        if self.column(f"{split}_acc"):
            s = self.series(f"{split}_acc")
            return s, s.raw >= accuracy
        s = self.series(f"{split}_loss")
        return s, s.raw <= math.log(-math.log(accuracy))

    def _kept(self, s: Series, there: np.ndarray) -> Reading | None:
        first = first_kept(there, ends_with_run=not self.diverged)
        return None if first is None else reading_at(s, first)

    @cached_property
    def memorised(self) -> Reading | None:
        """First evaluation at the train accuracy threshold that the next one keeps."""
        return self.reached("train", self.settings.train_accuracy)

    @cached_property
    def grokked(self) -> Reading | None:
        """First evaluation at the test accuracy threshold that the next one keeps."""
        return self.reached("test", self.settings.test_accuracy)

    @cached_property
    def circuit(self) -> Reading | None:
        """First evaluation, kept by the next, whose held-out restricted loss says that a circuit is there.

        What a projection on the key frequencies, taken from test pairs, answers on test pairs is then better than a
        guess by `drop`, whatever has been memorised beside it.
        """
        if self.chance_loss is None:
            return None
        s = self.series("heldout_restricted_loss")
        return self._kept(s, s.raw <= math.log(self.settings.drop * self.chance_loss))

    @cached_property
    def lost_grokking(self) -> Reading | None:
        """After having grokked: the first of two evaluations in a row, or the last, below `ungrok_accuracy`."""
        if not self.grokked:
            return None
        s, good = self._at("test", self.settings.ungrok_accuracy)
        first = first_kept(~good & (s.step > self.grokked.at))  # one before a divergence counts: it does not come back
        return None if first is None else reading_at(s, first)

    @cached_property
    def ungrokked(self) -> Reading | None:
        """After having grokked: below `ungrok_accuracy` from here to the last evaluation, but for single ones."""
        s, good = self._at("test", self.settings.ungrok_accuracy)
        if not self.grokked or good[-1]:
            return None
        return reading_at(s, int(np.flatnonzero(good[1:] & good[:-1])[-1]) + 2)


# What "falls below", "turns", "levels off" and "fastest" mean.


def running_median(value: np.ndarray, width: int) -> np.ndarray:
    """The median over `width` evaluations around each; near the ends over as many as fit on both sides.

    A monotone sequence comes back unchanged, whatever the distance between its evaluations.
    """
    result = value.copy()
    half = min(width // 2, (value.size - 1) // 2)
    for k in range(1, half):
        result[k], result[-1 - k] = np.sort(value[: 2 * k + 1])[k], np.sort(value[-1 - 2 * k :])[k]
    if half > 0:
        windows = np.stack([value[k : value.size - 2 * half + k] for k in range(2 * half + 1)])
        windows.partition(half, axis=0)
        result[half : value.size - half] = windows[half]
    return result


def noise(value: np.ndarray) -> float:
    """Standard deviation of independent noise on a smooth curve, from its third differences.

    Third differences cancel any parabola, and those of independent noise have 20 times its variance. Their lower
    quartile is taken (0.3186 for a standard normal): spikes, jumps and the bends of a coarsely sampled curve make up
    less than three quarters of it. 0 for curves too short to tell noise from bends.
    """
    if value.size < 2 * MIN_POINTS:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # of values that no measure has
        differences = np.sort(np.abs(np.diff(value, n=3)))
    return float(differences[differences.size // 4]) / (math.sqrt(20) * 0.3186)


def reading_at(s: Series, i: int) -> Reading:
    """The reading "not yet at evaluation i − 1, but at evaluation i"."""
    return Reading(float(s.step[i - 1]) if i else 0.0, float(s.step[i]), float(s.step[i]))


def crossing(s: Series, there: np.ndarray, start: float = -math.inf) -> Reading | None:
    """The first evaluation, from step `start` on, at which a condition on the smoothed curve holds."""
    found = np.flatnonzero(there & (s.step >= start))
    return reading_at(s, int(found[0])) if found.size else None


def turn(s: Series, sign: int, settings: Settings, start: float = -math.inf, stop: float = math.inf) -> Reading | None:
    """Where a curve that rises (sign 1) or falls (sign −1) turns back: its extreme between two steps.

    The extreme counts once the curve, which must be a logarithm, has moved back by `settings.turn`. On a noisy curve it
    is the first evaluation within `settings.noise` deviations of the extreme, and the interval holds all of those.
    """
    inside = np.flatnonzero((s.step >= start) & (s.step <= stop))
    if not inside.size:
        return None
    smooth, raw, tolerance = sign * s.value, sign * s.raw, settings.noise * s.noise
    top = smooth[inside].max()
    # A running median flattens a sharp extreme into a few equal values; among those the raw curve decides.
    flat = inside[smooth[inside] == top]
    peak = flat[np.argmax(raw[flat])]
    back = -math.log1p(-settings.turn) if sign > 0 else math.log1p(settings.turn)
    if top - smooth[peak:].min() < back:
        return None
    near = inside[(smooth[inside] >= top - tolerance) & (raw[inside] >= raw[peak] - tolerance)]
    first, last = int(near[0]), int(near[-1])
    # A spike next to the extreme hides which way the curve went: the interval ends beyond it, where it is highest.
    spike = settings.smooth // 2 + 1
    before, after = raw[max(first - spike, 0) : first], raw[last + 1 : last + 1 + spike]
    return Reading(
        float(s.step[first - 1 - np.argmax(before[::-1])]) if first else 0.0,
        float(s.step[first]),
        float(s.step[last + 1 + np.argmax(after)]) if after.size else float(s.step[last]),
    )


def levelled(s: Series, settings: Settings, start: float) -> np.ndarray:
    """Evaluations, from step `start` on, at which a falling loss has levelled off: indices, increasing.

    It is level at an evaluation if its lowest value so far (upward spikes count for nothing) falls over the next
    `settings.level_window` of the steps elapsed, or to the next evaluation, more slowly than step to the power
    −`settings.level_exponent`; this is unknown until those steps have been trained.
    """
    lowest = np.minimum.accumulate(s.value)
    i = np.flatnonzero((s.step >= start) & (s.step > 0))
    j = level_end(s, settings, i)
    i, j = i[j < s.step.size], j[j < s.step.size]
    return i[lowest[i] - lowest[j] < settings.level_exponent * (np.log(s.step[j]) - np.log(s.step[i]))]


def level_end(s: Series, settings: Settings, i: np.ndarray) -> np.ndarray:
    """The evaluations by which it is known whether a loss is level at evaluations `i`; beyond the last if it is not."""
    return np.searchsorted(s.step, s.step[i] * (1 + settings.level_window))


def first_level(s: Series, level: np.ndarray, settings: Settings) -> Reading | None:
    """The first of these evaluations; its interval starts before any spike there, where the loss is lowest."""
    if not level.size:
        return None
    i = int(level[0])
    before = s.raw[max(i - settings.smooth // 2 - 1, 0) : i]
    return reading_at(s, i)._replace(after=float(s.step[i - 1 - np.argmin(before[::-1])]) if i else 0.0)


def burst(s: Series, sign: int, settings: Settings, start: float) -> tuple[Reading, Reading] | None:
    """The time around the fastest rise (sign 1) or fall (sign −1) after step `start`: its onset and its end.

    The burst is where the speed, averaged over `settings.rate_window` of the steps elapsed, exceeds `settings.burst` of
    its maximum. It counts once it is over, and only if the speed was below that share between `start` and its onset.
    """
    inside = np.flatnonzero(s.step >= start)
    if s.step.size < MIN_POINTS or not inside.size:
        return None
    half, all_of_them, last = settings.rate_window / 2 * s.step, np.arange(s.step.size), s.step.size - 1
    left = np.searchsorted(s.step, s.step - half, side="right") - 1
    left = np.maximum(np.minimum(left, all_of_them - 1), 0)
    right = np.minimum(np.maximum(np.searchsorted(s.step, s.step + half), all_of_them + 1), last)
    with np.errstate(over="ignore", invalid="ignore"):  # of values that no Gini coefficient has
        speed = sign * (s.value[right] - s.value[left]) / (s.step[right] - s.step[left])
    top = inside[np.argmax(speed[inside])]
    if not 0 < speed[top] < math.inf:
        return None
    slow = np.flatnonzero(speed < settings.burst * speed[top])
    before, after = slow[(slow < top) & (slow >= inside[0])], slow[slow > top]
    if not before.size or not after.size:
        return None
    onset, end = int(before[-1]) + 1, int(after[0]) - 1
    return (
        Reading(float(s.step[left[onset - 1]]), float(s.step[onset]), float(s.step[right[onset]])),
        Reading(float(s.step[left[end]]), float(s.step[end]), float(s.step[right[end + 1]])),
    )
