"""The figures of a whole sweep that can be asked for by name, from Python and by commands."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from grokjax.errors import unknown
from grokjax.report import losses

# A kind draws from rows per (run, step) and rows per run, as `store.metrics` reads them.
KINDS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], Figure]] = {
    "losses": losses.figure,
}


def draw(kind: str, metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Draws a figure of a kind.

    Raises:
      InputError: there is no such kind.
    """
    if kind not in KINDS:
        raise unknown("figure", kind, KINDS)
    return KINDS[kind](metrics, runs)
