"""Timing in turn: all contestants live in one process and are visited round after round.

Whatever else the machine does meets them alike then. Figures are medians over the rounds, ratios are taken within each
round first.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LEAST_ROUNDS = 3  # even where the time is up

Say = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Something to be timed.

    Attributes:
      key: its name in the figures.
      name: what tables call it.
      advance: does so many steps (or evaluations, or products) of every run and waits until they are done.
      n_runs: runs that advance together.
      least: the fewest steps of one visit.
      precision: of its matrix products.
      work: what one step does, in FLOP or bytes, if it measures a rate of the machine.
    """

    key: str
    name: str
    advance: Callable[[int], Any]
    n_runs: int = 1
    least: int = 1
    precision: str = "float32"
    work: float = 0.0


def measure(
    contestants: Sequence[Contestant],
    n_rounds: int,
    seconds: float,
    say: Say = lambda text: None,
    deadline: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Gives every contestant a trial visit, then times each once per round.

    Args:
      contestants: in the order of their visits, each warmed up.
      n_rounds: after the trial.
      seconds: that a visit should take.
      say: shows what is going on.
      deadline: by time.monotonic; once it has passed, rounds end, though not before LEAST_ROUNDS of them.
      clock: tells seconds.

    Returns:
      Seconds per run and step, {key: [rounds]}.
    """
    n_steps = {}
    for contestant in contestants:
        say(f"trial: {contestant.name}")
        n_steps[contestant.key] = max(contestant.least, round(seconds / visit(contestant, contestant.least, clock)))
    times: dict[str, list[float]] = {contestant.key: [] for contestant in contestants}
    for i in range(n_rounds):
        if i >= LEAST_ROUNDS and time.monotonic() > deadline:
            break
        for contestant in contestants:
            say(f"round {i + 1} of {n_rounds}: {contestant.name}")
            times[contestant.key].append(visit(contestant, n_steps[contestant.key], clock) / contestant.n_runs)
    return {key: np.array(values) for key, values in times.items()}


def visit(contestant: Contestant, n_steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Times some steps; returns seconds per step of all runs together."""
    start = clock()
    contestant.advance(n_steps)
    return max((clock() - start) / n_steps, 1e-9)


def spread(values) -> dict[str, Any]:
    """Median, smallest, largest, and each round's value."""
    values = np.asarray(values, float)
    return {
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "rounds": values.tolist(),
    }
