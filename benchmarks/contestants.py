"""Who is compared: PyTorch as one writes it, the paper's loop in it, and populations.

All start from the same weights and must have the same loss after three steps. Figures are per run. "PyTorch, paper's
loop" adds to each step the test loss, as the paper's code does.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import floor, mainline, timing
from benchmarks.timing import Contestant, Say
from grokjax.core.problem import Problem

AGREEMENT_STEPS, AGREEMENT_TOLERANCE = 3, 1e-4
ROUNDED_TOLERANCE = 1e-2  # where grokjax's products are less precise than float32
LEAST_STEPS = 3  # per visit
# Per visit of a population up to a width of 16, whose dispatches hold 100 steps in use and take time to set up.
LEAST_RUN_STEPS = 320
MOST_STEPS = 20

EAGER, PAPER_LOOP = "pytorch_eager", "pytorch_paper_loop"
EVALUATION, SQUARE = "evaluation", "square_pytorch"


def population_key(width: int) -> str:
    """What a population is called in the figures."""
    return f"population_{width}"


class Field(NamedTuple):
    """All contestants, each past its first steps.

    Attributes:
      problem: of the populations.
      contestants: in the order of their visits.
      agreement: the loss in nats that each reached with its first steps.
      evaluated: the width whose evaluation is timed.
      square: size of the matrices that measure the machine's rate.
    """

    problem: Problem
    contestants: Sequence[Contestant]
    agreement: Mapping[str, float]
    evaluated: int
    square: int

    @property
    def agree(self) -> bool:
        """Whether all contestants reached the same loss."""
        values = np.array(list(self.agreement.values()))
        return bool(np.ptp(values) <= self.tolerance * np.min(values))  # false for NaN

    @property
    def tolerance(self) -> float:
        """By how much their losses may differ."""
        return AGREEMENT_TOLERANCE if self.problem.precision == "float32" else ROUNDED_TOLERANCE


def gather(widths: Sequence[int], torch_device: str | None, say: Say = lambda text: None, **fields) -> Field:
    """Builds all contestants, which take their first steps.

    Args:
      widths: of the populations, ascending.
      torch_device: PyTorch's name of the device, or None to leave PyTorch out.
      say: shows what is going on.
      fields: of the config that differ from the mainline.
    """
    on_cpu = jax.default_backend() == "cpu"
    most_evaluated, square = (4, 2048) if on_cpu else (64, 8192)
    evaluated = max([width for width in widths if width <= most_evaluated], default=widths[0])
    # Only one of them is to evaluate the measures; the others need not compile them.
    problem, runs = mainline.mainline(max(widths), measures=(), **fields)
    found: list[Contestant] = []
    agreement = {}
    if torch_device:
        from benchmarks import eager

        first = mainline.populated(problem, runs[:1]).take([0])
        params = {key: np.asarray(value)[0] for key, value in first.params.items()}
        for key, name in ((EAGER, "PyTorch eager"), (PAPER_LOOP, "PyTorch eager, paper's loop")):
            say(f"building: {name}")
            training = eager.Training(problem, runs[0].inputs(), params, torch_device)
            advance = training.train if key == EAGER else training.train_and_test
            advance(AGREEMENT_STEPS)
            agreement[key] = training.step().item()
            found.append(Contestant(key, name, advance, least=LEAST_STEPS))
    for width in widths:
        key, name = population_key(width), f"grokjax population ×{width}"
        say(f"building: {name}")
        population = mainline.populated(problem, runs[:width])
        # Only the first run's loss is looked at; slots without a run in training cost nothing.
        agreement[key] = float(population.advance([0], 1, AGREEMENT_STEPS)["train_loss"][0, 0])
        least = max(LEAST_STEPS, min(MOST_STEPS, LEAST_RUN_STEPS // width))
        steps = functools.partial(mainline.train, population)
        found.append(Contestant(key, name, steps, width, least, problem.precision))
    name = f"evaluation ×{evaluated}"
    say(f"building: {name}")
    evaluations = functools.partial(mainline.evaluate, mainline.populated(*mainline.mainline(evaluated, **fields)))
    evaluations(1)
    found.append(Contestant(EVALUATION, name, evaluations, evaluated, precision=problem.precision))
    # Products that are done together: what fits caches on a CPU, many elsewhere.
    found += floor.contestants(problem, square, 1 if on_cpu else most_evaluated)
    if torch_device:
        products = eager.matmul(square, torch_device)
        found.append(Contestant(SQUARE, "PyTorch squares", products, work=2.0 * square**3))
    return Field(problem, found, agreement, evaluated, square)


def figures(problem: Problem, contestants: Sequence[Contestant], times: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Everything that is told of the timing, from seconds per run and step in each round."""
    rates = {one.key: one.work / times[one.key] for one in contestants if one.work}
    best = np.max([rate for key, rate in rates.items() if key != floor.BANDWIDTH], 0)
    floor_s = floor.seconds(problem, best, rates[floor.BANDWIDTH])
    lines = {}
    for one in (one for one in contestants if not one.work):
        seconds = times[one.key]
        line = {"name": one.name, "n_runs": one.n_runs, "precision": one.precision}
        line["run_step_s"] = timing.spread(seconds)
        if one.key != EVALUATION:
            line["share_of_floor"] = timing.spread(floor_s / seconds)
            for name, other in (("ratio_to_eager", EAGER), ("ratio_to_paper_loop", PAPER_LOOP)):
                line[name] = timing.spread(times[other] / seconds) if other in times else None
        lines[one.key] = line
    return {
        "rates": {key: timing.spread(value) for key, value in rates.items()},
        "floor_s": {problem.precision: timing.spread(floor_s)},
        "step_flop": floor.step_flop(problem),
        "step_bytes": floor.step_bytes(problem),
        "lines": lines,
    }
