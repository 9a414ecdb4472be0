"""Composition in finite groups: which irreducible representations do networks use?"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/groups.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.task = "group"
    c.sweep.group = ("S_4", "A_5") if arg == "small" else ("S_5", "A_5", "D_59")
    c.train_fraction = 0.8 if arg == "small" else 0.6
    c.sweep.seed = (0, 1, 2)
    c.model.architecture = "mlp"
    c.model.d_model = 256
    c.model.d_mlp = 128
    c.weight_decay = 2.0
    return c
