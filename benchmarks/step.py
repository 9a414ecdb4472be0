"""What one training step costs: grokjax's populations beside plain PyTorch, on the paper's model and data.

    python -m benchmarks.step

All contenders live in one process and are visited in turn, round after round, so that whatever else the machine does
meets them alike; figures are medians over rounds, ratios are taken within each round first. Before anything is timed,
the contenders train from the same weights for three steps and must end with the same loss. "×4" is four runs that
train side by side; figures are per run. "PyTorch, paper's loop" adds to each step the test loss, as the paper's code
does. How busy other programs kept the processor meanwhile is printed too: PyTorch's threads wait for one another and
lose more to such company than XLA's, so ratios are only to be quoted from a machine left alone. Where that is not to
be had, --one-core pins the process to one core and counts the processor time that it gets.

The dense floor is what one run's step would take if it were nothing but its three largest products at the rate the
machine multiplies large squares: 3 (forward, two gradients) × 2 × pairs × (d_model·d_mlp + d_mlp·d_model + d_model·P)
operations, one position per pair. The factored step folds W_out into W_U and so needs a little less than that.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from grokjax import config, losses, model, optimizers, population, results, sweeps, training
from grokjax.population import Population
from grokjax.sweeps import Run
from grokjax.training import Problem, State

WIDTHS = (1, 4, 16)  # of the factored populations
TOKEN_WIDTH = 4  # of the token-by-token model under vmap, and of the population whose evaluation is timed
MEMORY_WIDTH = 25  # five weight decays × five seeds
AGREEMENT_STEPS, AGREEMENT_TOLERANCE = 3, 1e-4
SQUARE = 2048  # of the matrices that measure the machine's rate
LEAST_STEPS = 3  # per visit
LEAST_RUN_STEPS = 24  # per visit of a population: a dispatch sets up what some 0.4 steps cost, and has 100 in use
TARGET_RATIO, TARGET_GIB = 4.0, 3.0

EAGER, PAPER_LOOP, TOKENS, EVALUATION = "pytorch_eager", "pytorch_paper_loop", "jax_token_by_token", "evaluation"
FACTORED = {width: f"factored_{width}" for width in WIDTHS}
MATMULS = ("matmul_jax", "matmul_pytorch")


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
      key: its name in the figures.
      name: what the table calls it.
      advance: does so many steps (or evaluations, or products) of every run and waits until they are done.
      n_runs: runs that advance together.
      least: the fewest steps of one visit.
    """

    key: str
    name: str
    advance: Callable[[int], Any]
    n_runs: int = 1
    least: int = 1


def mainline(n_runs: int) -> tuple[Problem, tuple[Run, ...]]:
    """The paper's mainline with so many seeds: what its runs share, and the runs."""
    c = config.default()
    c.measures = ("paper",)
    c.sweep.seed = tuple(range(n_runs))
    runs = sweeps.expand(c).runs
    return runs[0].problem(), runs


def floor_flop(problem: Problem) -> int:
    """Operations of the dense floor of one run's step."""
    cfg = problem.model
    return 3 * 2 * problem.n_train * (2 * cfg.d_model * cfg.d_mlp + cfg.d_model * cfg.p)


# --- contenders in JAX --------------------------------------------------------------------------------------------


def populated(problem: Problem, runs: Sequence[Run]) -> Population:
    """These runs as a population on one device, one slot each, laid out as grokjax chooses; before their first step."""
    devices = jax.local_devices()[:1]
    shape = population.choose(problem, len(runs), slots=len(runs), devices=devices)
    result = Population(problem, shape, devices)
    result.start({i: run.inputs() for i, run in enumerate(runs)})
    return result


def train(runs: Population, n_steps: int) -> None:
    """Steps of a whole population, without evaluation."""
    runs.advance(range(runs.shape.width), 1, n_steps, evaluate=False)
    jax.block_until_ready(runs.state)


def evaluate(runs: Population, n_times: int) -> None:
    """Evaluations of a whole population, each a dispatch of no steps."""
    for _ in range(n_times):
        row = runs.advance(range(runs.shape.width), 1, 0)
    jax.block_until_ready(row)


class TokenByToken:
    """Runs of the token-by-token model under vmap, with grokjax's loss and optimizer.

    Args:
      problem: the static part that all runs share.
      state: the runs, stacked; it is used up.
    """

    def __init__(self, problem: Problem, state: State):
        self.state = state
        steps = functools.partial(_token_steps, problem)
        self._train = jax.jit(jax.vmap(steps, (0, None)), donate_argnums=0)
        self._losses = jax.jit(jax.vmap(functools.partial(_token_loss, problem)))

    def train(self, n_steps: int) -> None:
        """Steps of all runs."""
        self.state = jax.block_until_ready(self._train(self.state, n_steps))

    def losses(self) -> np.ndarray:
        """Each run's training loss, [runs]."""
        return np.asarray(self._losses(self.state.params, self.state.inputs))


