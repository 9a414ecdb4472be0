"""Milestones: when a run has memorised (train accuracy) and when it has grokked (test accuracy). No JAX.

A run reaches a milestone at the first evaluation at or above the threshold that the next evaluation keeps. One
evaluation that spikes over it and falls back therefore counts for nothing; an excursion of two in a row counts. The
last evaluation of a run, or the last one so far, has none after it and counts as it stands: so a run that ends at the
threshold has reached it, and a run in training may lose a milestone at its next evaluation, at most once per spike, and
never later. Evaluations without an accuracy are passed over. One at which the run had diverged keeps nothing.

Thus a milestone depends on the rows so far and on nothing else: `Milestone` streams it, `first_kept` reads it off a
curve.
"""

import math

import numpy as np

THRESHOLD = 0.99  # accuracy at which a run counts as having memorised (train) or grokked (test): Power et al. 2022


def first_kept(there: np.ndarray, ends_with_run: bool = True) -> int | None:
    """The first entry of a boolean curve that is true and whose next one is, too; None if there is none.

    Args:
      there: whether the threshold is held, by evaluation, of those that tell.
      ends_with_run: whether nothing follows the last entry, which then counts as it stands. False where the run
        diverged after it.
    """
    kept = np.flatnonzero(there & np.append(there[1:], ends_with_run)[: there.size])
    return int(kept[0]) if kept.size else None


class Milestone:
    """One run's milestone, evaluation by evaluation.

    Args:
      threshold: accuracy to be held.

    Attributes:
      step: at which it was reached, by the evaluations so far; None if it was not.
    """

    def __init__(self, threshold: float = THRESHOLD):
        self.threshold, self._kept = threshold, False
        self.step: int | None = None

    def add(self, step: int, accuracy: float) -> None:
        """Takes in the next evaluation; an accuracy of NaN tells nothing."""
        if self._kept or math.isnan(accuracy):
            return
        there = accuracy >= self.threshold
        self._kept = there and self.step is not None
        if not self._kept:
            self.step = step if there else None

    def end(self) -> None:
        """Takes in that the run had diverged at the next evaluation."""
        if not self._kept:
            self.step, self._kept = None, True
