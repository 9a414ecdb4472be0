"""Rules that read phase boundaries off one run's curves.

A boundary is the end of one of the three phases of Nanda et al. 2023, §5.2, who read theirs by eye. Here each rule is
one sign of that section made exact; `RULES` lists them, and `phases.find_phases` applies them to a table. A rule
decides from what a run has shown so far and waits until its sign is confirmed. docs/phases.md shows them on published
curves.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from grokjax.errors import unknown
from grokjax.phases.curves import Curves, Reading, Series, burst, crossing, first_level, level_end, levelled, turn

MEMORIZATION, CIRCUIT_FORMATION, CLEANUP = "memorization", "circuit_formation", "cleanup"


class Rule(NamedTuple):
    """One way to read one boundary.

    Attributes:
      read: from curves to a reading.
      needs: quantities it cannot do without; "chance" is the loss of an uninformed guess.
      sign: what it takes as the boundary, after Nanda et al. 2023, §5.2.
    """

    read: Callable[[Curves], Reading | None]
    needs: tuple[str, ...]
    sign: str

    def lacks(self, c: Curves) -> list[str]:
        """What this rule needs and a run does not have."""
        return [need for need in self.needs if (c.chance_loss if need == "chance" else c.column(need)) is None]


def named(boundary: str, rule: str) -> Rule:
    """Looks a rule up.

    Raises:
      InputError: there is none of that name.
    """
    if boundary not in RULES:
        raise unknown("phase", boundary, RULES)
    if rule not in RULES[boundary]:
        raise unknown(f"rule for the end of {boundary}", rule, RULES[boundary])
    return RULES[boundary][rule]


def read(c: Curves, boundary: str, rule: str) -> Reading | None:
    """The reading of a rule; None if its sign has not been seen, or cannot be: for want of a column, or of a circuit.

    No circuit forms in a run that never groks, unless the held-out restricted loss says so, and none is cleaned up.
    """
    if rule not in c.readings:
        entry = RULES[boundary][rule]
        c.readings[rule] = entry.read(c) if _may_end(c, boundary) and not entry.lacks(c) else None
    return c.readings[rule]


def _may_end(c: Curves, boundary: str) -> bool:
    if boundary == MEMORIZATION or not c.memorised:
        return c.memorised is not None
    return c.grokked is not None or (boundary == CIRCUIT_FORMATION and c.circuit is not None)


def _drop(c: Curves) -> float:
    """The step at which the test loss drops, in a run that will grok or not; infinite while it has not."""
    reading = test_drop(c)
    return reading.at if reading else math.inf


# The rules. Each takes a run's curves and returns a Reading, or None: not seen in what the run has shown.


def losses_flat(c: Curves) -> Reading | None:
    train, test = read(c, MEMORIZATION, "train_level"), read(c, MEMORIZATION, "test_peak")
    return Reading(*map(max, train, test)) if train and test else None


def train_level(c: Curves) -> Reading | None:
    assert c.memorised is not None
    s = c.series("train_loss")
    level = levelled(s, c.settings, c.memorised.at)
    # A pause just after memorising is no floor: before the test loss drops, the train loss falls much further.
    early = s.step[level] < _drop(c)
    floor = np.where(early, s.value[s.step < _drop(c)].min(initial=math.inf), s.value.min())
    return first_level(s, level[s.value[level] <= floor + math.log(c.settings.level_depth)], c.settings)


def test_peak(c: Curves) -> Reading | None:
    return turn(c.series("test_loss"), 1, c.settings, stop=_drop(c))


def excluded_turn(c: Curves) -> Reading | None:
    return turn(c.series("excluded_loss"), -1, c.settings, stop=_drop(c))


def test_drop(c: Curves) -> Reading | None:
    if not c.memorised or c.chance_loss is None:
        return None
    s = c.series("test_loss")
    chance, drop = math.log(c.chance_loss), math.log(c.settings.drop)
    since = s.step >= c.memorised.at
    if not (since & (s.value <= chance + drop)).any():
        return None
    first = crossing(s, since & (s.value >= chance))
    if first:
        return crossing(s, s.value <= chance + drop, first.at)
    # Memorising has not taken it above chance, but below: there it has to drop from where it was a moment ago.
    inside = np.flatnonzero(since)
    begin = np.minimum(np.searchsorted(s.step, s.step[inside] / (1 + c.settings.level_window)), inside - 1)
    begin = np.maximum(begin, inside[0])
    before = np.array([s.value[b : i + 1].max() for b, i in zip(begin, inside, strict=True)])
    there = np.zeros(s.step.size, bool)
    there[inside] = s.value[inside] <= before + drop
    return crossing(s, there)


def test_half(c: Curves) -> Reading | None:
    return c.reached("test", 0.5)


def excluded_peak(c: Curves) -> Reading | None:
    bottom = read(c, MEMORIZATION, "excluded_turn")
    return turn(c.series("excluded_loss"), 1, c.settings, start=bottom.at) if bottom else None


def test_level(c: Curves) -> Reading | None:
    assert c.grokked is not None
    s = c.series("test_loss")
    s = s._replace(value=s.raw)  # of which the lowest so far counts: slingshots last longer than a running median bears
    level = levelled(s, c.settings, c.grokked.at)
    if not level.size:
        return None
    lowest = s.value[: level_end(s, c.settings, level[:1])[0] + 1].min()
    settled = (s.step >= c.grokked.at) & (s.value <= lowest + math.log(c.settings.settled))
    return first_level(s, np.flatnonzero(settled), c.settings)


def gap_closed(c: Curves) -> Reading | None:
    assert c.grokked is not None
    train, test = c.series("train_loss"), c.series("test_loss")
    step, i, j = np.intersect1d(train.step, test.step, assume_unique=True, return_indices=True)
    gap = test.value[j] - train.value[i]
    return crossing(Series(step, gap, gap, 0.0), gap <= math.log(c.settings.gap), c.grokked.at)


def _burst(quantity: str, sign: int, side: int) -> Callable[[Curves], Reading | None]:
    """A rule for one side (0 the onset, 1 the end) of a burst after memorization, which has a burst of its own."""

    def rule(c: Curves) -> Reading | None:
        flat, peak = read(c, MEMORIZATION, "losses_flat"), read(c, MEMORIZATION, "test_peak")
        if not flat or not peak:
            return None
        start = flat.at if flat.at < _drop(c) else peak.at
        found = burst(c.series(quantity), sign, c.settings, start)
        return found[side] if found else None

    return rule


_LOSSES = ("train_loss", "test_loss")

# By boundary and name; the first of each is the default.
RULES: dict[str, dict[str, Rule]] = {
    MEMORIZATION: {
        "losses_flat": Rule(
            losses_flat, _LOSSES, "train loss has levelled off and test loss has stopped rising: the later of the two"
        ),
        "train_level": Rule(train_level, ("train_loss",), "train loss has levelled off"),
        "test_peak": Rule(test_peak, _LOSSES, "test loss stops rising: its maximum before it drops"),
        "excluded_turn": Rule(
            excluded_turn, ("train_loss", "excluded_loss"), "excluded loss stops falling with train loss and rises"
        ),
    },
    CIRCUIT_FORMATION: {
        "test_drop": Rule(
            test_drop,
            ("test_loss", "chance"),
            "test loss drops below chance, or below where memorising left it, by the factor `drop`, ½",
        ),
        "test_half": Rule(
            test_half, ("test_loss",), "test accuracy reaches one half; without accuracies, test loss falls to ln 2"
        ),
        "excluded_peak": Rule(excluded_peak, ("train_loss", "excluded_loss"), "excluded loss stops rising"),
        "weights_drop": Rule(
            _burst("weights", -1, 0), (*_LOSSES, "weights"), "sum of squared weights starts its fastest fall"
        ),
        "gini_jump": Rule(_burst("gini", 1, 0), (*_LOSSES, "gini"), "Gini coefficient starts its fastest rise"),
    },
    CLEANUP: {
        "test_level": Rule(
            test_level,
            ("test_loss",),
            "test loss, once grokked, is within the factor `settled`, 2, of where it levels off",
        ),
        "gap_closed": Rule(
            gap_closed, _LOSSES, "test loss, once grokked, is within the factor `gap`, 10, of train loss"
        ),
        "weights_settled": Rule(
            _burst("weights", -1, 1), (*_LOSSES, "weights"), "sum of squared weights ends its fastest fall"
        ),
        "gini_settled": Rule(_burst("gini", 1, 1), (*_LOSSES, "gini"), "Gini coefficient ends its fastest rise"),
    },
}
