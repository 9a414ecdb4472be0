"""Keeps a row for each run that has ended of a study's directories, in studies/records.

    python -m studies.record phase_diagram results/phase_diagram
    python -m studies.record wd_sweep results/wd_sweep --out=table.csv

    python -m studies.record phase_diagram --lacking=experiments/phase_diagram.py

Run again, it adds what has ended since, and takes the longer of two runs with the same settings and seed. The third
says which runs of an experiment are not on record, as `launch.py` takes them: where a folder was lost, no other need be
trained again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import grokjax
from grokjax import config, sweeps
from grokjax.cli import terminal
from grokjax.errors import InputError
from grokjax.experiment import load_experiment
from studies import rows

FOLDER = Path(__file__).parent / "records"
DIGITS = "%.6g"


def read(name: str | Path) -> pd.DataFrame:
    """Reads a study's record, of its name or in a file; empty where there is none yet."""
    path = name if isinstance(name, Path) else FOLDER / f"{name}.csv"
    return pd.read_csv(path, dtype={"key_freqs": str}) if path.is_file() else pd.DataFrame()


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, in order of settings and seeds; of the same run the one that is trained furthest."""
    table = pd.concat([t for t in tables if len(t)], ignore_index=True)
    if "loss" in table:  # which records from before there was a choice do not have
        table["loss"] = table["loss"].fillna(config.default().loss)
    keys = _keys(table)
    return table.sort_values([*keys, "last_step"]).drop_duplicates(keys, keep="last").reset_index(drop=True)


def _keys(table: pd.DataFrame) -> list[str]:
    """The columns that tell a record's runs apart."""
    names = (name.removeprefix("model.") for name in rows.IDENTITY if name != "steps")
    return [name for name in names if name in table]


def lacking(table: pd.DataFrame, sweep: sweeps.Sweep) -> list[int]:
    """The numbers of a sweep's runs that a record does not have, or has with fewer steps."""
    keys = _keys(table)
    told = table[keys].map(_as_filed).itertuples(index=False, name=None)
    steps = dict(zip(told, table["steps"], strict=True)) if keys else {}
    fields = {name.removeprefix("model."): name for name in rows.IDENTITY}
    identity = {run.run: tuple(_as_filed(run.values[fields[key]]) for key in keys) for run in sweep.runs}
    return [run.run for run in sweep.runs if steps.get(identity[run.run], -1) < run.steps]


def _as_filed(value: object) -> str:
    """A value of a field as a record has it, which holds six digits of a number."""
    if value is None or value != value:
        return ""
    return DIGITS % value if isinstance(value, (int, float)) else str(value)


def parser() -> terminal.Parser:
    """Makes the command's parser."""
    result = terminal.Parser(prog="python -m studies.record", description=(__doc__ or "").split("\n\n")[0])
    result.add_argument("study", help="its name, such as laws")
    result.add_argument("directories", nargs="*", metavar="DIR", help="of its sweeps")
    result.add_argument("--out", type=Path, help="another file than studies/records/STUDY.csv")
    result.add_argument("--lacking", metavar="EXPERIMENT", help="say which runs of this file are not on record")
    return result


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    path = args.out or FOLDER / f"{args.study}.csv"
    if args.directories:
        _file(path, args.directories)
    if args.lacking:
        module, settings = load_experiment(args.lacking)
        numbers = lacking(read(path), sweeps.expand(settings, getattr(module, "get_sweep", None)))
        print(f"--only={','.join(map(str, numbers))}" if numbers else f"{path} has every run of {args.lacking}")
    elif not args.directories:
        raise InputError("there is nothing to do: name a sweep's directory, or give --lacking=EXPERIMENT.")


def _file(path: Path, directories: Sequence[str]) -> None:
    """Adds the runs of some directories that have ended to a record."""
    found = []
    for directory in directories:
        results = grokjax.open(directory)
        table = rows.rows(results)
        if not len(table):
            raise InputError(f"{directory} has no run that has ended; record it again once some have.")
        commit = (results.record.get("git_commit") or "unknown")[:12]
        total = results.record.get("n_runs") or len(results.runs)  # of the whole, where only some are trained
        found.append(table.drop(columns="run").assign(commit=commit, total=total))
    table = joined([read(path), *found])
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False, float_format=DIGITS)
    print(f"{path}: {len(table)} runs written")


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
