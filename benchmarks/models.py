"""What a training step of other models than the mainline's costs, beside PyTorch eager.

    python -m benchmarks.models            # two layers in batches of 512, and an MLP of two hidden layers of 200
    python -m benchmarks.models --write    # files the figures, from which docs/performance.md is made

Both at P = 113, in float32. All contestants of a model start from the same weights and see the same batches of the
first epoch; they must have the same loss after three steps, before anything is timed. Ratios are medians of those of
each round. The floor is the time of the gradient's operations, as XLA counts them, at the rate of a large square
product in the same rounds: no program with these operations goes below it, and PyTorch's time over it is the most that
a ratio can be.
"""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import command, contestants, floor, machine, mainline, timing
from benchmarks.command import Record
from benchmarks.contestants import AGREEMENT_STEPS, AGREEMENT_TOLERANCE, population_key
from benchmarks.markdown import ranged, table
from benchmarks.timing import Contestant, Say
from grokjax.cli import terminal
from grokjax.core import backends, batches, devices, model
from grokjax.core.problem import Inputs, Problem
from grokjax.errors import InputError

WIDTHS = (1, 4)
SECONDS = 0.5  # that a visit should take
SQUARE = 2048  # size of the matrices that measure the machine's rate

MODELS: dict[str, dict[str, Any]] = {
    "two layers, batches of 512": {"n_layers": 2, "batch_size": 512},
    "MLP 200–200 on one-hot tokens": {
        "architecture": "mlp",
        "inputs": "one_hot",
        "n_layers": 2,
        "d_mlp": 200,
        "train_fraction": 0.4,
    },
}


def step_flop(problem: Problem, inputs: Inputs) -> float:
    """Operations of a step's gradient, as XLA counts them."""
    pairs = inputs.train_pairs[: problem.n_step]

    def loss(params, pairs, labels):
        return backends.loss(problem, params, model.lookup(pairs, problem.model.p), labels)

    params = jax.eval_shape(lambda key: model.init(problem.model, key, 1.0), jax.random.key(0))
    counted = jax.jit(jax.grad(loss)).lower(params, pairs, inputs.answers[pairs]).cost_analysis() or {}
    return float(counted["flops"])


def gather(fields: dict[str, Any], torch_device: str, say: Say) -> tuple[list[Contestant], dict[str, float]]:
    """The contestants of one model, past their first steps, and the loss in nats that each has reached."""
    from benchmarks import eager

    problem, runs = mainline.mainline(max(WIDTHS), measures=(), **fields)
    inputs = runs[0].inputs()
    first = mainline.populated(problem, runs[:1]).take([0])
    params = {key: np.asarray(value)[0] for key, value in first.params.items()}
    order = [*np.asarray(batches.epoch(problem, inputs, 0))] if problem.batch_size else []
    say("building: PyTorch eager")
    training = eager.Training(problem, inputs, params, torch_device, order[:-1])
    training.train(AGREEMENT_STEPS)
    agreement = {contestants.EAGER: training.evaluate(training.train_data)}
    found = [Contestant(contestants.EAGER, "PyTorch eager", training.train, least=contestants.LEAST_STEPS)]
    for width in WIDTHS:
        say(f"building: ×{width}")
        population = mainline.populated(problem, runs[:width])
        key = population_key(width)
        agreement[key] = float(population.advance([0], 1, AGREEMENT_STEPS)["train_loss"][0, 0])
        steps = functools.partial(mainline.train, population)
        found.append(Contestant(key, f"grokjax ×{width}", steps, width, contestants.MOST_STEPS))
    return found, agreement


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """The training steps of all models.

    Raises:
      InputError: PyTorch is not installed.
      SystemExit: contestants do not train alike.
    """
    if not importlib.util.find_spec("torch"):
        raise InputError("PyTorch is not installed: pip install -e '.[bench]'.")
    devices.spread(max(WIDTHS))  # before JAX is asked for its devices
    torch_device = machine.torch_device()
    found = {}
    for name, fields in MODELS.items():
        entered, agreement = gather(fields, torch_device, say)
        if not np.ptp([*agreement.values()]) <= AGREEMENT_TOLERANCE * min(agreement.values()):
            reached = ", ".join(f"{key} {loss:.6f}" for key, loss in agreement.items())
            print(f"{name}: after {AGREEMENT_STEPS} steps the losses DISAGREE: {reached}", file=sys.stderr)
            sys.exit(1)
        square = floor.squares("float32", SQUARE)
        square.advance(1)
        problem, runs = mainline.mainline(1, measures=(), **fields)
        flop = step_flop(problem, runs[0].inputs())
        times = timing.measure([*entered, square], args.rounds, SECONDS, say)
        times["floor"] = flop * times.pop(square.key) / square.work
        ratios = {key: timing.spread(times[contestants.EAGER] / seconds) for key, seconds in times.items()}
        figures = {"run_step_s": {key: timing.spread(value) for key, value in times.items()}, "ratios": ratios}
        found[name] = {"step_flop": flop, **figures}
    return {"models": found, "torch_device": torch_device}


def page(record: Record) -> str:
    """The figures as Markdown."""
    keys = [*map(population_key, WIDTHS), "floor"]
    header = ["", "PyTorch eager, ms per run-step"]
    for name in (*(f"×{width}" for width in WIDTHS), "the floor"):
        header += [f"{name}, ms per run-step", f"PyTorch eager's time / {name}"]
    rows = []
    for name, figures in record["models"].items():
        row = [name, ranged(figures["run_step_s"][contestants.EAGER], 1e3)]
        for key in keys:
            row += [ranged(figures["run_step_s"][key], 1e3), ranged(figures["ratios"][key])]
        rows.append(row)
    flop = ", ".join(f"{figures['step_flop'] / 1e9:.2f} GFLOP ({name})" for name, figures in record["models"].items())
    return (
        f"{table(header, rows, numbers=len(header) - 1)}\n\nThe gradient of a run-step is {flop}. The floor is these "
        "operations alone, at the rate of a large float32 product in the same rounds: PyTorch eager spends much "
        "of its time on such products, so no program gains more on it than the last column without leaving some out.\n"
    )


def main(argv: Sequence[str]) -> None:
    """Entry point: exits with 1 if the contestants do not train alike."""
    parser = command.parser("benchmarks.models", __doc__)
    command.rounds(parser, 7)
    command.run(parser, measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