def _token_loss(problem: Problem, params: model.Params, inputs: training.Inputs) -> jax.Array:
    with jax.default_matmul_precision(problem.precision):
        logits_BxP, _ = model.token_by_token(problem.model, params, model.Pairs(inputs.train_pairs))
    return jnp.mean(losses.cross_entropy(logits_BxP, inputs.answers[inputs.train_pairs]))


def _token_steps(problem: Problem, state: State, n_steps) -> State:
    def step(_, state):
        with jax.default_matmul_precision(problem.precision):
            grads = jax.grad(_token_loss, 1)(problem, state.params, state.inputs)
        optimizer = optimizers.build(problem.optimizer, state.inputs.hyperparameters)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state, state.inputs)

    return jax.lax.fori_loop(0, n_steps, step, state)


def matmul(n: int) -> Callable[[int], None]:
    """A function that multiplies two float32 [n, n] matrices so many times and waits."""
    a, b = jax.random.normal(jax.random.key(0), (2, n, n))
    multiply = jax.jit(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))

    def repeat(n_times: int) -> None:
        for _ in range(n_times):
            product = multiply(a, b)
        product.block_until_ready()

    return repeat


# --- what is compared ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Field:
    """All contenders, each before its first step, and the losses that three steps led them to."""

    contenders: list[Contender]
    agreement: dict[str, float]

    @property
    def agree(self) -> bool:
        """Whether all contenders reached the same loss."""
        values = np.array(list(self.agreement.values()))
        return bool(np.ptp(values) <= AGREEMENT_TOLERANCE * np.min(values))  # false for NaN


