"""A sweep's working directory: who may write there, and what it was made from."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grokjax.core import environment
from grokjax.core.hosts import ALONE, Hosts
from grokjax.errors import InputError, StorageError
from grokjax.store import extension, files, final_states, locks
from grokjax.store.records import RECORDS, part, read_record
from grokjax.store.sweep import answers, described, difference, elements, of_tasks, part_of, refuse_other_answers
from grokjax.sweeps import Sweep

# How the names begin of what may be there before a sweep is.
OURS = (".lock", ".config.json", "..config.json", files.CHECKSUMS)


class Workdir:
    """Opens a working directory for a sweep, making it if needed.

    Args:
      path: of the directory.
      sweep: what is to be trained there.
      overwrite: throw away what another sweep left there.
      held: whether another process of the same sweep holds the directory already.
      tell: is told in a sentence where opening it takes time.
      lock: whether a file system that has no locks is refused.
      extend: whether the directory may hold some of the sweep's runs only.

    Attributes:
      record: config.json as found, or None for a new directory.
      metrics, runs, checkpoints, snapshots: where each of these lies.

    Raises:
      InputError: the directory cannot be written, is in use, holds another sweep, or holds something else.
    """

    def __init__(
        self,
        path: str | Path,
        sweep: Sweep,
        overwrite: bool = False,
        held: bool = False,
        tell: Callable[[str], None] = lambda text: None,
        lock: bool = True,
        extend: bool = False,
    ):
        self.path = files.path(path)
        self.sweep = sweep
        self.metrics, self.runs = self.path / "metrics", self.path / "runs.parquet"
        self.checkpoints, self.snapshots = self.path / "checkpoints", self.path / "snapshots"
        self._lock: locks.FileLock | locks.ObjectLock | None = None
        if held:
            self.record = read_record(self.path)
            return
        with _refusing(self.path):
            self.record = inspect(self.path, sweep, overwrite, extend)
            if files.is_local(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.take(self.path, tell, lock)
        if self.record and self.record.get("checksums"):
            files.keep_checksums(self.path)  # even where somebody has removed it
        if overwrite:
            try:
                self._clear()
            except BaseException:
                self.close()
                raise
        elif self.record and any(files.trouble(self.path / name) for name in RECORDS):
            self._write_record()

    def confirm(self) -> None:
        """Makes sure that no other process has taken the directory over.

        Raises:
          StorageError: one has.
        """
        if self._lock:
            self._lock.confirm()

    def close(self) -> None:
        """Lets go of the directory, so that another sweep may use it."""
        if self._lock:
            self._lock.close()

    def _clear(self) -> None:
        # config.json goes last: without it a half-cleared directory would be a stranger's.
        for name in ("metrics", "checkpoints", "snapshots", final_states.FOLDER, "replay", "report"):
            files.drop(self.path / name)
        for name in ("runs.parquet", "circuit.parquet", *RECORDS):
            files.remove(self.path / name)
        files.drop_checksums(self.path)

    def begin(
        self,
        layouts: Sequence[Mapping[str, int]],
        experiment: str | None = None,
        width: Sequence[Mapping[str, Any]] = (),
        compiler: str | None = None,
        hosts: Hosts = ALONE,
        n_runs: int | None = None,
    ) -> None:
        """Writes config.json for a new sweep: what will be trained, with what, on what.

        Args:
          layouts: each group's, as it is recorded.
          experiment: the file it came from.
          width: how each layout was chosen.
          compiler: of the C++ that gradients are computed by, if they are.
          hosts: the processes that train together, of which the first one writes.
          n_runs: of the whole sweep, where only some of it are trained here.
        """
        self.record = {
            "experiment": experiment,
            "config": dict(self.sweep.base),
            "axes": {path: list(values) for path, values in self.sweep.axes.items()},
            "runs": described(self.sweep),
            "n_runs": n_runs or len(self.sweep.runs),
            "groups": list(layouts),
            "width": list(width),
            "checksums": files.CHECKSUMS,
            **_about(self.sweep),
            "native": compiler,
            **environment.environment(),
        }
        files.keep_checksums(self.path)
        if hosts.is_first:
            self._write_record()

    @property
    def is_extended(self) -> bool:
        """Whether the sweep has runs that config.json does not tell of yet."""
        return bool(self.record and difference(self.record["runs"], described(self.sweep)))

    def extend(
        self,
        layouts: Sequence[Mapping[str, int]],
        width: Sequence[Mapping[str, Any]] = (),
        compiler: str | None = None,
        hosts: Hosts = ALONE,
    ) -> None:
        """Writes the runs that are new to the directory into config.json; arguments as for `begin`.

        The layouts that are recorded there stay, and so does what was recorded of the environment: that of the new runs
        stands beside it, with the number of the first of them.
        """
        assert self.record
        n_groups, begun = len(self.record["groups"]), {run["run"] for run in self.record["runs"]}
        new = {"from_run": min((run.run for run in self.sweep.runs if run.run not in begun), default=None)}
        self.record |= {
            "config": dict(self.sweep.base),
            "axes": {path: list(values) for path, values in self.sweep.axes.items()},
            "runs": described(self.sweep),
            "n_runs": len(self.sweep.runs),
            "groups": [*self.record["groups"], *layouts[n_groups:]],
            "width": [*self.record.get("width", []), *width[n_groups:]],
            **_about(self.sweep),
            "native": self.record.get("native") or compiler,
            "extensions": [*self.record.get("extensions", []), {**new, **environment.environment()}],
        }
        if hosts.is_first:
            self._write_record()

    def _write_record(self) -> None:
        for name in reversed(RECORDS):
            files.write_text(json.dumps(self.record, indent=1) + "\n", self.path / name)


def _about(sweep: Sweep) -> dict[str, Any]:
    """What config.json says of a sweep's tasks and precision."""
    return {"answers": answers(sweep), **elements(sweep), "precision": sweep.precision}


