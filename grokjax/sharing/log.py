"""A sweep's runs logged to a tool that tracks experiments. It only reads the sweep, so training never waits for it."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from grokjax import phases
from grokjax.config import FIELDS
from grokjax.errors import InputError, StorageError, file_name, for_python
from grokjax.report import write
from grokjax.sharing.tracker import Run, Session, Tracker, of_name
from grokjax.store import files, locks
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import metrics_table, parts, read_part, read_progress
from grokjax.store.records import read_record

EVERY = 30.0  # seconds between looks at a sweep that is followed
OUTCOME = ("status", "last_step", "train_loss", "test_loss", "train_acc", "test_acc", "n_key_freqs")
PHASES = ("memorised_by", "grokked_by", "delay", *(name for name in phases.TIMES if name.endswith("_end")))
WORDS = ("run_class", "phases", "phases_sentence")


def log(
    workdir: str | Path,
    to: str | Tracker,
    *,
    out: str | Path = "logs",
    name: str | None = None,
    follow: bool = False,
    every: float = EVERY,
    tell: Callable[[str], None] = lambda text: None,
) -> int:
    """Logs every run of a sweep to a tool that tracks experiments: hyperparameters, every column of numbers, phases.

    What has been logged is noted in `out`, so that another call goes on from there, and one with nothing new does
    nothing. The sweep may still be in training, and is only read.

    Args:
      workdir: of the sweep; local, gs://bucket/path or s3://bucket/path.
      to: "tensorboard", "wandb", a Python file with get_tracker(folder), or a `sharing.tracker.Tracker`.
      out: a folder for the notes, and for what the tool itself writes on this machine.
      name: of the sweep there; by default the directory's.
      follow: whether to go on until every run has ended.
      every: seconds between looks at a sweep that is followed.
      tell: is told in a sentence what was logged.

    Returns:
      How many evaluations were logged.

    Raises:
      InputError: bad arguments, no sweep, or another process logs to the same place.
      StorageError: the tool failed; what was noted before is not logged again.

    Example:
      >>> import grokjax
      >>> class Printed:
      ...     def begin(self, run): print(run.name, run.config["weight_decay"]); return self
      ...     def log(self, step, values): pass
      ...     def flush(self): pass
      ...     def end(self, outcome): print(outcome["status"])
      ...     def close(self): pass
      ...     def report(self, sweep, files): print(files[0].name)
      >>> grokjax.log("results/tiny", Printed())
      run_00000 0.0
      finished
      run_00001 0.0
      finished
      run_00002 1.0
      finished
      run_00003 1.0
      finished
      index.html
      44
    """
    with for_python():
        return log_sweep(workdir, to, out, name, follow, every, tell)


def log_sweep(
    workdir: str | Path,
    to: str | Tracker,
    out: str | Path,
    name: str | None,
    follow: bool,
    every: float,
    tell: Callable[[str], None],
) -> int:
    """Logs every run of a sweep, for the command line; arguments as of `log`."""
    path, folder = files.path(workdir), files.path(out)
    if read_record(path) is None:
        files.refuse_missing(path)
        raise InputError(f"{workdir} holds no sweep: name the workdir of one that has begun to train.")
    if not files.is_local(folder):
        raise InputError(f"--out={out} is in a bucket: name a folder on a disk.")
    name = name or path.resolve().name
    tracker = of_name(to, folder) if isinstance(to, str) else to
    kind = Path(to).stem if isinstance(to, str) else type(to).__name__
    with _noted(folder, f"{kind}.{file_name(name)}") as notes:
        return _Logging(path, tracker, kind, name, notes).run(follow, every, tell)


@contextlib.contextmanager
def _noted(folder: Path, name: str) -> Iterator["_Notes"]:
    """The notes on what has been logged, while no other process writes them."""
    place = folder / ".grokjax" / name
    files.make_folder(place)
    try:
        lock = locks.take(place)
    except InputError as error:
        raise InputError(str(error).replace("--workdir=", "--out: ")) from None
    try:
        yield _Notes(place / "logged.json")
    finally:
        lock.close()


class _Notes:
    """What has been logged: by run the last step, and at which step the run's outcome was; and which report."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._held = json.loads(path.read_bytes()) if path.is_file() else {}
            self._runs: dict[str, dict[str, int]] = self._held.setdefault("runs", {})
        except (ValueError, AttributeError):
            raise InputError(f"{path} is not what was written: remove it to log all again.") from None

    def of(self, run: int) -> tuple[int, int]:
        """The last step that was logged, and that at which the run's outcome was; -1 for none."""
        found = self._runs.get(str(run), {})
        return found.get("step", -1), found.get("ended", -1)

    def note(self, run: int, **what: int) -> None:
        self._runs[str(run)] = self._runs.get(str(run), {}) | what
        self._save()

    @property
    def report(self) -> str:
        """The hash of the report that was logged."""
        return self._held.get("report", "")

    def note_report(self, digest: str) -> None:
        self._held["report"] = digest
        self._save()

    def _save(self) -> None:
        files.put(json.dumps(self._held).encode(), self._path)