def assemble(problem: Problem, runs: Sequence[Run], torch_device: str | None) -> Field:
    """Builds the contenders and takes the first three steps of run 0 in each kind of them.

    Args:
      problem: the static part that all runs share.
      runs: as many as the widest population has.
      torch_device: PyTorch's name of the device, or None to leave PyTorch out.
    """
    # Only one of them is to evaluate the measures; the others need not compile them.
    lean = dataclasses.replace(problem, measures=())
    populations = {w: populated(problem if w == TOKEN_WIDTH else lean, runs[:w]) for w in WIDTHS}
    tokens = TokenByToken(problem, populations[TOKEN_WIDTH].take(range(TOKEN_WIDTH)))
    contenders: list[Contender] = []
    agreement: dict[str, float] = {}
    if torch_device:
        start = {key: value[0] for key, value in populations[1].take([0]).params.items()}
        contenders, agreement[EAGER] = _in_pytorch(problem, runs[0], start, torch_device)
    tokens.train(AGREEMENT_STEPS)
    agreement[TOKENS] = float(tokens.losses()[0])
    row = populations[1].advance([0], 1, AGREEMENT_STEPS)
    agreement[FACTORED[1]] = float(row["train_loss"][0, 0])
    name = f"JAX token by token ×{TOKEN_WIDTH}"
    contenders.append(Contender(TOKENS, name, tokens.train, TOKEN_WIDTH, LEAST_STEPS))
    for width, runs_ in populations.items():
        name = f"factored population ×{width}"
        least = max(LEAST_STEPS, LEAST_RUN_STEPS // width)
        contenders.append(Contender(FACTORED[width], name, functools.partial(train, runs_), width, least))
    measured = functools.partial(evaluate, populations[TOKEN_WIDTH])
    contenders.append(Contender(EVALUATION, f"one evaluation ×{TOKEN_WIDTH}", measured, TOKEN_WIDTH))
    contenders.append(Contender(MATMULS[0], "", matmul(SQUARE)))
    return Field(contenders, agreement)


def _in_pytorch(problem: Problem, run: Run, params: Mapping[str, Any], device: str) -> tuple[list[Contender], float]:
    """The contenders in PyTorch, and the loss that the first three steps lead to."""
    from benchmarks import eager

    def fresh():
        return eager.Training(problem, run.inputs(), params, device)

    step, loop = fresh(), fresh()
    step.train(AGREEMENT_STEPS)
    contenders = [
        Contender(EAGER, "PyTorch eager", step.train, least=LEAST_STEPS),
        Contender(PAPER_LOOP, "PyTorch, paper's loop", loop.train_and_test, least=LEAST_STEPS),
        Contender(MATMULS[1], "", eager.matmul(SQUARE, device)),
    ]
    return contenders, step.evaluate(step.train_data)


# --- timing -------------------------------------------------------------------------------------------------------


Clock = Callable[[], float]


def measure(contenders: Sequence[Contender], n_rounds: int, seconds: float, clock: Clock, say: Callable[[str], None]):
    """Warms everything up, then times every contender once per round.

    Args:
      contenders: in the order of their visits.
      n_rounds: after the warm-up.
      seconds: that a visit should take.
      clock: tells seconds.
      say: shows what is going on.

    Returns:
      Seconds per run and step, {key: [rounds]}.
    """
    n_steps = {}
    for contender in contenders:
        say(f"warming up: {contender.name or 'matrix products'}")
        contender.advance(1)
        n_steps[contender.key] = max(contender.least, round(seconds / _seconds(contender, contender.least, clock)))
    times: dict[str, list[float]] = {contender.key: [] for contender in contenders}
    for i in range(n_rounds):
        say(f"round {i + 1} of {n_rounds}")
        for contender in contenders:
            spent = _seconds(contender, n_steps[contender.key], clock)
            times[contender.key].append(spent / contender.n_runs)
    return {key: np.array(values) for key, values in times.items()}


def _seconds(contender: Contender, n_steps: int, clock: Clock) -> float:
    """Seconds per step of all runs together."""
    start = clock()
    contender.advance(n_steps)
    return (clock() - start) / n_steps


def figures(problem: Problem, field: Field, times: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Everything that is printed, from seconds per run and step in each round."""
    rates = [2 * SQUARE**3 / times[key] for key in MATMULS if key in times]
    floor_s = floor_flop(problem) / np.max(rates, 0)
    lines = {}
    for contender in field.contenders:
        if contender.key in MATMULS:
            continue
        seconds = times[contender.key]
        lines[contender.key] = {"name": contender.name, "n_runs": contender.n_runs, "ms": _spread(1e3 * seconds)}
        if contender.key != EVALUATION:
            lines[contender.key]["share_of_floor"] = _spread(floor_s / seconds)
            lines[contender.key]["ratio_to_eager"] = _spread(times[EAGER] / seconds) if EAGER in times else None
    return {
        "agreement": field.agreement,
        "matmul_gflop_per_s": _spread(np.max(rates, 0) / 1e9),
        "floor_ms": _spread(1e3 * floor_s),
        "lines": lines,
        "evaluation_in_steps": _spread(times[EVALUATION] / times[FACTORED[TOKEN_WIDTH]]),
    }


def _spread(values: np.ndarray) -> dict[str, Any]:
    return {
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "rounds": values.tolist(),
    }


# --- memory --------------------------------------------------------------------------------------------------------


def peak_gib() -> float:
    """Trains and evaluates a population of 25 in this process; returns the process's peak resident memory in GiB."""
    problem, runs = mainline(MEMORY_WIDTH)
    jax.block_until_ready(populated(problem, runs).advance(range(MEMORY_WIDTH), 1, LEAST_STEPS))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def peak_gib_apart() -> float:
    """`peak_gib` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peak_gib).result()


# --- what one sees ------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> Table:
    """The figures, one line per contender."""
    result = Table(box=None, pad_edge=False)
    result.add_column("")
    for name in ("ms per\nrun-step", "min – max", "PyTorch eager's\ntime / this", "of dense\nfloor"):
        result.add_column(name, justify="right", no_wrap=True)
    for line in found["lines"].values():
        ms, ratio, share = line["ms"], line.get("ratio_to_eager"), line.get("share_of_floor")
        result.add_row(
            line["name"],
            _number(ms["median"]),
            f"{_number(ms['min'])} – {_number(ms['max'])}",
            f"{ratio['median']:.2f} ({ratio['min']:.2f} – {ratio['max']:.2f})" if ratio else "–",
            f"{100 * share['median']:.0f} %" if share else "–",
        )
    return result


def _number(value: float) -> str:
    """Three digits, as a plain decimal."""
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(value))))}f}"


def agreement_line(field: Field) -> str:
    """Whether all contenders do the same."""
    reached = ", ".join(f"{key} {value:.6f}" for key, value in field.agreement.items())
    verdict = "agree" if field.agree else "DISAGREE"
    return f"same step: losses after {AGREEMENT_STEPS} steps {verdict} within {AGREEMENT_TOLERANCE:g}: {reached}"


def evaluation_line(found: Mapping[str, Any]) -> str:
    """What an evaluation costs in training steps."""
    cost = found["evaluation_in_steps"]
    return (
        f"evaluation: one costs {cost['median']:.1f} ({cost['min']:.1f} – {cost['max']:.1f}) steps of the same "
        "population"
    )


def floor_line(problem: Problem, found: Mapping[str, Any]) -> str:
    """The dense floor and the rate it comes from."""
    rate, floor = found["matmul_gflop_per_s"], found["floor_ms"]
    return (
        f"dense floor: {_number(floor['median'])} ms per run-step, {floor_flop(problem) / 1e9:.2f} GFLOP at the "
        f"{_number(rate['median'])} ({_number(rate['min'])} – {_number(rate['max'])}) GFLOP/s of float32 products of "
        f"{SQUARE} × {SQUARE}"
    )


def target_line(found: Mapping[str, Any], environment: Mapping[str, Any], sound: bool) -> str:
    """Whether the factored population is as fast as is claimed."""
    claim = f"target, the factored population needs at most 1/{TARGET_RATIO:g} of PyTorch eager's time"
    if EAGER not in found["lines"]:
        return f"{claim}: not judged without PyTorch"
    if (environment["torch_device"] == "cpu") != (environment["platform"] == "cpu"):
        return f"{claim}: not judged, since PyTorch and JAX run on different devices"
    ratios = {width: found["lines"][key]["ratio_to_eager"]["median"] for width, key in FACTORED.items()}
    verdict = "holds" if min(ratios.values()) >= TARGET_RATIO else "missed"
    if not sound:
        verdict = "not judged on a busy machine"
    return f"{claim}: {verdict} (" + ", ".join(f"{r:.2f} at width {w}" for w, r in ratios.items()) + ")"


# --- the command --------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.step",
        description="Times a training step of the paper's model in PyTorch and in grokjax, in one process.",
        epilog="Exits with 0, with 1 if the contenders do not train alike, and with 2 for bad input.",
    )
    parser.add_argument("--rounds", type=_positive(int), default=5, help="Rounds to take medians over (default: 5).")
    parser.add_argument(
        "--seconds", type=_positive(float), default=0.5, help="Seconds a visit should take (default: 0.5)."
    )
    parser.add_argument("--no-torch", action="store_true", help="Leave PyTorch out; no ratios are given then.")
    parser.add_argument(
        "--one-core",
        action="store_true",
        help="Use one CPU core and count processor time, which other programs on the machine disturb little.",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help=f"Only measure the peak memory of a population of {MEMORY_WIDTH}, in a process of its own.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures there too.")
    return parser.parse_args(argv)


def _positive(type_: Callable[[str], Any]):
    def convert(text: str):
        value = type_(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is given, but it must be greater than 0 and finite")
        return value

    convert.__name__ = type_.__name__  # argparse names it where the text does not parse
    return convert


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse(argv)
    if args.json and not args.json.parent.is_dir():
        return _fail(f"--json={args.json} cannot be written: {args.json.parent} is no directory.")
    if args.memory:
        return memory(args)
    if not args.no_torch and not importlib.util.find_spec("torch"):
        return _fail("PyTorch is not installed: pip install -e '.[bench]', or leave it out with --no-torch.")
    if args.one_core and not machine.pin_to_one_core():
        return _fail("--one-core needs JAX on the CPU of a Linux machine.")
    return speed(args)


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


def memory(args: argparse.Namespace) -> int:
    """Measures peak memory and prints it."""
    peak = peak_gib_apart()
    verdict = "holds" if peak < TARGET_GIB else "missed"
    print(f"peak resident memory, P = 113, {MEMORY_WIDTH} runs with evaluation: {peak:.2f} GiB")
    print(machine.line(machine.environment(None)))
    print(f"target, under {TARGET_GIB:g} GiB: {verdict}")
    _write(args.json, {"width": MEMORY_WIDTH, "peak_resident_gib": peak, "machine": machine.environment(None)})
    return 0


def speed(args: argparse.Namespace) -> int:
    """Times all contenders and prints the table."""
    console = Console()
    problem, runs = mainline(max(WIDTHS))
    torch_device = None if args.no_torch else machine.torch_device()
    with Console(stderr=True).status("building and compiling") as status:
        field = assemble(problem, runs, torch_device)
        console.print(agreement_line(field), highlight=False, soft_wrap=True)
        if not field.agree:
            return 1
        others = machine.Others()
        clock = time.process_time if args.one_core else time.perf_counter
        times = measure(field.contenders, args.rounds, args.seconds, clock, status.update)
        share = others.share()
    found, environment = figures(problem, field, times), machine.environment(torch_device)
    console.print("", table(found), "", sep="\n")
    for line in (
        evaluation_line(found),
        floor_line(problem, found),
        machine.line(environment),
        machine.one_core_line() if args.one_core else machine.others_line(share),
        target_line(found, environment, share is None or share <= machine.QUIET or args.one_core),
    ):
        console.print(line, highlight=False, soft_wrap=True)
    _write(args.json, {**found, "one_core": args.one_core, "others_share_of_processor": share, "machine": environment})
    return 0


def _write(path: Path | None, found: Mapping[str, Any]) -> None:
    if path:
        results.write_text(json.dumps(found, indent=1) + "\n", path)


if __name__ == "__main__":
    sys.exit(main())
