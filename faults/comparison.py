"""Whether what a sweep left equals what an uninterrupted one did."""

from pathlib import Path

import numpy as np

from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.snapshots import find_snapshots, load_params


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' tables and parameters, in words; nothing if every bit is the same."""
    return table_differences(a, b) + parameter_differences(a, b)


def table_differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' metrics and runs."""
    found = []
    for name, read in (("metrics", read_metrics), ("runs.parquet", read_runs)):
        x, y = read(a), read(b)
        if x.shape != y.shape or list(x) != list(y):
            found.append(f"{name} has {len(x)} rows of {len(x.columns)} columns, not {len(y)} of {len(y.columns)}")
            continue
        # Text holds every bit of a float, and makes nulls and lists comparable.
        wrong = [str(column) for column in x if x[column].map(str).tolist() != y[column].map(str).tolist()]
        found += [f"{name}: {', '.join(wrong)} differ"] if wrong else []
    twice = int(read_metrics(a).duplicated(["run", "step"]).sum())
    return [*found, f"{twice} rows are there twice"] if twice else found


def parameter_differences(a: Path, b: Path) -> list[str]:
    """What differs between two sweeps' snapshots."""
    there, others = set(find_snapshots(a)), set(find_snapshots(b))
    found = [f"snapshots differ: {sorted(there ^ others)[:3]}"] if there != others else []
    for run, step in sorted(there & others):
        mine, its = (load_params(path, run, step) for path in (a, b))
        found += [f"{key} of run {run} at step {step} differs" for key in mine if not same(mine[key], its[key])]
    return found


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two arrays are the same bit for bit."""
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