def inspect(path: Path, sweep: Sweep, overwrite: bool, extend: bool = False) -> dict[str, Any] | None:
    """What a directory was made from, if it may be used for a sweep; nothing is written.

    Args:
      path: of the directory, which need not be there.
      sweep: what is to be trained there.
      overwrite: whether what another sweep left there is to be thrown away.
      extend: whether the directory may hold some of the sweep's runs only.

    Returns:
      config.json; None for a new directory, and for one to be overwritten.

    Raises:
      InputError: the directory is none, or holds another sweep or something else.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--workdir={path} is a file, but it must be a directory.")
    if overwrite and any((path / name).is_file() for name in RECORDS):
        return None
    found = read_record(path)
    if found is None:
        strangers = [place.name for place in files.listed(path) if not place.name.startswith(OURS)]
        if strangers:
            raise InputError(f"--workdir={path} holds {strangers[0]} but no sweep: choose an empty or new directory.")
        return None
    differs = difference(found["runs"], described(sweep))
    if differs and extend and not part(found) and part_of(found, sweep, longer=True):
        differs = ""
    if differs and part(found) and part_of(found, sweep):
        some = ",".join(str(values["run"]) for values in found["runs"])
        raise InputError(
            f"--workdir={path} holds a part of this sweep, {len(found['runs'])} of {len(sweep.runs)} "
            f"runs: go on there with --only={some}, choose another directory, or --overwrite to start again there."
        )
    if differs:
        later = ""
        if differs.startswith("measures of "):
            later = f" Measures of what is there: grokjax replay {path} --measures=GROUPS."
        offer = extension.offered(path, found, sweep)
        raise InputError(
            f"--workdir={path} holds another sweep ({differs}): {offer}choose another directory, or --overwrite "
            f"to start again there.{later}"
        )
    more = " and choose another directory, or --overwrite to start again there"
    refuse_other_answers(f"--workdir={path}", found, of_tasks(sweep), more)
    return found


def refuse(path: Path, sweep: Sweep, overwrite: bool, extend: bool = False) -> None:
    """Refuses what `Workdir` would refuse of a directory, but that another process holds it; nothing is written.

    Raises:
      InputError: as for `Workdir`.
    """
    with _refusing(path):
        inspect(path, sweep, overwrite, extend)
        if files.is_local(path):
            _refuse_unwritable(path)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turns what a disk or a store says of a directory into a sentence of the user's."""
    try:
        yield
    except InputError:
        raise
    except StorageError as error:
        raise InputError(f"--workdir={path} cannot be used: {error}.") from None
    except OSError as error:
        raise InputError(f"--workdir={path} cannot be written ({error.strerror}): choose another.") from None
    except ValueError:  # a NUL in it
        raise InputError(f"--workdir={path} is no name of a directory: choose another.") from None


def _refuse_unwritable(path: Path) -> None:
    """Raises an OSError where nothing may be made in a folder, or in the first above it that is there."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
