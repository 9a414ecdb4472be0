"""Weight decay against grokking: the study this project is built around (Nanda et al. 2023, §5.3 and App. D.1).

    python launch.py --config=experiments/wd_sweep.py --workdir=results/wd_sweep

trains weight decays 0, 0.1, 0.3, 1 and 3 with five seeds each, on the paper's model and for its 40 000 steps: minutes
on a GPU, most of a night on a laptop. Expected: λ = 0 memorises and never groks; the larger λ, the sooner a run groks.

    python launch.py --config=experiments/wd_sweep.py:small --workdir=results/small

is the same study in under three minutes on two CPU cores: P = 53, half the width, 3 000 larger steps, 40 % of pairs,
weight decays 0, 1 and 2 with three seeds each. Expected: about half of the runs with λ ≥ 1 grok, λ = 0 does not.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    c = config.default()
    c.sweep.weight_decay = (0.0, 0.1, 0.3, 1.0, 3.0)
    c.sweep.seed = tuple(range(5))
    if arg == "small":
        c.p = 53
        c.train_fraction = 0.4
        c.model.d_model = 64
        c.model.d_mlp = 256
        c.learning_rate = 3e-3
        c.steps = 3_000
        c.snapshot_every = 300
        c.sweep.weight_decay = (0.0, 1.0, 2.0)
        c.sweep.seed = tuple(range(3))
    elif arg:
        raise unknown("variant of experiments/wd_sweep.py", arg, ["small"])
    return c
