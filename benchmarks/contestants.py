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
from grokjax.training.population import Population

AGREEMENT_STEPS, AGREEMENT_TOLERANCE = 3, 1e-4
LEAST_STEPS = 3  # per visit
# Per visit of a population up to a width of 16, whose dispatches hold 100 steps in use and take time to set up.
LEAST_RUN_STEPS = 320
MOST_STEPS = 20
MEMORY_SHARE = 0.5  # of the machine's memory that may be filled
STATE_COPIES = 4  # of a population's state while it starts
TIME_SHARE = 0.4  # of the time left that one contestant's visits may take

EAGER, COMPILED, PAPER_LOOP, VMAPPED = "pytorch_eager", "pytorch_compile", "pytorch_paper_loop", "pytorch_vmap"
EAGER_TF32, TOKENS, EVALUATION, SQUARE = "pytorch_eager_tf32", "jax_token_by_token", "evaluation", "square_pytorch"


def population_key(width: int, precision: str = "float32") -> str:
    """What a population is called in the figures."""
    return f"population_{width}" + (f"_{precision}" if precision != "float32" else "")


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
      precisions: of the populations beside float32.
      measures: groups whose evaluation is timed.
      fields: of the config that differ from the mainline.
    """

    widths: tuple[int, ...]
    torch_device: str | None
    side_by_side: int = 4
    square: int = 2048
    precisions: tuple[str, ...] = ()
    measures: tuple[str, ...] = ("paper",)
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def evaluated(self) -> int:
        """The width whose evaluation is timed."""
        return max([width for width in self.widths if width <= self.side_by_side], default=self.widths[0])

    @property
    def precise(self) -> tuple[int, ...]:
        """The widths at which every precision is timed: one that fits anywhere, and the widest."""
        return tuple(dict.fromkeys((self.evaluated, self.widths[-1])))


def setting(widths: tuple[int, ...], with_torch: bool) -> Setting:
    """What suits this machine: larger products and more precisions on an accelerator."""
    torch_device = machine.torch_device() if with_torch else None
    platform = jax.default_backend()
    if platform == "cpu":
        return Setting(widths, torch_device)
    precisions = tuple(floor.PRECISIONS)[1:] if platform == "gpu" else ()
    return Setting(widths, torch_device, side_by_side=64, square=8192, precisions=precisions)


class Field:
    """All contestants, each past its first steps, the losses those led to, and who was left out.

    Args:
      setting: what is to be compared.
      deadline: by time.monotonic; contestants that would not fit before it are left out.
      say: shows what is going on.
      clock: tells seconds.
    """

    def __init__(
        self,
        setting: Setting,
        deadline: float = float("inf"),
        say: Say = lambda text: None,
        clock: timing.Clock = time.perf_counter,
    ):
        self.setting, self.deadline, self.say, self.clock = setting, deadline, say, clock
        self.contestants: list[Contestant] = []
        self.agreement: dict[str, float] = {}
        self.left_out: dict[str, dict[str, Any]] = {}
        self._run_step_s = 0.0  # of the narrowest population, which is the slowest per run
        most = max(*setting.widths, setting.side_by_side)
        # Only one of them is to evaluate the measures; the others need not compile them.
        self.problem, self.runs = mainline.mainline(most, measures=(), **setting.fields)
        self._populations: dict[int, Population] = {}
        self._enlist_all()

    @property
    def agree(self) -> bool:
        """Whether all contestants in float32 reached the same loss."""
        values = np.array(list(self.agreement.values()))
        return bool(np.ptp(values) <= AGREEMENT_TOLERANCE * np.min(values))  # false for NaN

    def _enlist_all(self) -> None:
        setting = self.setting
        first, several = setting.widths[0], setting.side_by_side
        self._start_params = self._params(max(first, several))
        if setting.torch_device:
            self._enlist(EAGER, "PyTorch eager", self._eager)
            self._enlist(PAPER_LOOP, "PyTorch eager, paper's loop", self._paper_loop)
            self._enlist(COMPILED, "PyTorch, torch.compile", functools.partial(self._eager, compiled=True))
            self._enlist(VMAPPED, f"PyTorch, torch.func.vmap ×{several}", self._vmapped, several)
            if setting.torch_device == "cuda":
                self._enlist(EAGER_TF32, "PyTorch eager", self._eager_tf32, precision="tensorfloat32")
        self._enlist(TOKENS, f"JAX token by token ×{several}", self._tokens, several)
        for width in setting.widths:
            self._enlist_population(width, "float32")
        for precision in setting.precisions:
            for width in setting.precise:
                self._enlist_population(width, precision)
        name = f"evaluation ×{setting.evaluated}"
        self._enlist(EVALUATION, name, self._evaluation, setting.evaluated, least=1)
        rates = floor.contestants(self.problem, ("float32", *setting.precisions), setting.square, _rate_runs(setting))
        self.contestants += rates
        if setting.torch_device:
            from benchmarks import eager

            square = eager.matmul(setting.square, setting.torch_device)
            self.contestants.append(Contestant(SQUARE, "PyTorch squares", square, work=2.0 * setting.square**3))

    def _params(self, n_runs: int) -> dict[str, np.ndarray]:
        """The first parameters of some runs, stacked."""
        runs = mainline.populated(self.problem, self.runs[:n_runs])
        self._first_state = jax.tree.map(np.asarray, runs.take(range(n_runs)))
        return {key: np.asarray(value) for key, value in self._first_state.params.items()}

    def _enlist(
        self,
        key: str,
        name: str,
        build: Callable[[], Callable[[int], Any]],
        n_runs: int = 1,
        least: int = LEAST_STEPS,
        precision: str = "float32",
    ) -> None:
        """Builds a contestant and has it take its first steps, or notes why it is left out."""
        self.say(f"building: {name} {precision}")
        start = self.clock()
        try:
            self._check_time(n_runs * least * self._run_step_s)
            advance = build()
        except Exception as error:  # whatever keeps one contestant away, the others are to be timed
            self.left_out[key] = {"name": name, "n_runs": n_runs, "precision": precision, "reason": _reason(error)}
            return
        ready = self.clock() - start
        self.contestants.append(Contestant(key, name, advance, n_runs, least, precision, ready_s=ready))

    def _enlist_population(self, width: int, precision: str) -> None:
        least = max(LEAST_STEPS, min(MOST_STEPS, LEAST_RUN_STEPS // width))
        build = functools.partial(self._population, width, precision)
        key = population_key(width, precision)
        self._enlist(key, f"grokjax population ×{width}", build, width, least, precision)
        if key not in self.left_out and not self._run_step_s:
            self._run_step_s = timing.visit(self.contestants[-1], least, self.clock) / width

    def _check_time(self, visit_s: float) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise LeftOut("the others took the time that --minutes allows")
        if visit_s * (timing.LEAST_ROUNDS + 1) > TIME_SHARE * left:
            raise LeftOut(f"a visit would take {visit_s:.0f} s, more than --minutes allows")

    # --- the builders: each returns what advances, past its first steps --------------------------------------------

    def _torch_training(self, compiled: bool = False):
        from benchmarks import eager

        start = {key: value[0] for key, value in self._start_params.items()}
        return eager.Training(self.problem, self.runs[0].inputs(), start, self.setting.torch_device or "cpu", compiled)

    def _eager(self, compiled: bool = False):
        training = self._torch_training(compiled)
        training.train(AGREEMENT_STEPS)
        self.agreement[COMPILED if compiled else EAGER] = training.step().item()
        return training.train

    def _eager_tf32(self):
        from benchmarks import eager

        advance = eager.in_tensorfloat32(self._torch_training().train)
        advance(AGREEMENT_STEPS)
        return advance

    def _paper_loop(self):
        training = self._torch_training()
        train_losses = training.train_and_test(AGREEMENT_STEPS + 1)
        self.agreement[PAPER_LOOP] = train_losses[-1][0]
        return training.train_and_test

    def _vmapped(self):
        from benchmarks import vmapped

        n = self.setting.side_by_side
        params = {key: value[:n] for key, value in self._start_params.items()}
        inputs = [run.inputs() for run in self.runs[:n]]
        training = vmapped.Vmapped(self.problem, inputs, params, self.setting.torch_device or "cpu")
        training.train(AGREEMENT_STEPS)
        self.agreement[VMAPPED] = training.losses()[0].item()
        return training.train

    def _tokens(self):
        n = self.setting.side_by_side
        tokens = TokenByToken(self.problem, jax.tree.map(lambda x: x[:n], self._first_state))
        tokens.train(AGREEMENT_STEPS)
        self.agreement[TOKENS] = float(tokens.losses()[0])
        return tokens.train

    def _population(self, width: int, precision: str):
        self._check_memory(width)
        if precision == "float32":
            runs = mainline.populated(self.problem, self.runs[:width])
            self._populations[width] = runs
            steps = AGREEMENT_STEPS
        else:
            donor, steps = self._populations[width], 1
            problem = dataclasses.replace(self.problem, precision=precision)
            runs = Population(problem, donor.shape, jax.local_devices()[: donor.shape.n_devices])
            runs.restore(donor.take(range(width)), range(width))  # saves compiling how runs start
        # Only the first run's loss is looked at; lanes without a run in training cost nothing.
        row = runs.advance([0], 1, steps)
        loss = float(row["train_loss"][0, 0])
        if precision == "float32":
            self.agreement[population_key(width)] = loss
        return functools.partial(mainline.train, runs)

    def _check_memory(self, width: int) -> None:
        available = machine.memory_bytes()
        needed = STATE_COPIES * width * floor.step_bytes(self.problem) // 2
        if available and needed > MEMORY_SHARE * available:
            raise LeftOut(f"about {needed / 2**30:.0f} GiB of memory would be needed")

    def _evaluation(self):
        n = self.setting.evaluated
        problem, runs = mainline.mainline(n, measures=self.setting.measures, **self.setting.fields)
        population = mainline.populated(problem, runs)
        mainline.evaluate(population, 1)
        return functools.partial(mainline.evaluate, population)


def _rate_runs(setting: Setting) -> int:
    """Runs whose products are done together where the rate is measured: what fits caches on a CPU, many elsewhere."""
    return 1 if jax.default_backend() == "cpu" else setting.side_by_side


def _reason(error: Exception) -> str:
    """Why a contestant is not there, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    if isinstance(error, LeftOut):
        return first
    return f"{type(error).__name__}: {first}"[:160]


