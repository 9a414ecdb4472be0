"""The sweep that the faults strike: some seconds of training, frequent saves, final keys and a report at the end."""

from grokjax import config


def get_config(_=""):
    """P = 7, six runs of 1,500 steps that log the paper's measures, a checkpoint every 150 steps."""
    c = config.default()
    c.p, c.train_fraction, c.learning_rate = 7, 0.6, 1e-2
    c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
    c.steps, c.eval_every, c.snapshot_every, c.checkpoint_every_steps = 1_500, 25, 500, 150
    c.slots, c.measures = 2, ("paper",)
    c.sweep.weight_decay = (0.0, 1.0, 3.0)
    c.sweep.seed = (0, 1)
    return c
