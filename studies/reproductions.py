"""Trains the experiments that reproduce papers, and files a record of each, from which docs/reproductions.md is made.

    python -m studies.reproductions --root=results/papers                # the small setting of every experiment
    python -m studies.reproductions --root=results/papers groups muon    # of these
    python -m studies.reproductions --root=results/papers --full         # the full one
    python -m tools.docs                                                 # the page, from the records alone

The same command again goes on where it was interrupted, and passes over what is done.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import grokjax
from grokjax import config, phases
from grokjax.cli import terminal
from grokjax.errors import unknown
from grokjax.store import files
from grokjax.store.ledger import Ledger
from studies import papers, record, stability
from studies.papers import Reproduction

FOLDER = record.FOLDER / "reproductions"
SETTINGS = ("small", "full")
# Of what `phases.find_phases` says of a run, what comparisons read.
FOUND = (
    *(
        f"{event}{side}"
        for event in ("memorised", "grokked", "lost_grokking", "ungrokked")
        for side in ("_after", "_by")
    ),
    *(f"{end}_end{part}" for end in ("memorization", "circuit_formation", "cleanup") for part in ("", "_rule")),
    *("delay", "overlap", "run_class", "diverged_step", "last_step"),
)
LAST = ("train_loss", "test_loss", "train_acc", "test_acc")
TOOK = ("wall", "processor")  # seconds


def rows(results: grokjax.Results, entry: Reproduction) -> pd.DataFrame:
    """One row per run that has ended: its fields, what phases says of it, and its last evaluation."""
    runs = results.runs
    runs = runs[runs["status"].isin(Ledger.OVER)].set_index("run")
    metrics = results.metrics
    metrics = metrics[metrics["run"].isin(runs.index)]
    found = phases.find_phases(metrics).set_index("run")
    by_run = found.to_dict("index")
    more = {run: _last(of_run, entry) | stability.of(of_run, by_run[run]) for run, of_run in metrics.groupby("run")}
    keys = runs["key_freqs"].map(lambda some: "" if some is None else " ".join(map(str, some)))
    kept = [name for name in FOUND if name in found]
    parts = [runs[["status", *telling(runs)]], found[kept], pd.DataFrame(more).T, keys.rename("keys")]
    return pd.concat(parts, axis=1).rename_axis("run").reset_index()


def telling(runs: pd.DataFrame) -> list[str]:
    """The fields that not all runs leave at their defaults, which `read` fills in, and the seed."""

    def differs(name: str, default: object) -> bool:
        return bool((runs[name].notna() if default is None else runs[name].map(str) != str(default)).any())

    return [name for name, default in defaults().items() if name == "seed" or differs(name, default)]


def defaults() -> dict[str, object]:
    """The defaults of the config's fields that runs can differ in."""
    return {name: field.default for name, field in config.FIELDS.items() if field.kind != config.SETTING}


def _last(of_run: pd.DataFrame, entry: Reproduction) -> dict[str, object]:
    """The measures of the last evaluation with a finite loss."""
    whole = of_run[np.isfinite(of_run["train_loss"].astype(float))]
    end = whole.iloc[-1] if len(whole) else of_run.iloc[-1]
    return {name: end[name] for name in (*LAST, *entry.measures) if name in of_run}


def hardware(about: dict) -> str:
    """What a sweep was trained on, by its config.json."""
    n = about.get("n_devices", 1)
    return (
        f"{about['cpu_threads']} threads of a CPU" if about.get("platform") == "cpu" else f"{n} {about['device_kind']}"
    )


def path_of(name: str, setting: str, folder: Path = FOLDER) -> Path:
    """The file of a record."""
    return folder / f"{name}_{setting}.csv"


def read(name: str, setting: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Reads the record of an experiment's setting; of the full one, if it has none, that of the study of its name."""
    path = path_of(name, setting, folder)
    if path.is_file():
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"keys": str})
    else:
        table = record.read(name) if setting == "full" else pd.DataFrame()
    if not len(table):
        return table
    told = {"run": range(len(table)), "delay": table["grokked_by"] - table["memorised_by"], "overlap": False}
    lacking = dict.fromkeys((*FOUND, "seconds", "hardware"), np.nan) | defaults() | told
    lacking = {name: value for name, value in lacking.items() if name not in table}
    return pd.concat([table, pd.DataFrame(lacking, index=table.index)], axis=1)


@contextlib.contextmanager
def timed(path: Path, key: str, counts: bool) -> Iterator[dict[str, float]]:
    """Adds up what something takes over all attempts that count, interrupted ones too, in a file by its name."""
    times = json.loads(path.read_text()) if path.is_file() else {}
    before = times.get(key, dict.fromkeys(TOOK, 0.0))
    clocks = (time.perf_counter, time.process_time)
    start = [clock() for clock in clocks]
    taken = dict(before)
    try:
        yield taken
    finally:
        if counts:
            taken |= {name: before[name] + clock() - at for name, clock, at in zip(TOOK, clocks, start, strict=True)}
            path.parent.mkdir(parents=True, exist_ok=True)
            files.put(json.dumps(times | {key: taken}, indent=1).encode(), path)


def train(name: str, setting: str, root: Path) -> tuple[grokjax.Results, dict[str, float]]:
    """Trains an experiment's setting, or goes on with it; its results, and the seconds that it has taken."""
    key = f"{name}_{setting}"
    with timed(root / "seconds.json", key, counts=not is_done(root / key)) as taken:
        results = grokjax.train(f"experiments/{name}.py{':small' * (setting == 'small')}", root / key)
    return results, taken


def is_done(path: Path) -> bool:
    """Whether every run of a sweep's directory has ended."""
    return (path / "runs.parquet").is_file() and bool(grokjax.open(path).runs["status"].isin(Ledger.OVER).all())


def file(name: str, setting: str, root: Path, folder: Path) -> Path:
    """Trains what is left of an experiment's setting and writes its record."""
    results, taken = train(name, setting, root)
    about = results.record
    table = rows(results, papers.found()[name]).assign(
        total=len(results.runs),
        seconds=round(taken["wall"]),
        processor_seconds=round(taken["processor"]),
        hardware=hardware(dict(about)),
        commit=(about.get("git_commit") or "unknown")[:12],
    )
    path = path_of(name, setting, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format=record.DIGITS)
    return path


def parser() -> terminal.Parser:
    """Makes the command's parser."""
    result = terminal.Parser(prog="python -m studies.reproductions", description=(__doc__ or "").split("\n\n")[0])
    result.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="such as groups; by default all")
    result.add_argument("--root", required=True, type=Path, metavar="DIR", help="the folder of the sweeps")
    result.add_argument("--full", action="store_true", help="the full settings, not the small ones")
    result.add_argument("--records", type=Path, default=FOLDER, metavar="DIR", help="another folder for the records")
    return result


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: there is no such experiment, or its directory holds something else.
    """
    args = parser().parse_args(argv)
    entries = papers.found()
    for name in args.experiments:
        if name not in entries:
            raise unknown("experiment", name, entries)
    setting = SETTINGS[args.full]
    try:
        for name in args.experiments or entries:
            print(f"\n{name}, {setting} setting", flush=True)
            print(f"{file(name, setting, args.root, args.records)} written", flush=True)
    except KeyboardInterrupt as stopped:
        print(f"{stopped}; the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
