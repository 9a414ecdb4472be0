"""The paper's mainline with one thing changed at a time (Nanda et al. 2023, arXiv 2301.05217, App. C.2, D.1 and D.2).

PLACEHOLDER
"""

from typing import Any

from grokjax import config
from grokjax.errors import unknown

# What goes with a value: the paper's decay for P = 53 and its share of the pairs for P = 401; the others take the place
# of decay, but for those that no path stands in, which keep it.
WITH: dict[tuple[str, Any], dict[str, Any]] = {("p", 53): {"weight_decay": 5.0}, ("p", 401): {"train_fraction": 0.2}}
IN_PLACE_OF_DECAY = ("model.dropout", "l1")


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/appendix_d.py", arg, ["small"])
    c = config.small() if arg else config.default()
    c.sweep.weight_decay, c.sweep.model.n_layers = (0.0,), (2,)
    if arg:
        c.train_fraction, c.steps = 0.6, 2_000  # of half, two layers and dropout take the whole 2 500
        c.measures, c.stop_loss = (), 0.05  # a run that has grokked ends
        c.sweep.p, c.sweep.train_fraction = (41, 61), (0.3, 0.8)
        c.sweep.model.dropout, c.sweep.l1 = (0.5,), (1e-5, 1e-3)
    else:
        c.sweep.p, c.sweep.train_fraction = (53, 109, 401), (0.1, 0.2, 0.4, 0.5, 0.6, 0.8)
        c.sweep.model.dropout, c.sweep.l1 = (0.2, 0.5), (1e-5, 1e-4, 1e-3)
    c.sweep.seed = (0, 1, 2)
    return c


def get_sweep(c):
    """The mainline, then each value of each axis alone, with every seed."""
    axes = {
        "p": c.sweep.p,
        "train_fraction": c.sweep.train_fraction,
        "weight_decay": c.sweep.weight_decay,
        "model.n_layers": c.sweep.model.n_layers,
        "model.dropout": c.sweep.model.dropout,
        "l1": c.sweep.l1,
    }
    base = {"p": c.p, "train_fraction": c.train_fraction, "weight_decay": c.weight_decay, "l1": c.l1}
    base |= {"model.n_layers": c.model.n_layers, "model.dropout": c.model.dropout}
    changes = [{}, *(_changed(path, value) for path, values in axes.items() for value in values or ())]
    return [base | change | {"seed": seed} for change in changes for seed in c.sweep.seed]


def _changed(path: str, value: Any) -> dict[str, Any]:
    """What differs where a field has this value: also what the paper changes with it."""
    decay = {"weight_decay": 0.0} if path in IN_PLACE_OF_DECAY else {}
    return {path: value} | decay | WITH.get((path, value), {})
