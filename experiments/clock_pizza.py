"""Clock or pizza: attention rate against two measures of the algorithm (Zhong et al. 2023, arXiv 2306.17844).

The paper's claim: the share of softmax in attention moves networks of two tokens from one algorithm to another. Of the
one-layer models of two shared tokens in its released table (result/1l_fixedwidth.csv, circularity above 0.99, 1,161 of
them) the medians are:

    attention rate up to     0.1    0.3    0.5    0.7    0.9    1
    gradient symmetricity    0.993  0.992  0.993  0.858  0.624  0.466    pizza: above 0.98
    distance irrelevance     0.253  0.262  0.270  0.567  0.735  0.830    pizza: below 0.6

    python launch.py --config=experiments/clock_pizza.py:small --workdir=results/clock_pizza_small
    python launch.py --config=experiments/clock_pizza.py       --workdir=results/clock_pizza

Without the colon: the paper's setting (P = 59, 80 % of the pairs, decay 2, 20 000 steps) at eleven rates, five seeds
each, on this project's initial weights: 12 minutes of an H200 that trained others as well for the most part. All 55
runs grok by step 500. Their medians, at rates up to the same ones, follow the paper's; those at the two lowest and the
two highest rates have it in their intervals (docs/reproductions.md):

    gradient symmetricity    0.992  0.991  0.993  0.835  0.642  0.368    of all; of the 28 whose circularity is above
    distance irrelevance     0.218  0.384  0.316  0.526  0.684  0.924    0.99 they are 0.994 and 0.159 at first

Small: P = 31, half the width, 1 500 larger steps, four rates, three seeds each. It took 2 min 15 s of processor time,
compilation included, and never had two cores of a CPU to itself. Expected, as found in its 12 runs:

    m = grokjax.read_metrics("results/clock_pizza_small")
    m[m.step == 1500].groupby("model.attention_rate").gradient_symmetricity.median()

    attention rate           0      0.5    0.8    1
    gradient symmetricity    0.991  0.965  0.569  0.341
    distance irrelevance     0.537  0.579  0.762  0.810

It shows the effect: the six runs at 0 and 0.5 have a symmetricity above 0.94, the six at 0.8 and 1 one below 0.64.
Their irrelevances overlap in one run each; those of pizzas are above the paper's, with a circularity below 0.99.
`grokjax figure DIR --kind=column --column=gradient_symmetricity` draws it.
"""

from grokjax import config
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/clock_pizza.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.p, c.train_fraction, c.weight_decay = 59, 0.8, 2.0
    c.model.n_ctx = 2
    c.measures = ("paper", "clock")
    c.steps = 20_000
    c.sweep.model.attention_rate = tuple(tenths / 10 for tenths in range(11))
    c.sweep.seed = tuple(range(5))
    if arg == "small":
        c.p, c.steps = 31, 1_500
        c.snapshot_every = 500
        c.sweep.model.attention_rate = (0.0, 0.5, 0.8, 1.0)
        c.sweep.seed = (0, 1, 2)
    return c
