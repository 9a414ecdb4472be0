"""Tables of metrics from anywhere: a sweep's directory, a CSV, JSON-lines or Parquet file, curves in a PyTorch file."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from grokjax.columns import SPLIT_SEED_USED
from grokjax.config import FIELDS
from grokjax.errors import InputError
from grokjax.phases.curves import COLUMNS
from grokjax.phases.names import ALIASES, recognised
from grokjax.store import files
from grokjax.store.joined import join
from grokjax.store.metrics import parts, read_metrics, read_part

READERS: dict[str, Callable[[Any], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".jsonl": lambda file: pd.read_json(file, lines=True),
    ".ndjson": lambda file: pd.read_json(file, lines=True),
    ".parquet": pd.read_parquet,
}
TORCH = (".pth", ".pt", ".ckpt")
MEASURED = b"measured"  # what a table of checkpoints' measures says of itself is under this
_LONGEST = 10**8  # numbers in a list: a range may say more than memory holds


def read(source: str | Path, every_column: bool = False) -> pd.DataFrame:
    """Reads a table of metrics: of a sweep's working directory, or a file; of PyTorch's, the curves in it.

    Args:
      source: the directory or file.
      every_column: also of tables that grokjax has written the columns that phases do not read.

    Raises:
      InputError: there is none.
    """
    path = files.path(source)
    if path.is_dir():
        found = parts(path / "metrics")
        if not found:
            raise InputError(f"{path} holds no metrics/*.parquet: name the working directory of a sweep, or a table.")
        return read_metrics(path, _needed(read_part(found[0]).column_names))
    files.refuse_missing(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the working directory of a sweep, or a table.")
    if path.suffix in TORCH:
        return _torch_curves(str(path))
    if path.suffix not in READERS:
        known = ", ".join([*READERS, *TORCH])
        raise InputError(f"{path} is no table that can be read: those end in {known}.")
    try:
        frame = READERS[path.suffix](io.BytesIO(path.read_bytes()))
        is_ours = path.suffix == ".parquet" and MEASURED in (
            pq.read_schema(io.BytesIO(path.read_bytes())).metadata or {}
        )
        return frame[_needed(frame.columns)] if is_ours and not every_column else frame
    except Exception as error:  # pandas and pyarrow may raise anything
        raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({type(error).__name__}: {error}).") from None


def read_all(sources: Sequence[str | Path]) -> pd.DataFrame:
    """Reads a table of metrics, or those of several sweeps as one, whose notes are in `attrs`.

    Args:
      sources: one as for `read`, or several working directories.

    Raises:
      InputError: as for `read`, or one of several is no working directory of a sweep.
    """
    if len(sources) == 1:
        return read(sources[0])
    joined = join(sources)
    if not joined.schemas():
        raise InputError(f"{', '.join(map(str, sources))} hold no metrics yet: wait for an evaluation.")
    return joined.metrics(COLUMNS)


def _needed(columns: Iterable[str]) -> list[str]:
    """Of the columns of metrics that say what they are, those that phases read: not all the other measures."""
    return [name for name in columns if name in ("run", "step", SPLIT_SEED_USED, *FIELDS, *COLUMNS)]


def _torch_curves(path: str) -> pd.DataFrame:
    """The lists of losses and accuracies, one number per epoch, in a PyTorch file, with or without a model."""
    from grokjax.interp import files as model_files  # which brings JAX

    held = model_files.load(path)
    lists = {_singular(str(name)): _numbers(x) for name, x in held.items()} if isinstance(held, Mapping) else {}
    names = recognised(lists)
    found = {new: lists[old] for new, old in {**{name: name for name in lists}, **names}.items() if new in ALIASES}
    curves = {name: values for name, values in found.items() if values is not None}
    if not {"train_loss", "test_loss"} <= curves.keys():
        raise InputError(
            f"{path} holds no curves: lists train_losses and test_losses are expected, one number per epoch. What a "
            "model or many checkpoints hold, grokjax measure reads."
        )
    n = len(curves["train_loss"])
    if len(curves.get("step", ())) != n:
        curves["step"] = list(range(n))  # epochs of some checkpoints, say
    if not n or any(len(values) != n for values in curves.values()):
        told = ", ".join(f"{len(values)} of {name}" for name, values in curves.items())
        raise InputError(f"{path}: its lists must be equally long, one number per epoch, but there are {told}.")
    return pd.DataFrame(curves)


def _singular(name: str) -> str:
    """What a list is called, as a column: train_losses is train_loss."""
    for end, one in (("losses", "loss"), ("accuracies", "accuracy"), ("accs", "acc")):
        name = name.removesuffix(end) + one if name.endswith(end) else name
    return name


def _numbers(values: Any) -> list[float] | None:
    """A list or an array of numbers, or of arrays of one; None if it is none."""
    if hasattr(values, "ndim") and values.ndim != 1:
        return None
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, list | tuple | range) or len(values[: _LONGEST + 1]) > _LONGEST:
        return None
    try:
        return [float(x) for x in values]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
