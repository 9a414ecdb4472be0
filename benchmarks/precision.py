"""What a sweep over precisions found: time to grok, losses reached, softmax collapse, by precision.

python launch.py --config=experiments/precision.py:small --workdir=results/precision_small
python -m benchmarks.precision results/precision_small
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markdown import Markdown

from grokjax import config
from grokjax.cli import terminal
from grokjax.errors import InputError
from grokjax.store.metrics import parts, read_metrics, read_runs

HEADER = {
    "precision": "---",
    "runs": "--:",
    "grokked": "--:",
    "step to 99 % test accuracy": "--:",
    "against float32, same seed": "--:",
    "last train loss, nats": "--:",
    "last test loss, nats": "--:",
    "highest softmax_collapse": "--:",
    "diverged": "--:",
}


def table(metrics: pd.DataFrame, runs: pd.DataFrame) -> str:
    """One line per precision as Markdown; medians over runs, with the range.

    Args:
      metrics: rows per (run, step), with the column softmax_collapse of the group stability.
      runs: rows per run, with the column precision.
    """
    rows = [list(HEADER), list(HEADER.values())]
    reference = runs[runs["precision"] == "float32"].set_index("seed")["grokked_step"]
    for name in config.PRECISIONS:
        some = runs[runs["precision"] == name]
        if some.empty:
            continue
        mine = metrics[metrics["run"].isin(some["run"])]
        ratio = some.set_index("seed")["grokked_step"] / reference
        collapse = mine["softmax_collapse"].max() if "softmax_collapse" in mine else float("nan")
        rows.append(
            [
                name,
                str(len(some)),
                str(some["grokked_step"].notna().sum()),
                _spread(some["grokked_step"], ",.0f"),
                _spread(ratio, ".2f"),
                _spread(some["train_loss"], ".2g"),
                _spread(some["test_loss"], ".2g"),
                f"{collapse:.2g}",
                str((some["status"] == "diverged").sum()),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spread(values: pd.Series, form: str) -> str:
    found = values.dropna().astype(float)
    if found.empty:
        return "–"
    return f"{found.median():{form}} ({found.min():{form}} – {found.max():{form}})"


def _print(path: Path) -> None:
    if not (path / "runs.parquet").is_file() or not parts(path / "metrics"):
        raise InputError(f"{path} holds no metrics yet: name the --workdir of a sweep over precision.")
    runs = read_runs(path)
    console = Console()
    console = Console(width=max(console.width, 140)) if not console.is_terminal else console
    console.print(Markdown(table(read_metrics(path), runs)))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m benchmarks.precision", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", type=Path, help="of the sweep")
    terminal.guarded(_print, parser.parse_args(sys.argv[1:] if argv is None else argv).workdir)


if __name__ == "__main__":
    main()
