"""A sweep's folder: who may write there, what it was made from, and whether it is done."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from grokjax import cpu, locks, storage
from grokjax.config import FIELDS, OPERATIONAL
from grokjax.errors import InputError, shown
from grokjax.hosts import ALONE, Hosts
from grokjax.native import kernels as native
from grokjax.population import Shape
from grokjax.storage import StorageError
from grokjax.sweeps import Sweep

MOST_SLOTS = 1 << 20  # of a layout that may be believed
ONLY = "only_"  # begins the name of the working directory, inside a sweep's own, of what --only trains again
RECORDS = ("config.json", ".config.json.spare")  # the same twice: no resume can do without it
OURS = (".lock", ".config.json", "..config.json")  # how the names begin of what may be there before a sweep is
PACKAGES = ("grokjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow")


class Workdir:
    """Opens a working directory for a sweep, making it if needed.

    Args:
      path: of the directory.
      sweep: what is to be trained there.
      overwrite: throw away what another sweep left there.
      held: whether another process of the same sweep holds the directory already.
      tell: is told in a sentence where opening it takes time.

    Attributes:
      record: config.json as found, or None for a new directory.

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
    ):
        self.path = storage.path(path)
        self.sweep = sweep
        self._lock: locks.Lock | None = None
        if held:
            self.record = read_record(self.path)
            return
        try:
            self.record = self._inspect(overwrite)
            if storage.is_local(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.take(self.path, tell)
        except InputError:
            raise
        except StorageError as error:
            raise InputError(f"--workdir={self.path} cannot be used: {error}.") from None
        except OSError as error:
            raise InputError(f"--workdir={self.path} cannot be written ({error.strerror}): choose another.") from None
        except ValueError:  # a NUL in it
            raise InputError(f"--workdir={self.path} is no name of a directory: choose another.") from None
        if overwrite:
            try:
                self._clear()
            except BaseException:
                self.close()
                raise
        elif self.record and any(storage.trouble(self.path / name) for name in RECORDS):
            self._write_record()

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def runs(self) -> Path:
        return self.path / "runs.parquet"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    def _inspect(self, overwrite: bool) -> dict[str, Any] | None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--workdir={self.path} is a file, but it must be a directory.")
        has_record = any((self.path / name).is_file() for name in RECORDS)
        if overwrite and has_record:
            return None
        found = read_record(self.path)
        if found is None:
            strangers = [place.name for place in storage.listed(self.path) if not place.name.startswith(OURS)]
            if strangers:
                raise InputError(
                    f"--workdir={self.path} holds {strangers[0]} but no sweep: choose an empty or new directory."
                )
            return None
        differs = difference(found["runs"], described(self.sweep))
        if differs:
            raise InputError(
                f"--workdir={self.path} holds another sweep ({differs}): choose another directory, or --overwrite "
                "to start again there."
            )
        return found

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
        for name in ("metrics", "checkpoints", "snapshots", "replay", "report"):
            storage.drop(self.path / name)
        for name in ("runs.parquet", "circuit.parquet", *RECORDS):
            storage.remove(self.path / name)

    def begin(
        self,
        shapes: list[Shape],
        experiment: str | None = None,
        width: Sequence[Mapping[str, Any]] = (),
        hosts: Hosts = ALONE,
    ) -> None:
        """Writes config.json for a new sweep: what will be trained, with what, on what.

        Args:
          shapes: each group's layout.
          experiment: the file it came from.
          width: how each layout was chosen.
          hosts: the processes that train together, of which the first one writes.
        """
        self.record = {
            "experiment": experiment,
            "config": dict(self.sweep.base),
            "axes": {path: list(values) for path, values in self.sweep.axes.items()},
            "runs": described(self.sweep),
            "groups": [vars(shape) for shape in shapes],
            "width": list(width),
            "precision": self.sweep.precision,
            "native": native.identity() if any(shape.n_parts for shape in shapes) else None,
            **environment(),
        }
        if hosts.is_first:
            self._write_record()

    def _write_record(self) -> None:
        for name in reversed(RECORDS):
            storage.write_text(json.dumps(self.record, indent=1) + "\n", self.path / name)


def read_record(path: str | Path) -> dict[str, Any] | None:
    """config.json of a working directory, or its spare copy where it is damaged or lost; None if there is neither.

    Raises:
      InputError: it is damaged, and so is the copy, or it cannot be reached.
    """
    file, spare = (storage.path(path) / name for name in RECORDS)
    try:
        whole = next((place for place in (file, spare) if not storage.trouble(place)), file)
        if whole == file and not file.is_file():
            return None
        if whole == file and storage.checksum_path(file).is_file() and storage.trouble(file):
            raise InputError(f"{file} {storage.trouble(file)}: restore it, or --overwrite to start again there.")
        record = json.loads(whole.read_text())  # without a checksum it was made by hand
    except StorageError as error:
        raise InputError(f"--workdir={path} cannot be used: {error}.") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, MemoryError):
        raise InputError(f"{file} cannot be read as JSON: restore it, or --overwrite to start again there.") from None
    wrong = _wrong_in(record)
    if wrong:
        raise InputError(f"{file} is no sweep's ({wrong}): restore it, or --overwrite to start again there.")
    return record


