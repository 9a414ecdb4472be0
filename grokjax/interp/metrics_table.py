"""Tables of metrics from anywhere: a sweep's directory, a CSV, JSON-lines or Parquet file, curves in a PyTorch file."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from grokjax.columns import SPLIT_SEED_USED
from grokjax.config import FIELDS
from grokjax.errors import InputError
from grokjax.phases.curves import COLUMNS
from grokjax.store import files
from grokjax.store.metrics import parts, read_metrics, read_part

READERS: dict[str, Callable[[Any], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".jsonl": lambda file: pd.read_json(file, lines=True),
    ".ndjson": lambda file: pd.read_json(file, lines=True),
    ".parquet": pd.read_parquet,
}
TORCH = (".pth", ".pt", ".ckpt")
# What training scripts call the lists of a quantity, one number per epoch.
LISTS = {
    "train_loss": ("train_losses", "train_loss"),
    "test_loss": ("test_losses", "test_loss", "val_losses", "val_loss"),
    "train_acc": ("train_accs", "train_acc", "train_accuracies", "train_accuracy"),
    "test_acc": ("test_accs", "test_acc", "test_accuracies", "test_accuracy", "val_accs", "val_acc"),
}


def read(source: str | Path) -> pd.DataFrame:
    """Reads a table of metrics: of a sweep's working directory, or a file; of PyTorch's, the curves in it.

    Raises:
      InputError: there is none.
    """
    path = files.path(source)
    if path.is_dir():
        found = parts(path / "metrics")
        if not found:
            raise InputError(f"{path} holds no metrics/*.parquet: name the working directory of a sweep, or a table.")
        return read_metrics(path, _needed(read_part(found[0]).schema))
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the working directory of a sweep, or a table.")
    if path.suffix in TORCH:
        return _torch_curves(str(path))
    if path.suffix not in READERS:
        known = ", ".join([*READERS, *TORCH])
        raise InputError(f"{path} is no table that can be read: those end in {known}.")
    try:
        return READERS[path.suffix](io.BytesIO(path.read_bytes()))
    except Exception as error:  # pandas and pyarrow may raise anything
        raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({type(error).__name__}: {error}).") from None


def stepped(metrics: pd.DataFrame) -> pd.DataFrame:
    """A table whose steps are under "step", if it calls them "epoch"."""
    return metrics if "step" in metrics or "epoch" not in metrics else metrics.rename(columns={"epoch": "step"})


def _needed(schema: pa.Schema) -> list[str]:
    """Of a sweep's metrics, which say what they are, the columns that phases read: not all the other measures."""
    return [name for name in schema.names if name in ("run", "step", SPLIT_SEED_USED, *FIELDS, *COLUMNS)]


def _torch_curves(path: str) -> pd.DataFrame:
    """The losses per epoch that lie in a PyTorch file, with or without a model, and the accuracies if they do."""
    from grokjax.interp import files as model_files  # which brings JAX

    held = model_files.load(path)
    lists = {name: _curve(held, known) for name, known in LISTS.items()}
    curves = {name: values for name, values in lists.items() if values is not None}
    if not {"train_loss", "test_loss"} <= curves.keys():
        raise InputError(
            f"{path} holds no curves: lists train_losses and test_losses are expected. Of a model, or of many "
            "checkpoints, grokjax measure makes numbers."
        )
    for name, values in curves.items():
        try:
            curves[name] = [float(x) for x in values]
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{path}: the list of {name} must hold numbers.") from None
    n = len(curves["train_loss"])
    if not n or any(len(values) != n for values in curves.values()):
        told = ", ".join(f"{len(values)} of {name}" for name, values in curves.items())
        raise InputError(f"{path}: its lists must be equally long, one number per epoch, but there are {told}.")
    steps = _curve(held, ("epochs", "steps"))
    return pd.DataFrame({"step": steps if steps is not None and len(steps) == n else range(n), **curves})


def _curve(held: Any, names: tuple[str, ...]) -> list[Any] | None:
    """The first list of some names in what a file holds."""
    for name in names:
        values = held.get(name) if isinstance(held, Mapping) else None
        values = values.tolist() if hasattr(values, "tolist") else values
        if isinstance(values, list | tuple | range) and not any(isinstance(x, Mapping) for x in values[:1]):
            return list(values[: 1 << 31])
    return None
