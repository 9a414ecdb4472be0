"""Loss curves with boundaries that are known: planted ones, and the published ones where they are at hand."""

import math

import numpy as np
import pandas as pd
import pytest
from cases import REFERENCE

from grokjax.phases.rules import RULES

ENDS = [f"{boundary}_end" for boundary in RULES]
CHANCE = math.log(113)


def reference(name):
    path = REFERENCE / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"needs ../shared/reference/{name}.csv")
    return pd.read_csv(path)


def planted(memorization, circuit, cleanup, budget, every=100, noise=0.0, spike_every=0, seed=0):
    """Curves with the paper's signs and known boundaries, straight between them on the scale they are read on.

    `noise` is that of the losses' logarithms; weights and Gini coefficients, sums over many numbers, have a twentieth.
    Slingshots come every `spike_every` evaluations, with jitter, and last one or two.
    """
    rng = np.random.default_rng(seed)
    step = np.arange(0, budget + 1, every, dtype=float)

    def line(*values, size=1.0):
        value = np.interp(step, [0, memorization, circuit, cleanup, budget], values)
        return value + noise * size * rng.standard_normal(step.size) * (step > 0)

    def curve(*values, size=1.0):
        return line(*np.log(values), size=size)

    curves = {
        "train_loss": curve(CHANCE, 3e-7, 2.5e-7, 1e-7, 0.95e-7),
        "test_loss": curve(CHANCE, 16, 8, 2.5e-7, 2.2e-7),
        "excluded_loss_max": curve(CHANCE, 0.5, 15, 7, 7.5),
        "sum_sq_weights": curve(3_300, 3_100, 2_200, 950, 845, size=0.05),
    }
    gini = line(0.1, 0.2, 0.35, 0.84, 0.86, size=0.02)
    for i in range(8, step.size - 4, spike_every) if spike_every else ():
        if step[i] > memorization:
            hit = slice(i + rng.integers(3), i + 2 + rng.integers(3))
            hit = slice(hit.start, min(hit.stop, hit.start + 2))
            curves["train_loss"][hit] += rng.uniform(3, 9)
            low = np.log(rng.uniform(1e-3, 2))
            test = curves["test_loss"]
            test[hit] = np.where(step[hit] < circuit, test[hit] - 0.7, np.maximum(test[hit], low))
    frame = pd.DataFrame({"step": step, **{name: np.exp(value) for name, value in curves.items()}})
    frame["gini_W_L"] = gini
    frame["train_acc"] = np.exp(-frame["train_loss"])
    frame["test_acc"] = 0.2 + 0.8 * np.exp(-frame["test_loss"])
    return frame


def sweep_of_planted(n=40, **options):
    """Runs with different boundaries and cadences, and a table of those boundaries."""
    rng = np.random.default_rng(7)
    frames, truth = [], []
    for run in range(n):
        every = int(rng.choice([20, 100, 250]))
        ends = every * np.cumsum([rng.uniform(6, 15), rng.uniform(15, 50), rng.uniform(6, 20)])
        budget = int(every * (np.ceil(ends[-1] / every * 1.25) + rng.integers(20, 200)))
        frames.append(planted(*ends, budget, every, seed=run, **options).assign(run=run, weight_decay=1.0, seed=run))
        truth.append([every, *ends])
    return pd.concat(frames, ignore_index=True), np.array(truth)
