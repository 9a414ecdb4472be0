"""Division modulo 97 by two layers in minibatches, where grokking was first seen (Power et al. 2022).

    python launch.py --config=experiments/power.py:small --workdir=results/power_small
    python launch.py --config=experiments/power.py       --workdir=results/power
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/power.py", arg, ["small"])
    c = config.small() if arg else config.default()
    c.task = "divide"
    c.train_fraction = 0.5
    c.model.n_layers = 2
    c.batch_size = 512
    c.sweep.weight_decay = (0.0, 1.0)
    c.sweep.seed = (0, 1, 2)
    if arg:
        c.p = 31
        c.train_fraction = 0.7
        c.batch_size = 256
        c.steps = 2_000
    else:
        c.p = 97
        c.steps = 100_000
        c.eval_every = 500
    return c
