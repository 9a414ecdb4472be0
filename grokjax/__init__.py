"""grokjax: sweeps of grokking transformers, trained side by side, with progress measures in the compiled step."""

import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grokjax.interp.checkpoint import load_checkpoint as load_checkpoint
    from grokjax.store.metrics import read_metrics as read_metrics
    from grokjax.store.metrics import read_runs as read_runs
    from grokjax.store.metrics import read_table as read_table
    from grokjax.store.snapshots import load_params as load_params

from grokjax.version import __version__ as __version__

# Loaded on first use: what analyses a table should not wait for JAX.
_LAZY = {
    "load_checkpoint": "interp.checkpoint",
    "load_params": "store.snapshots",
    "read_metrics": "store.metrics",
    "read_runs": "store.metrics",
    "read_table": "store.metrics",
}
__all__ = ["load_checkpoint", "load_params", "read_metrics", "read_runs", "read_table"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"grokjax.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'grokjax' has no attribute '{name}'")


# While Python looks for the module of `python -m MODULE`, which stands before the arguments.
if sys.argv[:1] == ["-m"] and (module := re.fullmatch(r"(?:-\w*m)?grokjax\.(.+)", sys.orig_argv[-len(sys.argv)])):
    from grokjax.cli.main import refuse_module

    refuse_module(module[1])
