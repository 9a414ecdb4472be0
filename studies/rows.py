"""Rows of a study's record: what is kept of a run when its full tables are gone."""

import numpy as np
import pandas as pd

import grokjax
from grokjax import phases
from grokjax.store.ledger import Ledger
from studies import moves, stability

# By which a run is the same in two directories; those that a study does not sweep are in its experiment file.
IDENTITY = (
    *("p", "train_fraction", "model.d_model", "init_scale", "learning_rate", "weight_decay", "precision", "loss"),
    *("seed", "split_seed", "steps"),
)
EVENTS = ("memorised", "grokked", "lost_grokking", "ungrokked")
ENDS = ("memorization_end", "circuit_formation_end", "cleanup_end")
FOUND = (
    *(f"{event}{side}" for event in EVENTS for side in ("_after", "_by")),
    *(f"{end}{side}" for end in ENDS for side in ("", "_after", "_by")),
    *("run_class", "phases", "overlap_steps", "diverged", "evaluations", "last_step"),
)
LAST = (
    *("train_loss", "test_loss", "train_acc", "test_acc", "restricted_loss", "excluded_loss"),
    *("heldout_restricted_loss", "n_key_freqs", "gini_W_E", "gini_W_L", "sum_sq_weights"),
    "softmax_collapse",
)


def rows(results: grokjax.Results) -> pd.DataFrame:
    """One row per run that has ended: its identity, what phases says of it, its last evaluation and its moves.

    Args:
      results: of `grokjax.open`; runs that have not ended are left out.
    """
    runs = results.runs
    runs = runs[runs["status"].isin(Ledger.OVER)].set_index("run")
    metrics = results.metrics
    metrics = metrics[metrics["run"].isin(runs.index)]
    found = phases.find_phases(metrics).set_index("run")
    by_run = {run: of_run.reset_index(drop=True) for run, of_run in metrics.groupby("run")}
    found_by = found.to_dict("index")
    last = pd.DataFrame({run: _last(of_run) for run, of_run in by_run.items()}).T
    stable = pd.DataFrame({run: stability.of(of_run, found_by[run]) for run, of_run in by_run.items()}).T
    moved = pd.DataFrame({run: moves.of(of_run, found_by[run]) for run, of_run in by_run.items()}).T
    identity = runs[[name for name in IDENTITY if name in runs]].rename(columns={"model.d_model": "d_model"})
    kept = [name for name in FOUND if name in found]
    table = pd.concat([identity, runs[["status"]], found[kept], last, stable, moved], axis=1)
    return table.reset_index(names="run").infer_objects()


def _last(of_run: pd.DataFrame) -> dict[str, object]:
    """The measures of the last evaluation that has them, and the key frequencies as "3 17 42"."""
    whole = of_run[np.isfinite(of_run["train_loss"].astype(float))]
    end = whole.iloc[-1] if len(whole) else of_run.iloc[-1]
    found = {name: end[name] for name in LAST if name in of_run}
    if "key_freqs" in of_run and end["key_freqs"] is not None:
        found["key_freqs"] = " ".join(str(k + 1) for k in np.flatnonzero(np.asarray(end["key_freqs"], bool)))
    return found
