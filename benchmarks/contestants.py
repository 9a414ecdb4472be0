"""Who is compared: PyTorch's ways of training the paper's model, the token-by-token JAX model, and populations.

All start from the same weights and must have the same loss after three steps. "×4" is four runs that train side by
side; figures are per run. "PyTorch, paper's loop" adds to each step the test loss, as the paper's code does.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import floor, machine, mainline, timing
from benchmarks.timing import Contestant, Say
from benchmarks.tokens import TokenByToken
from grokjax.core.problem import Problem

AGREEMENT_STEPS, AGREEMENT_TOLERANCE = 3, 1e-4
ROUNDED_TOLERANCE = 1e-2  # where grokjax's products are less precise than float32
LEAST_STEPS = 3  # per visit
# Per visit of a population up to a width of 16, whose dispatches hold 100 steps in use and take time to set up.
LEAST_RUN_STEPS = 320
MOST_STEPS = 20
TIME_SHARE = 0.4  # of the time left that one contestant's visits may take

EAGER, COMPILED, PAPER_LOOP, VMAPPED = "pytorch_eager", "pytorch_compile", "pytorch_paper_loop", "pytorch_vmap"
TOKENS, EVALUATION, SQUARE = "jax_token_by_token", "evaluation", "square_pytorch"

Advance = Callable[[int], Any]


def population_key(width: int) -> str:
    """What a population is called in the figures."""
    return f"population_{width}"


class LeftOut(Exception):
    """A contestant that is not there, and why."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is to be compared.

    Attributes:
      widths: of the populations, ascending.
      torch_device: PyTorch's name of the device, or None to leave PyTorch out.
      side_by_side: runs of those contestants that train several under vmap.
      square: size of the matrices that measure the machine's rate.
      measures: groups whose evaluation is timed.
      fields: of the config that differ from the mainline.
    """

    widths: tuple[int, ...]
    torch_device: str | None
    side_by_side: int = 4
    square: int = 2048
    measures: tuple[str, ...] = ("paper",)
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def evaluated(self) -> int:
        """The width whose evaluation is timed."""
        return max([width for width in self.widths if width <= self.side_by_side], default=self.widths[0])


def setting(widths: tuple[int, ...], with_torch: bool, precision: str) -> Setting:
    """What suits this machine: larger products on an accelerator."""
    torch_device = machine.torch_device() if with_torch else None
    side_by_side, square = (4, 2048) if jax.default_backend() == "cpu" else (64, 8192)
    return Setting(widths, torch_device, side_by_side, square, fields={"precision": precision})


class Field:
    """All contestants, each past its first steps, the losses those led to, and who was left out.

    Args:
      setting: what is to be compared.
      deadline: by time.monotonic; contestants that would not fit before it are left out.
      say: shows what is going on.
    """

    def __init__(self, setting: Setting, deadline: float = float("inf"), say: Say = lambda text: None):
        self.setting, self.deadline, self.say = setting, deadline, say
        self.contestants: list[Contestant] = []
        self.agreement: dict[str, float] = {}
        self.left_out: dict[str, dict[str, Any]] = {}
        self._run_step_s = 0.0  # of the narrowest population, which is the slowest per run
        most = max(*setting.widths, setting.side_by_side)
        # Only one of them is to evaluate the measures; the others need not compile them.
        self.problem, self.runs = mainline.mainline(most, measures=(), **setting.fields)
        several = max(setting.widths[0], setting.side_by_side)
        first = mainline.populated(self.problem, self.runs[:several]).take(range(several))
        self._first_state = jax.tree.map(np.asarray, first)
        self._enlist_all()

    @property
    def agree(self) -> bool:
        """Whether all contestants reached the same loss."""
        values = np.array(list(self.agreement.values()))
        return bool(np.ptp(values) <= self.tolerance * np.min(values))  # false for NaN

    @property
    def tolerance(self) -> float:
        """By how much their losses may differ."""
        return AGREEMENT_TOLERANCE if self.problem.precision == "float32" else ROUNDED_TOLERANCE

    def _enlist_all(self) -> None:
        setting, several = self.setting, self.setting.side_by_side
        if setting.torch_device:
            self._enlist(EAGER, "PyTorch eager", self._eager)
            self._enlist(PAPER_LOOP, "PyTorch eager, paper's loop", self._paper_loop)
            self._enlist(COMPILED, "PyTorch, torch.compile", functools.partial(self._eager, compiled=True))
            self._enlist(VMAPPED, f"PyTorch, torch.func.vmap ×{several}", self._vmapped, several)
        self._enlist(TOKENS, f"JAX token by token ×{several}", self._tokens, several)
        for width in setting.widths:
            least = max(LEAST_STEPS, min(MOST_STEPS, LEAST_RUN_STEPS // width))
            key, build = population_key(width), functools.partial(self._population, width)
            self._enlist(key, f"grokjax population ×{width}", build, width, least)
            if key not in self.left_out and not self._run_step_s:
                self._run_step_s = timing.visit(self.contestants[-1], least) / width
        self._enlist(EVALUATION, f"evaluation ×{setting.evaluated}", self._evaluation, setting.evaluated, least=1)
        # Products that are done together: what fits caches on a CPU, many elsewhere.
        together = 1 if jax.default_backend() == "cpu" else several
        self.contestants += floor.contestants(self.problem, setting.square, together)
        if setting.torch_device:
            from benchmarks import eager

            square = eager.matmul(setting.square, setting.torch_device)
            self.contestants.append(Contestant(SQUARE, "PyTorch squares", square, work=2.0 * setting.square**3))

    def _enlist(
        self,
        key: str,
        name: str,
        build: Callable[[], tuple[Advance, float | None]],
        n_runs: int = 1,
        least: int = LEAST_STEPS,
    ) -> None:
        """Builds a contestant, which takes its first steps and tells the loss, or notes why it is left out."""
        self.say(f"building: {name}")
        precision = "float32" if key.startswith("pytorch") else self.problem.precision
        start = time.perf_counter()
        try:
            self._check_time(n_runs * least * self._run_step_s)
            advance, loss = build()
        except Exception as error:  # whatever keeps one contestant away, the others are to be timed
            self.left_out[key] = {"name": name, "n_runs": n_runs, "precision": precision, "reason": _reason(error)}
            return
        if loss is not None:
            self.agreement[key] = loss
        ready_s = time.perf_counter() - start
        self.contestants.append(Contestant(key, name, advance, n_runs, least, precision, ready_s=ready_s))

    def _check_time(self, visit_s: float) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise LeftOut("the others took the time that --minutes allows")
        if visit_s * (timing.LEAST_ROUNDS + 1) > TIME_SHARE * left:
            raise LeftOut(f"a visit would take {visit_s:.0f} s, more than --minutes allows")

    # --- the builders: each returns what advances, past its first steps, and the loss there -------------------------

    def _torch_training(self, compiled: bool = False):
        from benchmarks import eager

        start = {key: value[0] for key, value in self._first_state.params.items()}
        return eager.Training(self.problem, self.runs[0].inputs(), start, self.setting.torch_device or "cpu", compiled)

    def _eager(self, compiled: bool = False):
        training = self._torch_training(compiled)
        training.train(AGREEMENT_STEPS)
        return training.train, training.step().item()

    def _paper_loop(self):
        training = self._torch_training()
        return training.train_and_test, training.train_and_test(AGREEMENT_STEPS + 1)[-1][0]

    def _vmapped(self):
        from benchmarks import eager

        n = self.setting.side_by_side
        params = {key: value[:n] for key, value in self._first_state.params.items()}
        inputs = [run.inputs() for run in self.runs[:n]]
        training = eager.Vmapped(self.problem, inputs, params, self.setting.torch_device or "cpu")
        training.train(AGREEMENT_STEPS)
        return training.train, training.loss()[0].item()

    def _tokens(self):
        n = self.setting.side_by_side
        tokens = TokenByToken(self.problem, jax.tree.map(lambda x: x[:n], self._first_state))
        tokens.train(AGREEMENT_STEPS)
        return tokens.train, float(tokens.losses()[0])

    def _population(self, width: int):
        runs = mainline.populated(self.problem, self.runs[:width])
        # Only the first run's loss is looked at; slots without a run in training cost nothing.
        row = runs.advance([0], 1, AGREEMENT_STEPS)
        return functools.partial(mainline.train, runs), float(row["train_loss"][0, 0])

    def _evaluation(self):
        n = self.setting.evaluated
        population = mainline.populated(*mainline.mainline(n, measures=self.setting.measures, **self.setting.fields))
        mainline.evaluate(population, 1)
        return functools.partial(mainline.evaluate, population), None


def _reason(error: Exception) -> str:
    """Why a contestant is not there, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    return first if isinstance(error, LeftOut) else f"{type(error).__name__}: {first}"[:160]


def figures(problem: Problem, contestants: Sequence[Contestant], times: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Everything that is told of the timing, from seconds per run and step in each round."""
    rates = {one.key: one.work / times[one.key] for one in contestants if one.work}
    best = np.max([rate for key, rate in rates.items() if key != floor.BANDWIDTH], 0)
    floor_s = floor.seconds(problem, best, rates[floor.BANDWIDTH])
    lines = {}
    for one in (one for one in contestants if not one.work):
        seconds = times[one.key]
        line = {"name": one.name, "n_runs": one.n_runs, "precision": one.precision, "ready_s": one.ready_s}
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


def evaluation_in_steps(setting: Setting, times: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """What one evaluation costs in training steps of a population as wide; None if either was left out."""
    trained = population_key(setting.evaluated)
    if EVALUATION not in times or trained not in times:
        return None
    return timing.spread(times[EVALUATION] / times[trained])
