"""What does the precision of the loss do? The exact cross-entropy against log-softmax in float32, bfloat16, float16.

    python launch.py --config=experiments/loss_precision.py --workdir=results/loss_precision

trains the four losses with weight decay 0 and 1 and sixteen seeds each at P = 53: 128 runs of 10 000 steps. Matrix
products, weights and optimizer are float32 throughout. Expected (Prieto et al. 2025, arXiv 2501.04697): without decay
training pairs lose their gradient once their loss rounds to 0, the sooner the coarser the format, and runs that have
not generalised by then never do. Slingshots (Thilak et al. 2022, arXiv 2206.04817) are spikes of the training loss
long after memorising.

    python launch.py --config=experiments/loss_precision.py:small --workdir=results/loss_precision_small

has two seeds and 3 000 steps, for four minutes on two cores of an AMD EPYC, compilation included.
"""

from grokjax import config
from grokjax.errors import unknown

LOSSES = ("cross_entropy", "cross_entropy_float32", "cross_entropy_bfloat16", "cross_entropy_float16")


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/loss_precision.py", arg, ["small"])
    c = config.small()
    c.steps = 3_000 if arg == "small" else 10_000
    c.eval_every = 25
    c.snapshot_every = c.steps
    c.measures = ("paper", "efficiency", "stability")
    c.sweep.loss = LOSSES
    c.sweep.weight_decay = (0.0, 1.0)
    c.sweep.seed = tuple(range(2 if arg == "small" else 16))
    return c
