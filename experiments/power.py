"""Division modulo 97 by two layers in minibatches, where grokking was first seen (Power et al. 2022, §3).

The claim: generalisation comes long after memorisation, and with decoupled weight decay much sooner.

    python launch.py --config=experiments/power.py --workdir=results/power

trains on half of the pairs in batches of 512, AdamW at 1e-3 with β₂ 0.98, a decay of 0 and of 1, three seeds each, for
100,000 steps. There is neither LayerNorm nor dropout, which the paper's transformer has. It has never been run;
`--plan=measure` says what it takes on a machine. Expected: with the decay all grok, without it few or none.

    python launch.py --config=experiments/power.py:small --workdir=results/power_small

trains modulo 31 on 80 % of the pairs in batches of 256, half the width, at 3e-3, three seeds each; a run that has
grokked ends. It took 2 minutes and 10 seconds of processor time, compilation included. Found: all six memorise by step
150; with the decay two of three grok, after 1,450 and 800 steps, the third reaches 98 % and falls back again; without
it none grok, at 4 to 6 % of the test pairs.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/power.py", arg, ["small"])
    c = config.small() if arg else config.default()
    c.task = "divide"
    c.model.n_layers = 2
    c.sweep.weight_decay = (0.0, 1.0)
    c.sweep.seed = (0, 1, 2)
    if arg:
        c.p, c.train_fraction, c.batch_size = 31, 0.8, 256  # of 744 training pairs
        c.steps, c.stop_loss = 3_000, 0.02
    else:
        c.p, c.train_fraction, c.batch_size = 97, 0.5, 512
        c.steps, c.eval_every = 100_000, 500
    return c
