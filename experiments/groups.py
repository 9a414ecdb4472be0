"""Composition in finite groups: which irreducible representations do networks use? (Chughtai et al. 2023)

The claim: logits are a sum of characters of a∘b∘c⁻¹ over a few key irreducible representations, which differ by seed.

    python launch.py --config=experiments/groups.py --workdir=results/groups

trains S_5, A_5 and D_59, each by an MLP and by the mainline's transformer, four seeds each, with the shares of pairs,
the steps and the optimizer of the released models (MLPs: separate embeddings of 256, 128 neurons, no biases). It has
never been run; `--plan=measure` says what it takes on a machine. Expected, as the released MLPs: a test accuracy of
99 % after 17,000 to 40,000 steps (A_5), 16,000 to 26,000 (D_59), 94,000 to 162,000 (S_5).

    python launch.py --config=experiments/groups.py:small --workdir=results/groups_small

trains the MLP on S_4 and A_5 with 80 % of the pairs, a larger learning rate and twice the decay, three seeds each.
It took 40 seconds of processor time, compilation included: 2.5 minutes on two cores of an AMD EPYC with eight others'
processes for each, never timed on quiet ones. Expected, as found: all six memorise by step 150 and grok, S_4 after 850,
1,300 and 1,100 steps, A_5 after 750, 1,000 and 1,000; by the rule W_L every block but the constant is key. No
transformer is in it: on groups none has been trained to its end here.
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
