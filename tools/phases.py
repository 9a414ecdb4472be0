"""The check of `grokjax phases` on curves with planted phases, or none: what is read right, and what is invented.

    python -m tools.phases

Each setting is a shape of curves, drawn with other lengths for each of 40 seeds, half of them without accuracies, under
noise on the losses' logarithms from one evaluation to the next and under slingshots: two evaluations at which the
train loss is thrown up by three to nine nats and the test loss with it, about every twelve. Read right: where three
phases are planted, they are separate and each end lies within two evaluations of the interval that is given for it;
where none are, no circuit formation is reported. `python -m tools.docs` quotes the table in docs/phases.md.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.markdown import table
from grokjax import phases
from grokjax.cli import terminal

CHANCE = math.log(113)
EVERY = 100  # steps between evaluations
SEEDS = 40
SLACK = 2  # evaluations by which an end may be off
DISTURBED = {  # noise on the logarithms, and evaluations between slingshots (0: none)
    "smooth": (0.0, 0),
    "3 % noise": (0.03, 0),
    "slingshots": (0.0, 12),
    "both": (0.03, 12),
    "10 % noise": (0.1, 0),
}

Draw = np.random.Generator


class Curve(NamedTuple):
    """Losses that are straight between knots in their logarithms, by evaluation, and the planted ends, if any."""

    knots: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]
    ends: tuple[float, float, float] | None = None


def _phases(draw: Draw, circuit: tuple[int, int], cleanup: tuple[int, int]) -> tuple[float, float, float]:
    memorization = draw.uniform(8, 15)
    formed = memorization + draw.uniform(*circuit)
    return memorization, formed, formed + draw.uniform(*cleanup)


def _three(draw: Draw, circuit=(15, 60), cleanup=(8, 25), highest=16.0, before=8.0) -> Curve:
    ends = _phases(draw, circuit, cleanup)
    knots = [0, *ends, 1.5 * ends[-1] + draw.uniform(10, 60)]
    train, test = (CHANCE, 3e-7, 2.5e-7, 1e-7, 0.95e-7), (CHANCE, highest, before, 2.5e-7, 2.2e-7)
    return Curve(knots, train, test, ends)


def _quick(draw: Draw) -> Curve:
    return _three(draw, circuit=(6, 10), cleanup=(5, 8))


def _barely(draw: Draw) -> Curve:
    return _three(draw, circuit=(2, 4), cleanup=(2, 4))


def _half_of_the_pairs(draw: Draw) -> Curve:
    return _three(draw, highest=1.25, before=1.15)


def _never(draw: Draw) -> Curve:
    m = draw.uniform(8, 15)
    return Curve([0, m, 120], (CHANCE, 3e-7, 1e-7), (CHANCE, 16, draw.uniform(8, 14)))


def _never_half_of_the_pairs(draw: Draw) -> Curve:
    m, low = draw.uniform(1.5, 8), draw.uniform(1.0, 1.4)
    return Curve([0, 0.5 * m, m, 3 * m, 120], (CHANCE, 3.9, 5e-3, 1e-6, 1e-10), (CHANCE, 5.8, low, low, 0.8 * low))


def _never_but_for_a_spike(draw: Draw) -> Curve:
    m, at = draw.uniform(8, 15), int(draw.integers(20, 100))
    return Curve([0, m, at - 1, at, at + 1, 120], (CHANCE, *[3e-7] * 5), (CHANCE, 16, 14, 1e-3, 14, 12))


def _never_decayed(draw: Draw) -> Curve:
    return Curve(
        [0, *np.geomspace(5, 120, 6)], (CHANCE, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12), [CHANCE, *range(8, 32, 4)]
    )


def _almost(draw: Draw) -> Curve:
    m, c, k = _phases(draw, (15, 40), (8, 25))
    return Curve([0, m, c, k, 150], (CHANCE, 3e-7, 2.5e-7, 1e-7, 1e-7), (CHANCE, 16, 8, 0.5, 0.4))


def _together(draw: Draw) -> Curve:
    k, lag = draw.uniform(8, 40), draw.uniform(1, 1.5)
    return Curve([0, k, 120], (CHANCE, 1e-7, 0.9e-7), (CHANCE, 1e-7 * lag, 0.9e-7 * lag))


def _overlapping(draw: Draw) -> Curve:
    m, c = draw.uniform(40, 60), draw.uniform(10, 20)
    knots = [0, 3, c, c + 12, m, 120]
    train = np.exp(np.interp(knots, [0, m, 120], np.log([CHANCE, 1e-7, 0.9e-7]))).tolist()
    return Curve(knots, train, (CHANCE, 9, 8, 1e-6, 9e-7, 8e-7))


def _nothing(draw: Draw) -> Curve:
    return Curve([0, 120], (CHANCE, 0.98 * CHANCE), (CHANCE, 1.01 * CHANCE))


SETTINGS: dict[str, Callable[[Draw], Curve]] = {
    "three phases, as on the mainline": _three,
    "three phases, quick": _quick,
    "three phases, two of 2 to 4 evaluations": _barely,
    "three phases, half of the pairs trained on": _half_of_the_pairs,
    "never groks": _never,
    "never groks, half of the pairs trained on": _never_half_of_the_pairs,
    "never groks, but for one evaluation": _never_but_for_a_spike,
    "never groks, train loss falls for ever": _never_decayed,
    "generalises in part": _almost,
    "train and test loss fall together": _together,
    "test loss drops while train loss falls": _overlapping,
    "learns nothing": _nothing,
}


def drawn(curve: Curve, noise: float, spike_every: int, draw: Draw) -> pd.DataFrame:
    """One run's table of metrics."""
    step = np.arange(int(curve.knots[-1]) + 1, dtype=float)
    losses = [np.interp(step, curve.knots, np.log(values)) for values in (curve.train, curve.test)]
    train, test = (loss + noise * draw.standard_normal(step.size) * (step > 0) for loss in losses)
    for i in range(20, step.size - 4, spike_every) if spike_every else ():
        hit = slice(i + int(draw.integers(3)), i + 5)
        hit = slice(hit.start, hit.start + 2)
        train[hit] += draw.uniform(3, 9)
        test[hit] = np.maximum(test[hit], math.log(draw.uniform(1e-3, 2)))
    accuracies = {"train_acc": np.exp(-np.exp(train)), "test_acc": np.exp(-np.exp(test))}
    return pd.DataFrame({"step": EVERY * step, "train_loss": np.exp(train), "test_loss": np.exp(test), **accuracies})


