"""Whole files, and cases: copies of them of which one file is damaged."""

import contextlib
import dataclasses
import io
import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from faults.damage import BYTES, CRAFTED, PLACES, nested, put_in_place, swapped
from grokjax import config
from grokjax.api import requests
from grokjax.interp import files
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.store import files as files_lib
from grokjax.store.metrics import read_metrics
from grokjax.training.request import Request, StopRequest

PAYLOAD = "sprung"  # what pickled code and experiment files would make
KINDS = ("npz", "torch", "npy", "safetensors", "many", "table", "parquet", "json", "checkpoint", "snapshot")
OF_MODELS = ("export", "measure", "circuit")
# The kinds that are no part of a sweep: where they lie, and what reads them.
FILES = {
    "npz": ("models/*.npz", OF_MODELS),
    "torch": ("models/*.pth", OF_MODELS),
    "npy": ("models/*.npy", OF_MODELS),
    "safetensors": ("models/*.safetensors", OF_MODELS),
    "many": ("runs/*", ("measure all", "phases")),
    "table": ("tables/*", ("phases", "report of a table")),
}


class StopAfter(StopRequest):
    """A wish to stop that comes at the n-th question."""

    def __init__(self, n: int):
        super().__init__()
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.signal = signal.SIGTERM
        return super().__call__()


def make_whole(folder: Path) -> None:
    """Makes the whole files that cases damage: models/*, tables/*, sweeps/done and sweeps/stopped."""
    for state, stop in (("done", None), ("stopped", StopAfter(7))):
        path = folder / "sweeps" / state
        requests.train(Request(config_of(state), path, console=Console(file=io.StringIO()), stop=stop or StopRequest()))
        shutil.rmtree(path / "report", ignore_errors=True)
    models, runs, tables = (folder / name for name in ("models", "runs", "tables"))
    for place in (models, runs, tables):
        place.mkdir()
    model = load_checkpoint(f"{folder / 'sweeps' / 'done'}:0")
    files.save_npz(model.params, model.cfg, models / "packed.npz", model.train_pairs)
    files.save_safetensors(model.params, model.cfg, models / "model.safetensors", record=model.record())
    arrays: dict[str, Any] = {name: np.asarray(x) for name, x in model.params.items()}
    np.savez(models / "plain.npz", **arrays)
    files.save_npz(model.params, model.cfg, runs / "step_100.npz", model.train_pairs)
    np.save(models / "array.npy", model.params["embed.W_E"], allow_pickle=False)
    with contextlib.suppress(ImportError):
        import torch

        tensors = {name: torch.from_numpy(np.array(x)) for name, x in model.params.items()}
        files.save_torch(model.params, model.cfg, models / "export.pth", record=model.record())
        torch.save({"model": tensors, "config": {"act_fn": "relu"}}, models / "new.pth")
        torch.save(tensors, models / "old.pth", _use_new_zipfile_serialization=False)
        curves = {"train_losses": [1.0] * 9, "test_losses": [2.0] * 9}
        beside = {"checkpoint_epochs": [0, 10], "train_indices": torch.from_numpy(np.array(model.train_pairs))}
        torch.save({"checkpoints": [tensors] * 2} | beside | curves, runs / "demo.pth")
    metrics = read_metrics(folder / "sweeps" / "done")
    metrics = metrics[[name for name in metrics if metrics[name].dtype.kind in "fib"]]
    metrics.to_parquet(tables / "metrics.parquet")
    metrics.to_csv(tables / "metrics.csv", index=False)


def config_of(state: str):
    """The config of the sweep that is done, or of the one that was stopped."""
    c = config.small()
    c.p, c.train_fraction = 7, 0.6
    c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
    c.eval_every, c.snapshot_every, c.slots, c.measures = 20, 100, 3, ("spectra",)
    c.steps, c.checkpoint_every_steps = (200, 0) if state == "done" else (40_000, 400)
    c.sweep.weight_decay, c.sweep.seed = (0.0, 1.0), (0, 1)
    return c


@dataclasses.dataclass(frozen=True)
class Case:
    """One damaged file and who reads it.

    Attributes:
      number: also the seed.
      kind: of file, of `KINDS`.
      damage: what was done, in a word or two.
      sealed: whether checksums say that the damage was written.
      file: which, below the folder of the case.
      state: of the sweep, "done" or "stopped"; "" where there is none.
      readers: of `readers.READERS`.
    """

    number: int
    kind: str
    damage: str
    sealed: bool
    file: str
    state: str
    readers: tuple[str, ...]


