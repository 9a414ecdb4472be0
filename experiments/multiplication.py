"""Multiplication modulo a prime, read in its own basis (the mainline of arXiv 2606.17399).

The claim: a network that multiplies uses few frequencies of the discrete logarithm, and is spread over all frequencies
of the residue itself: a Gini coefficient of 0.58 against 0.07, four keys, 97 % of the neurons of one frequency.

    python launch.py --config=experiments/multiplication.py --workdir=results/multiplication

trains the paper's mainline on a·b modulo 113 with three seeds, which took three minutes of an H200 that trained others
as well. They grok at steps 4,700, 9,600 and 10,900, with 3 to 5 keys; the Gini coefficients are 0.73 to 0.82 against
0.005 to 0.025, further apart than the paper's, and one frequency explains over 85 % of 376 to 421 of 512 neurons.

    python launch.py --config=experiments/multiplication.py:small --workdir=results/multiplication_small

has P = 53 and half the width; what it took is in docs/reproductions.md. All three runs grok, after 1 200, 1 250 and
1 600 steps, with 3 or 4 keys by the rule W_L. `gini_freq_W_E`, by frequencies of the discrete logarithm, ends at 0.61
to 0.68; `gini_freq_W_E_residue`, the same by the residue's own frequencies, a measure of this file, at 0.03 to 0.07. Of
256 neurons, `neurons_over_85` are 155 to 197.
"""

from grokjax import config
from grokjax.core import fourier
from grokjax.errors import unknown
from grokjax.measures import measure
from grokjax.measures.paper import gini


@measure(
    "residue",
    unit="1",
    range="[0, 1)",
    description="Gini coefficient of the Fourier norms of W_E over the frequencies of the residue, not its logarithm.",
    source="arXiv 2606.17399",
    undefined="W_E is zero",
)
def gini_freq_W_E_residue(s):
    return gini(fourier.norms(s.W_E_PxY)[1])


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/multiplication.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.task, c.measures = "multiply", ("paper", "residue")
    c.sweep.seed = (0, 1, 2)
    return c
