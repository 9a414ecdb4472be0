"""Keeps a row for each run that has ended of a study's directories, in studies/records.

    python -m studies.record phase_diagram results/phase_diagram
    python -m studies.record wd_sweep results/wd_sweep --out=table.csv

Run again, it adds what has ended since, and takes the longer of two runs with the same settings and seed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import grokjax
from grokjax import config
from grokjax.cli import terminal
from grokjax.errors import InputError
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
    keys = [name for name in rows.IDENTITY if name in table and name != "steps"]
    keys = ["d_model" if name == "model.d_model" else name for name in keys]
    keys += ["d_model"] if "d_model" in table and "d_model" not in keys else []
    return table.sort_values([*keys, "last_step"]).drop_duplicates(keys, keep="last").reset_index(drop=True)


def parser() -> terminal.Parser:
    """Makes the command's parser."""
    result = terminal.Parser(prog="python -m studies.record", description=(__doc__ or "").split("\n\n")[0])
    result.add_argument("study", help="its name, such as laws")
    result.add_argument("directories", nargs="+", metavar="DIR", help="of its sweeps")
    result.add_argument("--out", type=Path, help="another file than studies/records/STUDY.csv")
    return result


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    path = args.out or FOLDER / f"{args.study}.csv"
    found = []
    for directory in args.directories:
        results = grokjax.open(directory)
        table = rows.rows(results)
        if not len(table):
            raise InputError(f"{directory} has no run that has ended; record it again once some have.")
        commit = (results.record.get("git_commit") or "unknown")[:12]
        found.append(table.drop(columns="run").assign(commit=commit, total=len(results.runs)))
    table = joined([read(path), *found])
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False, float_format=DIGITS)
    print(f"{path}: {len(table)} runs written")


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
