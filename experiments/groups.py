"""Composition in finite groups: which irreducible representations do networks use? (Chughtai et al. 2023)

python launch.py --config=experiments/groups.py:small --workdir=results/groups_small
python launch.py --config=experiments/groups.py       --workdir=results/groups
"""

import itertools

from grokjax import config
from grokjax.errors import unknown

# Share of the pairs to train on, and steps, of the models released with the paper.
RELEASED = {
    ("S_5", "mlp"): (0.4, 250_000),
    ("A_5", "mlp"): (0.5, 250_000),
    ("D_59", "mlp"): (0.3, 250_000),
    ("S_5", "transformer"): (0.6, 50_000),
    ("A_5", "transformer"): (0.6, 250_000),
    ("D_59", "transformer"): (0.3, 100_000),
}


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/groups.py", arg, ["small"])
    c = config.small() if arg else config.default()
    c.task = "group"
    c.sweep.group = ("S_4", "A_5") if arg else ("S_5", "A_5", "D_59")
    c.sweep.model.architecture = ("mlp",) if arg else ("mlp", "transformer")
    c.sweep.seed = (0, 1, 2) if arg else (1, 2, 3, 4)
    if arg:
        c.train_fraction, c.weight_decay, c.steps = 0.8, 2.0, 2_000
    return c


def get_sweep(c):
    """Each group with each architecture and seed; MLPs have the released ones' widths."""
    released = {} if c.p == config.SMALL_P else RELEASED
    runs = []
    for group, architecture, seed in itertools.product(c.sweep.group, c.sweep.model.architecture, c.sweep.seed):
        fraction, steps = released.get((group, architecture), (c.train_fraction, c.steps))
        run = {"group": group, "train_fraction": fraction, "steps": steps, "model.architecture": architecture}
        widths = {"model.d_model": 256, "model.d_mlp": 128} if architecture == "mlp" else {}
        runs.append(run | widths | {"seed": seed})
    return runs
