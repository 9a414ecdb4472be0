"""What an evaluation of each group of measures costs, in training steps.

    python -m benchmarks.measures            # every group alone, then the paper's and all free ones together
    python -m benchmarks.measures --write    # files the costs, from which docs/measures.md is made

One run of the mainline at P = 113 in float32. Training steps and evaluations are timed in turn, round by round, and the
ratio is the median of the rounds' ratios.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import command, mainline, markdown, timing
from benchmarks.command import ROOT
from benchmarks.timing import Contestant
from grokjax import config
from grokjax.cli import terminal
from grokjax.measures import registry
from grokjax.store import files
from grokjax.training import layouts, one_run

RECORD = ROOT / "benchmarks" / "records" / "measures.json"
STEPS = 10  # training steps per timing, so that both sides of the ratio take a comparable time
EVALUATIONS = 3  # in one program, as in a sweep's dispatches, so that its memory is asked for once
FREE = ("paper", "clock", "stability", "efficiency", "attention", "spectra", "gradients")
EVAL_EVERY = config.FIELDS["eval_every"].default


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """Costs in training steps by what is evaluated, with their spread."""
    problem, runs = mainline.mainline(1)
    state = jax.jit(functools.partial(one_run.init, problem))(runs[0].inputs())
    layout = layouts.choose(problem, 1)
    train = jax.jit(lambda state: one_run.train(problem, state, STEPS, layout.backend))
    state = jax.block_until_ready(train(state))
    states = jax.tree.map(lambda x: jnp.stack([x] * EVALUATIONS), state)
    step = Contestant("step", "step", _called(train, state))
    ratios: dict[str, list[float]] = {}
    evaluations = {}
    contenders = {name: (name,) for name in registry.groups()} | {registry.ALWAYS: (), "all free groups": FREE}
    for name, groups in contenders.items():
        slow = any(m.slow for m in registry.of_groups(groups))
        chosen = dataclasses.replace(problem, measures=groups)
        one = functools.partial(one_run.evaluate, chosen, slow=slow, backend=layout.backend)
        evaluate = jax.jit(functools.partial(jax.lax.map, one))
        jax.block_until_ready(evaluate(states))
        evaluations[name] = Contestant(name, name, _called(evaluate, states))
    for _ in range(rounds):
        for name, evaluation in evaluations.items():
            step_s = timing.visit(step, 1) / STEPS
            ratios.setdefault(name, []).append(timing.visit(evaluation, 1) / EVALUATIONS / step_s)
    return {name: timing.spread(values) for name, values in ratios.items()}


def _called(function: Callable, *args) -> Callable[[int], Any]:
    """One call, results included, whatever the number."""
    return lambda n: jax.block_until_ready(function(*args))


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("benchmarks.measures", __doc__)
    command.rounds(parser, 7)
    args = parser.parse_args(argv)
    costs = measure(args.rounds)
    rows = [[name, markdown.ranged(cost), f"{100 * cost['median'] / EVAL_EVERY:.1f} %"] for name, cost in costs.items()]
    print(markdown.table(["group", "training steps", f"of training, every {EVAL_EVERY} steps"], rows, numbers=2))
    device = jax.devices()[0]
    machine = f"{device.device_kind} ({device.platform}), JAX {jax.__version__}, float32"
    print(f"\n{machine}; P = 113, median of {args.rounds} rounds")
    if args.write:
        steps = {name: round(cost["median"], 2) for name, cost in costs.items()}
        record = {"command": "python -m benchmarks.measures --write", "machine": machine, "steps": steps}
        files.put((json.dumps(record, indent=1) + "\n").encode(), RECORD)
        print(f"{RECORD.relative_to(ROOT)} written; python -m tools.docs makes docs/measures.md anew.")


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
