"""What a sweep over precisions found: time to grok, losses reached, softmax collapse, by precision.

python launch.py --config=experiments/precision.py:small --workdir=results/precision_small
python -m benchmarks.precision results/precision_small
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks import markdown
from grokjax import config
from grokjax.cli import terminal
from grokjax.errors import InputError
from grokjax.store.metrics import parts, read_metrics, read_runs

HEADER = (
    *("precision", "runs", "grokked", "step to 99 % test accuracy", "against float32, same seed"),
    *("last train loss, nats", "last test loss, nats", "highest softmax_collapse", "diverged"),
)


def table(metrics: pd.DataFrame, runs: pd.DataFrame) -> str:
    """One line per precision as Markdown; medians over runs, with the range.

    Args:
      metrics: rows per (run, step), with the column softmax_collapse of the group stability.
      runs: rows per run, with the column precision.
    """
    grokked = {name: some.set_index("seed")["grokked_step"] for name, some in runs.groupby("precision")}
    precision_of_run = runs.set_index("run")["precision"]
    collapse = metrics.groupby(metrics["run"].map(precision_of_run))["softmax_collapse"].max()
    rows = []
    for name in (name for name in config.PRECISIONS if name in grokked):
        some = runs[runs["precision"] == name]
        spreads = [_spread(grokked[name], ",.0f"), _spread(grokked[name] / grokked.get("float32", float("nan")), ".2f")]
        spreads += [_spread(some[loss], ".2g") for loss in ("train_loss", "test_loss")]
        diverged = (some["status"] == "diverged").sum()
        rows.append([name, len(some), grokked[name].notna().sum(), *spreads, f"{collapse[name]:.2g}", diverged])
    return markdown.table(HEADER, rows, numbers=8)


def _spread(values: pd.Series, form: str) -> str:
    found = values.dropna().astype(float)
    return f"{found.median():{form}} ({found.min():{form}} – {found.max():{form}})" if len(found) else "–"


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m benchmarks.precision", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", type=Path, help="of the sweep")
    path = parser.parse_args(argv).workdir
    if not (path / "runs.parquet").is_file() or not parts(path / "metrics"):
        raise InputError(f"{path} holds no metrics yet: name the --workdir of a sweep over precision.")
    metrics = read_metrics(path)
    if "softmax_collapse" not in metrics:
        raise InputError(f"{path} has no softmax_collapse: the sweep must log the group stability.")
    print(table(metrics, read_runs(path)))


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
