"""Initial scale, weight decay and a constrained norm (Liu et al. 2022, arXiv 2210.01117, Omnigrok): does a run grok?"""

import itertools
from typing import Any

from grokjax import config
from grokjax.errors import unknown

CONSTRAINED = {"norm_constraint": "init", "weight_decay": 0.0}


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/omnigrok.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.measures = ("paper", "efficiency")
    c.steps = 15_000
    c.sweep.init_scale = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
    c.sweep.weight_decay = (0.0, 0.3, 1.0)
    c.sweep.seed = (0, 1, 2)
    if arg == "small":
        c.steps = 1_500
        c.sweep.init_scale = (0.5, 0.8, 1.0, 2.0)
        c.sweep.weight_decay = (0.0, 1.0)
    return c


def get_sweep(c):
    """Each initial scale with each decay, and without decay at a constrained norm, each with every seed."""
    free: list[dict[str, Any]] = [{"norm_constraint": "none", "weight_decay": decay} for decay in c.sweep.weight_decay]
    return [
        {"init_scale": scale, **setting, "seed": seed}
        for scale, setting, seed in itertools.product(c.sweep.init_scale, [*free, CONSTRAINED], c.sweep.seed)
    ]