class _Logging:
    """Logs one sweep to one tool."""

    def __init__(self, path: Path, tracker: Tracker, kind: str, name: str, notes: _Notes):
        self._path, self._tracker, self._kind, self._name, self._notes = path, tracker, kind, name, notes
        self._sessions: dict[int, Session] = {}

    def run(self, follow: bool, every: float, tell: Callable[[str], None]) -> int:
        """Logs what is there, and what comes if the sweep is followed; returns the number of evaluations."""
        n = 0
        with self._telling():
            try:
                while True:
                    new, over = self._round()
                    n += new
                    if new:
                        tell(f"{new:,} evaluations logged to {self._kind}")
                    if over or not follow:
                        break
                    time.sleep(every)
                if over:
                    self._log_report()
            finally:
                for session in self._sessions.values():
                    session.close()
        return n

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Tells in a sentence what a tool raises, whatever that is."""
        try:
            yield
        except (InputError, StorageError):
            raise
        except Exception as error:
            again = "what was logged before is noted, and the same command goes on from there"
            raise StorageError(f"{self._kind} failed ({type(error).__name__}: {error}); {again}") from error

    def _round(self) -> tuple[int, bool]:
        """Logs what is new. Returns the number of evaluations, and whether every run has ended."""
        if not (self._path / "runs.parquet").is_file() or not parts(self._path / "metrics"):
            return 0, False
        held = locks.is_held(self._path)  # before the tables, which may be settled once it is not
        runs = read_progress(self._path)
        try:
            columns = _numbers(read_part(parts(self._path / "metrics")[0]).schema)
            metrics = metrics_table(self._path, ["run", "step", *columns]).to_pandas().sort_values(["run", "step"])
        except (IndexError, FileNotFoundError):  # a sweep that goes on takes away what is later than its checkpoint
            return 0, False
        late = [name for name in columns if f"{name}_online" in columns]  # of final keys, null until a run has ended
        by_run = dict(iter(metrics.groupby("run")))
        ended = runs["status"].isin(Ledger.OVER)
        settled = ended & (runs["key_freqs"].notna() | (runs["status"] == "diverged") | (not late) | (not held))
        n = 0
        for row, done in zip(runs.to_dict("records"), settled, strict=True):
            n += self._log_run(row, by_run.get(row["run"], metrics[:0]), late, done)
        return n, bool(settled.all())

    def _log_run(self, row: Mapping[Any, Any], rows: pd.DataFrame, late: list[str], done: bool) -> int:
        """Logs what is new of a run, and once it is done what became of it."""
        run = int(row["run"])
        step, ended = self._notes.of(run)
        new = rows[rows["step"] > step]
        outcome = done and ended != row["last_step"]
        if new.empty and not outcome:
            return 0
        if run not in self._sessions:
            self._sessions[run] = self._tracker.begin(Run(self._name, run, _config(row), step))
        session = self._sessions[run]
        _send(session, new.drop(columns=["run", *late]))
        session.flush()
        if len(new):
            self._notes.note(run, step=int(new["step"].iloc[-1]))
        if outcome:
            _send(session, rows[["step", *late]])
            session.end(_outcome(row, rows))
            session.flush()
            self._sessions.pop(run).close()
            self._notes.note(run, ended=int(row["last_step"]))
        return len(new)

    def _log_report(self) -> None:
        """Logs the report, if it is there and has changed."""
        some = [path for path in (write.page_path(self._path), write.figure_path(self._path)) if path.is_file()]
        digest = hashlib.sha256(b"".join(files.read(path) for path in some)).hexdigest()
        if some and digest != self._notes.report:
            self._tracker.report(self._name, some)
            self._notes.note_report(digest)


def _numbers(schema: pa.Schema) -> list[str]:
    """The columns of the metrics that hold a number in each row, and are measures."""
    types = pa.types
    kinds = (types.is_floating, types.is_integer, types.is_boolean)
    found = [field.name for field in schema if any(is_kind(field.type) for is_kind in kinds)]
    return [name for name in found if name not in ("run", "step", "split_seed_used", *FIELDS)]


def _send(session: Session, rows: pd.DataFrame) -> None:
    """Logs rows without what is null in them."""
    for row in rows.to_dict("records"):
        step = int(row.pop("step"))
        if values := {str(name): float(value) for name, value in row.items() if not pd.isna(value)}:
            session.log(step, values)


def _config(row: Mapping[Any, Any]) -> dict[str, int | float | str]:
    """A run's hyperparameters but those that are unset."""
    found = {name: row[name] for name in FIELDS if name in row}
    found = {name: x if pd.api.types.is_scalar(x) else ", ".join(x) for name, x in found.items()}
    return {name: x.item() if hasattr(x, "item") else x for name, x in found.items() if not pd.isna(x)}


def _outcome(row: Mapping[Any, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """What became of a run, without what is unknown."""
    found = phases.find_phases(rows).iloc[0].to_dict()
    keys = row["key_freqs"]
    told = {**row, "n_key_freqs": None if keys is None else len(keys)}
    values = {name: told[name] for name in OUTCOME} | {name: found[name] for name in (*PHASES, *WORDS)}
    return {n: x if isinstance(x, str) else float(x) for n, x in values.items() if isinstance(x, str) or _known(x)}


def _known(value: Any) -> bool:
    return value is not None and not pd.isna(value) and math.isfinite(value)
