"""The sweep that the faults strike: it trains for some seconds, saves often, and settles and reports at the end."""

from grokjax import config


def get_config(_=""):
    """P = 7, six runs of 1,500 steps that log the paper's measures, a checkpoint every 150 steps."""
    c = config.default()
    c.p = 7
    c.train_fraction = 0.6
    c.model.d_model = 8
    c.model.n_heads = 2
    c.model.d_mlp = 16
    c.learning_rate = 1e-2
    c.steps = 1_500
    c.eval_every = 25
    c.snapshot_every = 500
    c.checkpoint_every_steps = 150
    c.slots = 2
    c.measures = ("paper",)
    c.sweep.weight_decay = (0.0, 1.0, 3.0)
    c.sweep.seed = (0, 1)
    return c