def make(number: int, whole: Path, folder: Path) -> Case:
    """Makes a case: copies whole files to a new folder, and damages one of them."""
    draw = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    state, sweep = "", folder / "sweep"
    if kind in FILES:
        kind, source = _a_file(kind, whole, draw)
        folder.mkdir(parents=True)
        target = Path(shutil.copy(source, folder))
    else:
        state = "stopped" if kind == "checkpoint" else draw.choice(["done", "stopped"])
        shutil.copytree(whole / "sweeps" / state, sweep)
        target = draw.choice(_files_of(kind, sweep))
    file = str(target.relative_to(folder))
    readers = _readers(kind, draw)
    before = target.read_bytes()
    damage = _damage(target, kind, draw, folder / PAYLOAD)
    if target.is_file() and target.stat().st_size == len(before) and target.read_bytes() == before:
        damage = "nothing"  # as when bytes are drawn that were there
    sealed = bool(state) and draw.random() < 0.5 and target.is_file() and target.stat().st_size < 1 << 30
    if sealed:
        _seal(target, sweep)
    return Case(number, kind, damage, sealed, file, state, readers)


def _a_file(kind: str, whole: Path, draw: random.Random) -> tuple[str, Path]:
    """A whole file of a kind; without PyTorch an npz in place of its own."""
    found = sorted(path for path in whole.glob("[mrt]*/*") if path.match(FILES[kind][0]))
    return (kind, draw.choice(found)) if found else _a_file("npz", whole, draw)


def _readers(kind: str, draw: random.Random) -> tuple[str, ...]:
    if kind in FILES:
        return FILES[kind][1][: None if draw.random() < 0.15 else 1]
    of_models = ("export a snapshot", "replay", "circuits")
    if kind == "snapshot":
        return tuple(dict.fromkeys(("check", draw.choice(of_models), "export a snapshot", "resume")))
    others = ("report", "phases") if kind == "parquet" else ("report", "phases", *of_models)
    return ("check", draw.choice(others), "resume")


def _files_of(kind: str, sweep: Path) -> list[Path]:
    if kind == "parquet":
        return [*sorted((sweep / "metrics").iterdir()), sweep / "runs.parquet"]
    if kind == "json":
        return [sweep / "config.json"]
    return sorted(path for path in (sweep / f"{kind}s").rglob("*") if path.is_file() and path.stat().st_size)


def _damage(target: Path, kind: str, draw: random.Random, trap: Path) -> str:
    chance, data = draw.random(), target.read_bytes()
    if chance < 0.15:
        what = draw.choice(PLACES)
        put_in_place(target, what)
        return what
    if chance < 0.35:
        crafted = draw.choice(CRAFTED[kind])
        try:
            target.write_bytes(crafted(draw, trap))
            return crafted.__name__.replace("_", " ")
        except ImportError:
            pass
    if kind == "json" and draw.random() < 0.3:
        return _changed_record(target, draw, trap)
    siblings = sorted(path for path in target.parent.iterdir() if path.is_file() and path != target) or [target]
    other = draw.choice(siblings).read_bytes() or b"\0"
    some = (*BYTES, swapped, swapped, nested) if kind == "json" else BYTES
    function = draw.choice(some)
    target.write_bytes(function(data or b"\0", draw, other))
    return function.__name__


ODD: list[Any] = [None, -1, 0, 10**30, 1e300, "", "\x1b[2J\n../..", [], {}, True, "x" * 10_000, [[]], 2**31, "add"]


def _changed_record(target: Path, draw: random.Random, trap: Path) -> str:
    """config.json with one value anywhere in it changed for an odd one, or an experiment that is a trap."""
    record = json.loads(target.read_text())
    evil = trap.parent / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(trap)!r})\nraise ValueError\n")
    record["experiment"] = str(evil)
    at: Any = record
    key = _drawn(at, draw)
    while isinstance(at[key], dict | list) and at[key] and draw.random() < 0.85:
        at = at[key]
        key = _drawn(at, draw)
    if draw.random() < 0.2:
        del at[key]
    else:
        at[key] = draw.choice(ODD)
    target.write_text(json.dumps(record))
    return "a value changed"


def _drawn(at: dict | list, draw: random.Random):
    """A key or an index."""
    return draw.choice(list(at) if isinstance(at, dict) else range(len(at)))


def _seal(target: Path, sweep: Path) -> None:
    """Makes the checksums right, as if the damage was what had been written."""
    if target.name.endswith(".sha256") or target.name == files_lib.MANIFEST:
        return
    inside = target.relative_to(sweep).parts
    if inside[0] in ("snapshots", "checkpoints"):
        folder = sweep / inside[0] / inside[1]
        (folder / files_lib.MANIFEST).write_bytes(
            files_lib._manifest(files_lib._digests(folder), files_lib.note(folder))
        )
    else:
        files_lib.checksum_path(target).write_text(files_lib._line(target.read_bytes(), target))