def _wrong_in(record: Any) -> str:
    """What in config.json is not of the kind that others rely on; empty if it is."""
    if not isinstance(record, dict):
        return "it holds no fields"
    for name, kind in (("config", dict), ("axes", dict), ("runs", list), ("groups", list)):
        if not isinstance(record.get(name), kind):
            return f"'{name}' is missing or of another kind"
    if [run.get("run") if isinstance(run, dict) else None for run in record["runs"]] != list(
        range(len(record["runs"]))
    ):
        return "'runs' are not numbered from 0"
    if not all(isinstance(values, list) for values in record["axes"].values()):
        return "'axes' are not lists of values"
    names, may_be_0 = {field.name for field in dataclasses.fields(Shape)}, {"block", "n_parts"}
    for group in record["groups"]:
        if not (isinstance(group, dict) and names >= group.keys() >= names - may_be_0):
            return "'groups' have other fields"
        if not all(_is_count(value) for value in group.values()) or not all(group[name] for name in names - may_be_0):
            return "'groups' have impossible layouts"
        if group.get("n_parts", 0) > native.MOST_PARTS:
            return "'groups' have impossible layouts"
    if record.get("n_devices") is not None and not (_is_count(record["n_devices"]) and record["n_devices"]):
        return "'n_devices' is no number of devices"
    return ""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_SLOTS


def described(sweep: Sweep) -> list[dict[str, Any]]:
    """The runs of a sweep as config.json holds them."""
    return json.loads(json.dumps([{"run": run.run, **run.values} for run in sweep.runs]))


def difference(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> str:
    """The first difference between two described sweeps, in words; empty if there is none that changes results."""
    if len(found) != len(wanted):
        return f"of {len(found)} runs, not {len(wanted)}"
    for old, new in zip(found, wanted, strict=True):
        for path in new:
            # A field that is younger than the directory had no effect there, which is what its default means.
            there = old.get(path, FIELDS[path].default if path in FIELDS else None)
            if path not in OPERATIONAL and there != new[path]:
                return f"{path} of run {new['run']} is {shown(there)} there, {shown(new[path])} here"
    return ""


def environment() -> dict[str, Any]:
    """What results may depend on beside the config: versions, devices, threads, and the commit they were made at."""
    devices = jax.local_devices()
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "n_devices": len(devices),
        "n_processes": jax.process_count(),
        # XLA's CPU backend splits long contractions by its thread pool, so bits depend on it.
        "cpu_threads": cpu.count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this source tree, with "+changes" if it was modified; None outside a checkout."""
    here = Path(__file__).parent

    def git(*args):
        return subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "+changes" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
