"""Composition in finite groups: which irreducible representations does a transformer use?

    python launch.py --config=experiments/groups.py:small --workdir=results/groups_small
    python launch.py --config=experiments/groups.py       --workdir=results/groups

Without the colon: S_5, A_5 and D_59 with the mainline's model and optimizer, three seeds each; 60 % of the pairs of S_5
and A_5, where Chughtai et al. 2023 train their transformers on as many. It has not been run. Small: S_4 and A_5, half
the width, three seeds each.
"""

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
    if arg == "":
        c.steps = 50_000
    return c
