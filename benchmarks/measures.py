"""What an evaluation of each group of measures costs, in training steps.

    python -m benchmarks.measures            # every group alone, then the paper's and all free ones together
    python -m benchmarks.measures --write    # also docs/measure_costs.json, from which docs/measures.md is made

One run of the mainline at P = 113 in float32. Training steps and evaluations are timed in turn, round by round, and the
ratio is the median of the rounds' ratios.
"""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks import command
from grokjax import config, sweeps
from grokjax.cli import terminal
from grokjax.measures import registry
from grokjax.training import layouts, one_run

STEPS = 10  # training steps per timing, so that both sides of the ratio take a comparable time
EVALUATIONS = 3  # in one program, as in a sweep's dispatches, so that its memory is asked for once
FREE = ("paper", "clock", "stability", "efficiency", "attention", "spectra", "gradients")
EVAL_EVERY = config.FIELDS["eval_every"].default


def seconds(function: Callable, *args) -> float:
    """Wall time of one call, results included."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def contenders(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What to time: the losses alone, each group, the paper's and all free ones together."""
    alone = {name: (name,) for name in names}
    return {registry.ALWAYS: (), **alone, "all free groups": FREE}


def measure(rounds: int, p: int) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Costs in training steps: median, and (min, max), by what is evaluated."""
    c = config.default()
    c.p = p
    run = sweeps.expand(c).runs[0]
    problem = run.problem()
    state = jax.jit(functools.partial(one_run.init, problem))(run.inputs())
    shape = layouts.choose(problem, 1)
    train = jax.jit(lambda state: one_run.train(problem, state, STEPS, shape.block, shape.n_parts))
    evaluate = {}
    for name, groups in contenders([g for g in registry.groups() if g != registry.ALWAYS]).items():
        slow = any(m.slow for m in registry.of_groups(groups))
        chosen = dataclasses.replace(problem, measures=groups)
        one = functools.partial(one_run.evaluate, chosen, slow=slow, in_native=bool(shape.n_parts))
        evaluate[name] = jax.jit(functools.partial(jax.lax.map, one))
    state = jax.block_until_ready(train(state))
    states = jax.tree.map(lambda x: jnp.stack([x] * EVALUATIONS), state)
    for function in evaluate.values():
        jax.block_until_ready(function(states))
    ratios: dict[str, list[float]] = {name: [] for name in evaluate}
    for _ in range(rounds):
        for name, function in evaluate.items():
            step = seconds(train, state) / STEPS
            ratios[name].append(seconds(function, states) / EVALUATIONS / step)
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return medians, {name: (min(values), max(values)) for name, values in ratios.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m benchmarks.measures", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=command.positive(int), default=7, help="rounds to take the median of")
    parser.add_argument("--p", type=command.positive(int), default=113, help="the modulus")
    parser.add_argument("--write", action="store_true", help="write docs/measure_costs.json")
    args = parser.parse_args(argv)
    medians, spread = measure(args.rounds, args.p)
    table = Table("group", "training steps", "min – max", f"of training, every {EVAL_EVERY} steps", box=None)
    for name, cost in medians.items():
        low, high = spread[name]
        table.add_row(name, f"{cost:.2f}", f"{low:.2f} – {high:.2f}", f"{100 * cost / EVAL_EVERY:.1f} %")
    Console(width=100).print(table)
    device = jax.devices()[0]
    machine = f"{device.device_kind} ({device.platform}), JAX {jax.__version__}, float32"
    print(f"{machine}; P = {args.p}, median of {args.rounds} rounds")
    if args.write:
        path = Path(__file__).parent.parent / "docs" / "measure_costs.json"
        steps = {name: round(cost, 2) for name, cost in medians.items()}
        record = {"command": "python -m benchmarks.measures --write", "machine": machine, "steps": steps}
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
