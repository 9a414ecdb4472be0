"""The sweep of which runs end fast, for what a process keeps of each."""

from grokjax import config


def get_config(_=""):
    """P = 7, runs of 2,000 steps that log the paper's measures and save three snapshots; a checkpoint every 2,000.

    Evaluations are many, so that parts of the metrics, which are held until they are full, are full within a minute.
    """
    c = config.default()
    c.p, c.train_fraction, c.learning_rate = 7, 0.6, 1e-2
    c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
    c.steps, c.eval_every, c.snapshot_every, c.checkpoint_every_steps = 2_000, 10, 1_000, 2_000
    c.slots, c.measures = 8, ("paper",)
    c.sweep.seed = (0, 1)
    return c