def figures(problem: Problem, contestants: Sequence[Contestant], times: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Everything that is told of the timing, from seconds per run and step in each round."""
    rated = [contestant for contestant in contestants if contestant.work]
    rates = {one.key: one.work / times[one.key] for one in rated}
    by_precision = {
        precision: np.max([rates[one.key] for one in rated if one.precision == precision and _is_product(one)], 0)
        for precision in dict.fromkeys(one.precision for one in rated)
    }
    floors = floor.seconds(problem, by_precision, rates[floor.BANDWIDTH])
    lines = {}
    for one in (one for one in contestants if not one.work):
        seconds = times[one.key]
        line = {"name": one.name, "n_runs": one.n_runs, "precision": one.precision, "ready_s": one.ready_s}
        line["run_step_s"] = timing.spread(seconds)
        if one.key != EVALUATION:
            line["share_of_floor"] = timing.spread(floors[one.precision] / seconds)
            for name, other in (("ratio_to_eager", EAGER), ("ratio_to_paper_loop", PAPER_LOOP)):
                line[name] = timing.spread(times[other] / seconds) if other in times else None
        lines[one.key] = line
    return {
        "rates": {key: timing.spread(value) for key, value in rates.items()},
        "floor_s": {precision: timing.spread(value) for precision, value in floors.items()},
        "step_flop": floor.step_flop(problem),
        "step_bytes": floor.step_bytes(problem),
        "lines": lines,
    }


def _is_product(contestant: Contestant) -> bool:
    return contestant.key != floor.BANDWIDTH


def evaluation_in_steps(setting: Setting, times: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """What one evaluation costs in training steps of a population as wide; None if either was left out."""
    trained = population_key(setting.evaluated)
    if EVALUATION not in times or trained not in times:
        return None
    return timing.spread(times[EVALUATION] / times[trained])
