"""Clock or pizza: attention rate against two measures of the algorithm (Zhong et al. 2023, arXiv 2306.17844)."""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/clock_pizza.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.p, c.train_fraction, c.weight_decay = 59, 0.8, 2.0
    c.model.n_ctx = 2
    c.measures = ("paper", "clock")
    c.steps = 20_000
    c.sweep.model.attention_rate = tuple(tenths / 10 for tenths in range(11))
    c.sweep.seed = tuple(range(5))
    if arg == "small":
        c.p, c.steps = 31, 1_500
        c.snapshot_every = 500
        c.sweep.model.attention_rate = (0.0, 0.5, 0.8, 1.0)
        c.sweep.seed = (0, 1, 2)
    return c
