"""Division modulo 97 by two layers in minibatches, where grokking was first seen (Power et al. 2022, §3).

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
    c.model.n_layers = 2
    c.sweep.weight_decay = (0.0, 1.0)
    c.sweep.seed = (0, 1, 2)
    if arg:
        c.p, c.train_fraction, c.batch_size = 31, 0.8, 256  # of 744 training pairs
        c.steps, c.stop_loss = 3_000, 0.02
    else:
        c.p, c.train_fraction, c.batch_size = 97, 0.5, 512
        c.steps, c.eval_every = 100_000, 500
    return c
