"""Where do runs memorise, grok or generalise at once? Weight decay against the share of pairs trained on.

    python launch.py --config=experiments/phase_diagram.py --workdir=results/phase_diagram

trains ten shares, nine weight decays and ten seeds at P = 53: 900 runs of 5 000 steps, which take two CPU cores about
three hours. Expected (Power et al. 2022, §3; Liu et al. 2022, Fig. 7): below a critical share no run generalises
whatever its decay, above it a run takes the longer the smaller share and decay are.

    python launch.py --config=experiments/phase_diagram.py:small --workdir=results/phase_diagram_small

is a corner of it with three shares, three weight decays and two seeds, for a few minutes. `grokjax figure DIR
--kind=phase-diagram` draws either.
"""

from grokjax import config
from grokjax.errors import unknown

SHARES = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
DECAYS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/phase_diagram.py", arg, ["small"])
    c = config.small()
    c.steps = 5_000
    c.eval_every = 25  # the strongest decays grok within some hundred steps
    c.snapshot_every = c.steps
    c.measures = ("paper", "efficiency")
    c.sweep.train_fraction, c.sweep.weight_decay = SHARES, DECAYS
    c.sweep.seed = tuple(range(10))
    if arg == "small":
        c.steps = c.snapshot_every = 2_000
        c.sweep.train_fraction, c.sweep.weight_decay = (0.3, 0.5, 0.7), (0.0, 0.4, 1.6)
        c.sweep.seed = (0, 1)
    return c
