"""Muon against AdamW (arXiv 2504.16041: Muon groks sooner; arXiv 2608.07436: at length its runs lose it again).

The claims: 102.89 epochs to grok on average against AdamW's 153.09; and over a long horizon at P = 113 nine of nine
runs of Muon grok and then lose it, where AdamW falls below the threshold in four of five seeds.

    python launch.py --config=experiments/muon.py:small --workdir=results/muon_small
    python launch.py --config=experiments/muon.py       --workdir=results/muon

Without the colon: the mainline's model and pairs for 100 000 steps, two step sizes of the matrices, five seeds. It has
not been run. Small: P = 53, half the width, 2 500 steps; minutes on two idle cores. There Muon did not grok within
these steps: AdamW did at steps 750 and 1 150, Muon's four runs memorise by step 650 and end at 51 to 60 % of the test
pairs (decay 1; other decays have not been tried). A run that loses it has `lost_grokking` in the table of phases: test
accuracy is below 95 % again at two evaluations in a row (`grokjax phases DIR --by=optimizer,muon_learning_rate` counts
them, and the page lists them).
"""

from typing import Any

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/muon.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    if arg == "":
        c.steps = 100_000
    c.sweep.seed = (0, 1) if arg == "small" else tuple(range(5))
    return c


def get_sweep(c):
    """AdamW, and Muon with two step sizes, each with every seed."""
    settings: list[dict[str, Any]] = [
        {"optimizer": "adamw"},
        *({"optimizer": "muon", "muon_learning_rate": rate} for rate in (0.02, 0.005)),
    ]
    return [{"muon_learning_rate": 0.02, "seed": seed, **setting} for setting in settings for seed in c.sweep.seed]
