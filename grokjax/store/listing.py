"""Which sweeps lie under a folder, and how far each has come; also while they are trained. No JAX."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from grokjax.errors import InputError
from grokjax.store import files, locks
from grokjax.store.metrics import read_progress
from grokjax.store.records import RECORDS, part, read_record

OVER = ("finished", "stopped", "diverged")
UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep's directory, as it was when somebody looked.

    Attributes:
      path: of the directory.
      state: "training" (a process holds it), "interrupted" (runs are begun, and none does), "waiting" (no run is
        begun), "finished", or "unreadable".
      runs: how many it has; `over`: how many of these have ended, `memorised` and `grokked`: how many have.
      axes: the swept fields, each with its values.
      experiment: the file it came from, if any.
      n_bytes: of all its files.
      written: when the last of these was written, in seconds of Unix time.
      note: what else is to be said: that it holds a part of a sweep, or why it cannot be read; "" for nothing.
    """

    path: Path
    state: str
    runs: int = 0
    over: int = 0
    memorised: int = 0
    grokked: int = 0
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    experiment: str | None = None
    n_bytes: int = 0
    written: float = 0.0
    note: str = ""


def find(root: str | Path) -> Iterator[Sweep]:
    """Looks for sweeps under a folder, sorted by path; a sweep inside another one, as --only makes it, is one too.

    Raises:
      InputError: the folder does not exist.
      StorageError: a bucket cannot be reached.
    """
    folder = files.path(root)
    files.refuse_missing(folder)
    every = files.details(folder)
    places = sorted({name.parent for name in every if name.name in RECORDS})
    for place in places:
        inner = [other for other in places if other != place and other.is_relative_to(place)]
        mine = {name: about for name, about in every.items() if name.is_relative_to(place)}
        mine = {name: about for name, about in mine.items() if not any(name.is_relative_to(other) for other in inner)}
        if (found := _sweep(folder / str(place) if str(place) != "." else folder, place, mine)) is not None:
            yield found


def look(workdir: str | Path) -> Sweep:
    """Looks at one sweep's directory.

    Raises:
      InputError: it holds no sweep.
    """
    path = files.path(workdir)
    files.refuse_missing(path)
    found = _sweep(path, PurePosixPath("."), files.details(path))
    if found is None or found.state == UNREADABLE:
        read_record(path)  # which says why, if it is damaged
        raise InputError(found.note if found else f"{path} holds no sweep: name a directory that one is trained into.")
    return found


def _sweep(path: Path, place: PurePosixPath, every: Mapping[PurePosixPath, tuple[int, float]]) -> Sweep | None:
    """What a directory with a config.json holds; None if that is another program's."""
    size = {"n_bytes": sum(n for n, _ in every.values()), "written": max((at for _, at in every.values()), default=0.0)}
    try:
        record = read_record(path)
        runs = read_progress(path) if record and (path / "runs.parquet").is_file() else None
    except InputError as error:
        is_ours = any(place / name in every for name in ("runs.parquet", RECORDS[1]))
        return Sweep(path, UNREADABLE, **size, note=str(error)) if is_ours else None  # type: ignore[arg-type]
    if record is None:
        return None
    counts = {"runs": len(record["runs"]), **(_counts(runs) if runs is not None else {})}
    about = {"axes": record["axes"], "experiment": record.get("experiment"), "note": part(record)}
    return Sweep(path, _state(path, runs), **counts, **about, **size)  # type: ignore[arg-type]


def _counts(runs: pd.DataFrame) -> dict[str, int]:
    reached = {name: int(runs[f"{name}_step"].notna().sum()) for name in ("memorised", "grokked")}
    return {"over": int(runs["status"].isin(OVER).sum()), **reached}


def _state(path: Path, runs: pd.DataFrame | None) -> str:
    if runs is not None and runs["status"].isin(OVER).all():
        return "finished"
    if locks.is_held(path):
        return "training"
    return "waiting" if runs is None or runs["status"].eq("waiting").all() else "interrupted"
