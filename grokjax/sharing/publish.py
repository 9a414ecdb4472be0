"""A sweep as a folder to publish, in the layout that the Hugging Face hub previews, without a trace of the machine."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from grokjax import tasks
from grokjax.errors import InputError, file_name, for_python
from grokjax.interp import files as model_files
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.phases.survival import counted
from grokjax.report.results import read
from grokjax.report.write import write_into
from grokjax.sharing import anonymous, card, experiment
from grokjax.store import files, snapshots
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import parts, read_part
from grokjax.store.records import read_record
from grokjax.store.weights import weights_path


def publish(
    workdir: str | Path,
    out: str | Path,
    *,
    license: str,
    name: str | None = None,
    weights: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes a sweep as a folder to publish: metrics, runs, config, final weights, report and a card.

    It holds no path, no user's and no machine's name; `grokjax.open` reads it, and the Hugging Face hub previews it.

    Args:
      workdir: of the sweep, whose runs have all ended; local, gs://bucket/path or s3://bucket/path.
      out: the folder, which must not be there yet.
      license: the identifier of its licence, such as "cc-by-4.0".
      name: of the sweep; by default the directory's.
      weights: whether each run's last snapshot is put in, as safetensors.
      tell: is told in a sentence what was left out.

    Returns:
      The folder.

    Raises:
      InputError: bad arguments, no sweep, or one that is not over.
      StorageError: the folder cannot be written.

    Example:
      >>> import grokjax
      >>> folder = grokjax.publish("results/tiny", "results/published", license="cc-by-4.0")
      >>> sorted(path.name for path in folder.glob("[!.]*"))
      ['README.md', 'config.json', 'experiment.py', 'metrics', 'report', 'runs.parquet', 'weights']
      >>> grokjax.open(folder).params(run=0)["embed.W_E"].shape
      (8, 8)
    """
    with for_python():
        return publish_sweep(workdir, out, license, name, weights, tell)


def publish_sweep(
    workdir: str | Path,
    out: str | Path,
    license: str,
    name: str | None,
    weights: bool,
    tell: Callable[[str], None],
) -> Path:
    """Writes a sweep as a folder to publish, for the command line; arguments as of `publish`."""
    path, target = files.path(workdir), files.path(out)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(
            f"--license={license} is no licence's identifier: give one such as cc-by-4.0, apache-2.0 or mit."
        )
    if files.listed(target) or target.is_file():
        raise InputError(f"--out={target} is there already: choose another folder.")
    runs, record = _over(path)
    name = file_name(name or path.resolve().name)
    for task in sorted({run["task"] for run in record["runs"] if not tasks.is_known(run["task"])}):
        tell(f"task '{task}' is an experiment's own, so experiment.py needs the file that defines it")
    if target.is_dir():
        target.rmdir()
    with files.new_folder(target) as folder:
        folder.mkdir()
        n_rows = _tables(path, folder)
        files.put((json.dumps(anonymous.cleaned(record), indent=1) + "\n").encode(), folder / "config.json")
        files.put(experiment.text(anonymous.cleaned(record), name).encode(), folder / "experiment.py")
        n_weights = _weights(path, folder, runs, tell) if weights else 0
        results = dataclasses.replace(read(folder), known_as=name)
        write_into(results, folder / "report")
        for file in (folder / "report").glob(".*.sha256"):
            file.unlink()
        files.put(card.text(results, name, license, n_rows, n_weights).encode(), folder / "README.md")
    return target


def _over(path: Path) -> tuple[pd.DataFrame, dict]:
    """The runs of a sweep that is over, and its config.json."""
    record = read_record(path)
    if record is None:
        files.refuse_missing(path)
        raise InputError(f"{path} holds no sweep: name the directory of one that has been trained.")
    if not (path / "runs.parquet").is_file() or not parts(path / "metrics"):
        raise InputError(f"{path} has no runs yet: train it to its end first.")
    runs = read_part(path / "runs.parquet").to_pandas()
    if waiting := int((~runs["status"].isin(Ledger.OVER)).sum()):
        raise InputError(f"{path} has {counted(waiting, 'run')} that have not ended: train it to its end first.")
    return runs, record


def _tables(path: Path, folder: Path) -> int:
    """Writes metrics and runs, each value as it was; returns the number of the metrics' rows."""
    n_rows = 0
    (folder / "metrics").mkdir()
    for part in parts(path / "metrics"):
        table = anonymous.table(read_part(part))
        n_rows += table.num_rows
        files.put(files.parquet_bytes(table), folder / "metrics" / part.name)
    files.put(files.parquet_bytes(anonymous.table(read_part(path / "runs.parquet"))), folder / "runs.parquet")
    return n_rows


def _weights(path: Path, folder: Path, runs: pd.DataFrame, tell: Callable[[str], None]) -> int:
    """Writes the last snapshot of each run that has one; returns how many have."""
    found = snapshots.find_snapshots(path)
    have = {run for run, _ in found}
    if lacking := [run for run in runs["run"] if run not in have]:
        tell(f"{snapshots.named(lacking)} {'has' if len(lacking) == 1 else 'have'} no snapshot, so no weights")
    for run in sorted(have & set(runs["run"])):
        held = load_checkpoint(f"{path}:{run}")
        place = weights_path(folder, run)
        place.parent.mkdir(exist_ok=True)
        model_files.save_safetensors(held.params, held.cfg, place, record=anonymous.cleaned(held.record()))
    return len(have & set(runs["run"]))
