"""Sweeps of grokking transformers, trained side by side, with progress measures in the compiled step.

    results = grokjax.train("experiments/wd_sweep.py:small", "results/small")
    results = grokjax.open("results/small")   # later, or while it trains
    results = grokjax.open(["results/a", "results/b"])   # several sweeps as one
    results.metrics, results.runs, results.phases(), results.params(run=6), results.figure("losses")

    grokjax.train_one(config, seed=0, weight_decay=1.0)   # one run, pure: under your own jit and vmap
    grokjax.measure("model.npz")                          # every measure of a trained model

`config` and `tasks` describe sweeps, `measures` takes a measure of your own, `phases` works on any table. Each name is
loaded when it is first used. `grokjax --help` in a shell has the commands.
"""

import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grokjax.api.models import circuit as circuit
    from grokjax.api.models import measure as measure
    from grokjax.api.results import Results as Results
    from grokjax.api.results import open as open
    from grokjax.api.train import train as train
    from grokjax.interp.checkpoint import load_checkpoint as load_checkpoint
    from grokjax.interp.checkpoint import load_params as load_params
    from grokjax.report.comparison import compare as compare
    from grokjax.sharing.log import log as log
    from grokjax.sharing.publish import publish as publish
    from grokjax.store.metrics import read_metrics as read_metrics
    from grokjax.store.metrics import read_runs as read_runs
    from grokjax.store.metrics import read_table as read_table
    from grokjax.training.alone import train_one as train_one

from grokjax.version import __version__ as __version__

# Loaded on first use: what analyses a table should not wait for JAX.
_LAZY = {
    "train": "api.train",
    "open": "api.results",
    "Results": "api.results",
    "train_one": "training.alone",
    "measure": "api.models",
    "circuit": "api.models",
    "compare": "report.comparison",
    "log": "sharing.log",
    "publish": "sharing.publish",
    "load_checkpoint": "interp.checkpoint",
    "load_params": "interp.checkpoint",
    "read_metrics": "store.metrics",
    "read_runs": "store.metrics",
    "read_table": "store.metrics",
}
_ROOMS = ("config", "measures", "phases", "tasks")  # those of the user's concern
__all__ = [*_LAZY, *_ROOMS]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"grokjax.{_LAZY[name]}"), name)
    if name in _ROOMS:
        return import_module(f"grokjax.{name}")
    raise AttributeError(f"module 'grokjax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


# While Python looks for the module of `python -m MODULE`, which stands before the arguments.
if sys.argv[:1] == ["-m"] and (module := re.fullmatch(r"(?:-\w*m)?grokjax\.(.+)", sys.orig_argv[-len(sys.argv)])):
    from grokjax.cli.main import refuse_module

    refuse_module(module[1])
