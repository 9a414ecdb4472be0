"""The paper's mainline, five times: λ = 1, P = 113, 40 000 steps (Nanda et al. 2023, Figure 2).

    python launch.py --config=experiments/mainline.py --workdir=results/mainline

In the paper memorization ends near step 1 400 whatever the seed, and the first seed's cleanup near 14 000.

    python launch.py --config=experiments/mainline.py:small --workdir=results/mainline_small

shows the same on two CPU cores in about a minute and a half, at P = 53.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The mainline's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/mainline.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.sweep.seed = tuple(range(5))
    return c
