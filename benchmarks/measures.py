"""What an evaluation of each group of measures costs, in training steps.

    python -m benchmarks.measures            # every group alone, then the paper's and all free ones together
    python -m benchmarks.measures --write    # files the costs, from which docs/measures.md is made
    python -m benchmarks.measures --tasks    # the paper's alone, by what reads them: frequencies or blocks of groups;
                                             # with --write too, from which docs/groups.md is made

One run of the mainline at P = 113 in float32. Training steps and evaluations are timed in turn, round by round, and the
ratio is the median of the rounds' ratios. With --tasks each task has a run and training steps of its own.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import command, mainline, markdown, timing
from benchmarks.command import ROOT
from benchmarks.timing import Contestant
from grokjax import config
from grokjax.cli import terminal
from grokjax.core.problem import Problem
from grokjax.measures import registry
from grokjax.store import files
from grokjax.sweeps import Run
from grokjax.training import layouts, one_run

RECORD = ROOT / "benchmarks" / "records" / "measures.json"
TASKS_RECORD = RECORD.with_name("measures_by_task.json")
STEPS = 10  # training steps per timing, so that both sides of the ratio take a comparable time
EVALUATIONS = 3  # in one program, as in a sweep's dispatches, so that its memory is asked for once
FREE = ("paper", "clock", "stability", "efficiency", "attention", "spectra", "gradients")
EVAL_EVERY = config.FIELDS["eval_every"].default


# The mainline with other fields, and what its problem has instead of its own, by what its models are read by.
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a + b mod 113, frequencies": ({}, {}),
    "a + b mod 113, blocks of Z_113": ({}, {"group": "Z_113", "direction": None}),
    "a·b mod 113, blocks of its units": ({"task": "multiply"}, {}),
    "a∘b in S_5, blocks": ({"task": "group", "group": "S_5"}, {}),
}
Pair = tuple[Contestant, Contestant]  # training steps and evaluations


class Trained:
    """A run of a problem after some steps, to be timed."""

    def __init__(self, problem: Problem, run: Run):
        self.problem = problem
        state = jax.jit(functools.partial(one_run.init, problem))(run.inputs())
        self.backend = layouts.choose(problem, 1).backend
        train = jax.jit(lambda state: one_run.train(problem, state, STEPS, self.backend))
        self.state = jax.block_until_ready(train(state))
        self.step = Contestant("step", "step", _called(train, self.state))

    def evaluation(self, groups: Sequence[str]) -> Contestant:
        """Evaluations of some groups of measures, compiled."""
        slow = any(m.slow for m in registry.of_groups(groups))
        chosen = dataclasses.replace(self.problem, measures=tuple(groups))
        one = functools.partial(one_run.evaluate, chosen, slow=slow, backend=self.backend)
        evaluate = jax.jit(functools.partial(jax.lax.map, one))
        states = jax.tree.map(lambda x: jnp.stack([x] * EVALUATIONS), self.state)
        jax.block_until_ready(evaluate(states))
        return Contestant("evaluation", "evaluation", _called(evaluate, states))


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """Costs in training steps by what is evaluated, with their spread."""
    problem, runs = mainline.mainline(1)
    trained = Trained(problem, runs[0])
    contenders = {name: (name,) for name in registry.groups()} | {registry.ALWAYS: (), "all free groups": FREE}
    return _ratios({name: (trained.step, trained.evaluation(groups)) for name, groups in contenders.items()}, rounds)


def by_task(rounds: int) -> dict[str, dict[str, Any]]:
    """Costs of the paper's measures in training steps of the same task, with their spread."""
    pairs = {}
    for name, (fields, changed) in TASKS.items():
        problem, runs = mainline.mainline(1, **fields)
        trained = Trained(dataclasses.replace(problem, **changed), runs[0])
        pairs[name] = trained.step, trained.evaluation(("paper",))
    return _ratios(pairs, rounds)


def _ratios(pairs: Mapping[str, Pair], rounds: int) -> dict[str, dict[str, Any]]:
    """What an evaluation takes in training steps, by name, each pair timed once a round."""
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (step, evaluation) in pairs.items():
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
    parser.add_argument("--tasks", action="store_true", help="the paper's measures, by what reads a task's models")
    args = parser.parse_args(argv)
    costs = by_task(args.rounds) if args.tasks else measure(args.rounds)
    print(table(costs, "task" if args.tasks else "group"))
    device = jax.devices()[0]
    machine = f"{device.device_kind} ({device.platform}), JAX {jax.__version__}, float32"
    print(f"\n{machine}; {'' if args.tasks else 'P = 113, '}median of {args.rounds} rounds")
    if args.write:
        path = TASKS_RECORD if args.tasks else RECORD
        steps = {name: round(cost["median"], 2) for name, cost in costs.items()}
        usage = f"python -m benchmarks.measures{' --tasks' * args.tasks} --write"
        record = {"command": usage, "machine": machine, "steps": steps}
        if args.tasks:
            record["costs"] = costs
        files.put((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode(), path)
        print(f"{path.relative_to(ROOT)} written; python -m tools.docs makes the pages anew.")


def table(costs: Mapping[str, Mapping[str, Any]], first: str) -> str:
    """Costs as a table, with their range over the rounds."""
    rows = [[name, markdown.ranged(cost), f"{100 * cost['median'] / EVAL_EVERY:.1f} %"] for name, cost in costs.items()]
    return markdown.table([first, "training steps", f"of training, every {EVAL_EVERY} steps"], rows, numbers=2)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
