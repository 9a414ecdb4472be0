"""Weight decay against grokking: the study this project is built around (Nanda et al. 2023, §5.3 and App. D.1).

    python launch.py --config=experiments/wd_sweep.py --workdir=results/wd_sweep

trains weight decays 0, 0.1, 0.3, 1 and 3 with five seeds each, on the paper's model and for its 40 000 steps, which
takes two CPU cores some hours. Expected: λ = 0 memorises and never groks; the larger λ, the sooner a run groks.

    python launch.py --config=experiments/wd_sweep.py:small --workdir=results/small

is the same study in under two minutes on two CPU cores: P = 53, half the width, 3 500 larger steps, 55 % of the pairs,
weight decays 0, 0.75 and 1.5 with three seeds each. Expected: every run with λ > 0 groks, most of them in three
separate phases that are over before the last step; λ = 0 memorises and does not grok.

    python launch.py --config=experiments/wd_sweep.py:study --workdir=results/study

has the small model train longer, with eight weight decays and eight seeds: under half an hour on two CPU cores. What it
found is in docs/study.md.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "", "small" or "study"."""
    if arg not in ("", "small", "study"):
        raise unknown("variant of experiments/wd_sweep.py", arg, ["small", "study"])
    c = config.small() if arg else config.default()
    c.sweep.weight_decay = (0.0, 0.1, 0.3, 1.0, 3.0)
    c.sweep.seed = tuple(range(5))
    if arg == "small":
        c.steps = 3_500
        c.train_fraction = 0.55
        # The train loss falls no faster than Adam's second moment forgets, by √β₂ a step: to its floor by step 1 400 at
        # 0.98, when the circuit of so small a model has long formed; by 350 at 0.9, so that the phases are apart.
        c.beta2 = 0.9
        c.sweep.weight_decay = (0.0, 0.75, 1.5)
        c.sweep.seed = tuple(range(3))
    if arg == "study":
        c.steps = 6_000
        c.snapshot_every = 1_000
        c.sweep.weight_decay = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
        c.sweep.seed = tuple(range(8))
    return c
