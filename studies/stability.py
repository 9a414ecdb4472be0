"""What goes wrong once a run has memorised: spikes of the training loss, and pairs that lose their gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

SPIKE, CALM = 0.1, 0.01  # nats of training loss: a slingshot rises above the one and has come from below the other
HALF = 0.5  # of the training pairs


def of(of_run: pd.DataFrame, found: Mapping[Any, Any]) -> dict[str, float]:
    """The stability of one run.

    Args:
      of_run: its metrics, by step.
      found: its row of `phases.find_phases`.

    Returns:
      `slingshots`: how often the training loss rises from below 0.01 nats to above 0.1 after the run has memorised, as
      evaluations see it. `collapsed_by`: the first evaluation at which half of the training pairs have no gradient
      (`softmax_collapse`), NaN if there is none or the measure was not logged.
    """
    loss = of_run.loc[of_run["step"] >= found["memorised_by"], "train_loss"].to_numpy(float)
    collapse = of_run["softmax_collapse"] if "softmax_collapse" in of_run else pd.Series(np.nan, of_run.index)
    collapsed = of_run["step"][collapse.astype(float) >= HALF]
    return {
        "slingshots": slingshots(loss),
        "collapsed_by": float(collapsed.iloc[0]) if len(collapsed) else np.nan,
    }


def slingshots(loss: np.ndarray) -> int:
    """Rises from below `CALM` to above `SPIKE`, whatever lies between; non-finite values count as above."""
    high = ~(loss <= SPIKE)
    marks = np.where(high, 1, np.where(loss < CALM, -1, 0))
    marks = marks[marks != 0]
    return int(np.sum((marks[1:] == 1) & (marks[:-1] == -1)))
