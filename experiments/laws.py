"""How does the time to grok depend on learning rate, weight decay, initial scale and width?

    python launch.py --config=experiments/laws.py --workdir=results/laws

trains at P = 53 the product of five learning rates and five weight decays, six initial scales and two widths beside
those of the product's middle, with eight seeds each: 264 runs, some two hours on two CPU cores. A run has ten times as
long as 2 / (learning rate × decay) steps, in which AdamW's decay alone takes a weight to e⁻² of itself, and ends when
its test loss stays below 0.01 nats. Expected: the time is about proportional to 1 / (learning rate × decay).

    python launch.py --config=experiments/laws.py:small --workdir=results/laws_small

has two learning rates, two weight decays, one scale and one width beside them and two seeds, for two minutes.
"""

import itertools

from grokjax import config
from grokjax.errors import unknown

RATES, DECAYS = (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2), (0.25, 0.5, 1.0, 2.0, 4.0)
SCALES = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)  # beside 1
WIDTHS = (32, 128)  # beside 64
MIDDLE = {"learning_rate": 3e-3, "weight_decay": 1.0}
E_FOLDS = 20.0  # of a weight that only decays, within a run
MOST_STEPS = 40_000


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/laws.py", arg, ["small"])
    c = config.small()
    c.eval_every = 25
    c.snapshot_every = 10_000
    c.measures = ("paper", "efficiency")
    c.stop_loss = 0.01
    c.sweep.seed = tuple(range(2 if arg else 8))
    return c


def get_sweep(c):
    """The points of the study, each with every seed and with as many steps as its decay needs."""
    small = len(c.sweep.seed) < 8
    rates, decays = ((3e-3, 6e-3), (1.0, 2.0)) if small else (RATES, DECAYS)
    points = [{"learning_rate": rate, "weight_decay": decay} for rate, decay in itertools.product(rates, decays)]
    points += [MIDDLE | {"init_scale": scale} for scale in (SCALES[3:4] if small else SCALES)]
    points += [MIDDLE | {"model.d_model": d, "model.d_mlp": 4 * d} for d in (WIDTHS[:1] if small else WIDTHS)]
    return [point | {"steps": _steps(point), "seed": seed} for point in points for seed in c.sweep.seed]


def _steps(point) -> int:
    """Steps for a point, in whole evaluations."""
    steps = E_FOLDS / (point["learning_rate"] * point["weight_decay"])
    return min(MOST_STEPS, -(-round(steps) // 25) * 25)