class Outcome(NamedTuple):
    """What was made of one run: whether it was read right, and whether an end of circuit formation was given."""

    right: bool
    told: bool


def read(setting: str, noise: float, spike_every: int) -> list[Outcome]:
    """Reads the runs of one setting under one disturbance."""
    ends, tables = [], []
    for seed in range(SEEDS):
        draw = np.random.default_rng(seed)
        curve = SETTINGS[setting](draw)
        ends.append(curve.ends)
        metrics = drawn(curve, noise, spike_every, draw).assign(run=seed)
        tables.append(metrics if seed % 2 else metrics.assign(train_acc=np.nan, test_acc=np.nan))
    rows = phases.find_phases(pd.concat(tables)).to_dict("records")
    return [judged(row, some) for row, some in zip(rows, ends, strict=True)]


def judged(row: Mapping[Any, Any], ends: tuple[float, float, float] | None) -> Outcome:
    """What a row of `find_phases` made of a run with these planted ends."""
    told = bool(np.isfinite(row["circuit_formation_end"]))
    if ends is None:
        return Outcome(not told, told)
    off = [
        max(row[f"{name}_end_after"] - EVERY * end, EVERY * end - row[f"{name}_end_by"])
        for name, end in zip(phases.RULES, ends, strict=True)
    ]
    return Outcome(row["phases"] == "separate" and max(off) <= SLACK * EVERY, told)


def checked() -> str:
    """The table, in Markdown: the share read right by setting and disturbance, and how many phases were invented."""
    found = {setting: [read(setting, *disturbed) for disturbed in DISTURBED.values()] for setting in SETTINGS}
    rows = [[name, *(f"{np.mean([one.right for one in runs]):.0%}" for runs in some)] for name, some in found.items()]
    planted, none = (
        [run for name, some in found.items() if name.startswith("three") == three for runs in some for run in runs]
        for three in (True, False)
    )
    wrong = sum(run.told and not run.right for run in planted)
    said = (
        f"Read right where phases are planted: in {sum(run.right for run in planted):,} of {len(planted):,} runs, with "
    )
    said += f"wrong ends in {wrong:,}; the others are said to have no separate phases. "
    said += f"Phases invented where there are none: in {sum(run.told for run in none):,} of {len(none):,} runs."
    return f"{table(['read right', *DISTURBED], rows, len(DISTURBED))}\n\n{said}"


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    terminal.Parser(prog="python -m tools.phases", description=__doc__).parse_args(argv)
    terminal.say(checked())


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
