"""A sweep small enough to train inside a test; variants for what tests need."""

import io

from rich.console import Console

from grokjax import config
from grokjax.api import requests
from grokjax.training import plan
from grokjax.training.request import Request


def get_config(arg: str = ""):
    """P = 7, four runs of 200 steps; "long" takes some seconds, "hot" has runs that diverge, "paper"
    logs the paper's measures; "hosts" has more runs than slots, of which some diverge."""
    c = config.default()
    c.p = 7
    c.train_fraction = 0.6
    c.model.d_model = 8
    c.model.n_heads = 2
    c.model.d_mlp = 16
    c.learning_rate = 1e-2
    c.steps = 200
    c.eval_every = 20
    c.slots = 3
    c.measures = ()  # the losses alone, which compile fast
    c.sweep.weight_decay = (0.0, 1.0)
    c.sweep.seed = (0, 1)
    if arg == "long":
        c.steps = 4_000
        c.checkpoint_every_steps = 400
    if arg == "paper":
        c.measures = ("paper",)
        c.snapshot_every = 100
    if arg == "hosts":
        c.measures = ("paper",)
        c.steps = 1_200
        c.snapshot_every = 400
        c.checkpoint_every_steps = 200
        c.slots = 1
    if arg in ("hot", "hosts"):
        c.optimizer = "sgd"
        c.sweep.learning_rate = (1e-2, 1e6)
    return c


def train(c, path, plan_only=False, **kwargs):
    """Trains a sweep, or plans it, and returns its exit status and what it printed."""
    out = io.StringIO()
    request = Request(c, path, console=Console(file=out, width=100), **kwargs)
    if plan_only:
        request.tell(plan.text(requests.plan(request)))
        return 0, out.getvalue()
    return requests.train(request), out.getvalue()
