"""Grokfast's EMA filter against AdamW alone, over the same decays (Lee et al. 2024, arXiv 2405.20233).

The paper's claim: amplifying the slow part of the gradient (α 0.98, λ 2, decay 0.005) makes modular addition grok in a
fiftieth of the iterations of Adam without decay. Here both have the same grid of weight decays and learning rates,
since decay alone makes AdamW grok sooner as well.

    python launch.py --config=experiments/grokfast.py:small --workdir=results/grokfast_small
    python launch.py --config=experiments/grokfast.py       --workdir=results/grokfast

Without the colon: P = 97 and half of the pairs, as in the paper, on this project's model in full batches (the paper's
has two layers, LayerNorm and batches of 512), with three seeds each. It has not been run. Small: P = 53, half the
width, one learning rate; minutes on two idle cores. There the filter did not help: with decay 1 AdamW alone groks in
2 of 2 runs (median step 750) and with the filter in 0 of 2 within 2 500 steps; with decay 0.1 neither does.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/grokfast.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.sweep.gradient_transform = ("none", "grokfast")
    c.sweep.weight_decay = (0.1, 1.0)
    c.sweep.seed = (0, 1)
    if arg == "":
        c.p, c.train_fraction = 97, 0.5
        c.sweep.learning_rate = (1e-3, 3e-3)
        c.sweep.weight_decay = (0.005, 0.1, 1.0, 3.0)
        c.sweep.seed = (0, 1, 2)
    return c
