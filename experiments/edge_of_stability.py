"""Softmax collapse, StableMax and ⊥Grad (Prieto et al. 2025, arXiv 2501.04697): why grokking stops without decay.

The paper's claim: without weight decay the loss is soon so small that the softmax's sum loses all but the right class
(softmax collapse), and learning stops before it generalises, the sooner the coarser the format; StableMax in place of
softmax groks without decay, and ⊥Grad, which takes out of each gradient what only scales the weights, groks soon.

    python launch.py --config=experiments/edge_of_stability.py:small --workdir=results/edge_small
    python launch.py --config=experiments/edge_of_stability.py       --workdir=results/edge

Without the colon: the paper's setting for its transformer (Figure 6: 40 % of the pairs at P = 113, learning rate 1e-3,
β₂ 0.99, an eps of 1e-25, 5 000 steps; decay 1.5 where there is any), on this project's model, with three seeds each:
four minutes of an H200 that trained others as well. ⊥Grad groks by steps 300, 400 and 700, decay by 800, 1,200 and
1,500. All others memorise and do not grok: the losses of softmax end at 31 to 40 % of the test pairs, StableMax at 48,
82 and 98 %, where the paper trains for 80 000 epochs. Training stops at a loss of 4e-5 to 1.2e-4 in float16, 2e-6 to
3e-5 in float32, 5e-15 in the exact loss, which generalises no more for that.

Small: P = 53, half the width, half of the pairs, 1 500 larger steps, two seeds; minutes on two idle cores. What both
seeds did is in docs/reproductions.md. Seed 0: decay groks at step 600; ⊥Grad has 88 % of the test
pairs at step 400 and 98.5 % at the end; without either the exact loss and the one in float32 end at 46 %; in float16
training stops at a loss of 2e-4 after some 200 steps, and at 39 %; StableMax is at 47 %, and rises slowly.
"""

from typing import Any

from grokjax import config
from grokjax.errors import unknown

SETTINGS: dict[str, dict[str, Any]] = {
    "log-softmax in float16": {"loss": "cross_entropy_float16"},
    "log-softmax in float32": {"loss": "cross_entropy_float32"},
    "exact": {},
    "StableMax": {"loss": "stablemax"},
    "⊥Grad": {"gradient_transform": "orthograd"},
    "decay": {"weight_decay": 1.5},
}


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/edge_of_stability.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.weight_decay = 0.0
    c.beta2, c.eps = 0.99, 1e-25
    c.measures = ("paper", "stability")
    c.sweep.seed = (0, 1) if arg == "small" else (0, 1, 2)
    c.steps = 1_500 if arg == "small" else 5_000
    if arg == "":
        c.train_fraction = 0.4
    return c


def get_sweep(c):
    """Every setting with every seed."""
    return [{"weight_decay": 0.0, "seed": seed, **setting} for setting in SETTINGS.values() for seed in c.sweep.seed]
