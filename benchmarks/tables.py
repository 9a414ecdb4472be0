"""What a large sweep's files cost: Parquet written and read back, the table of runs, checks, checkpoints.

    python -m benchmarks.tables                                     # 10,000 runs of 400 evaluations, made up
    python -m benchmarks.tables --runs 500 --measures paper

Rows hold random numbers, which compress like nothing, so that sizes are the largest there can be. They are flushed
every `ROWS_PER_FLUSH` rows, where a sweep flushes every 20 seconds.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.command import Record
from benchmarks.timing import number
from grokjax import config, sweeps
from grokjax.cli import terminal
from grokjax.columns import metrics_schema
from grokjax.measures import registry
from grokjax.store import files, metrics, orbax, recovery
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter, read_metrics
from grokjax.store.sweep import described
from grokjax.sweeps import Run, Sweep

RUNS, EVALUATIONS = 10_000, 400
TOGETHER = 512  # runs that train together
ROWS_PER_FLUSH = 20_000
STATE_FLOATS = 3 * 226_816  # parameters and two moments of the paper's mainline


def made_up(n_runs: int, n_evaluations: int, measures: Sequence[str]) -> Sweep:
    """A sweep of the mainline over seeds."""
    c = config.default()
    c.measures, c.eval_every, c.snapshot_every = tuple(measures), 100, 100 * (n_evaluations - 1)
    c.slow_every = c.snapshot_every
    c.steps = 100 * (n_evaluations - 1)
    c.sweep.seed = tuple(range(n_runs))
    return sweeps.expand(c)


def write(folder: Path, sweep: Sweep, say: Callable[[str], None]) -> tuple[Ledger, float, float]:
    """Writes all rows, a group of runs after another.

    Returns:
      The ledger, and the seconds that telling it and writing took; making up the numbers does not count.
    """
    columns = {m.name: m for m in registry.of_groups(sweep.base["measures"]) if not m.keyed}
    schema = metrics_schema(registry.metrics_columns(sweep.base["measures"]), sweep.axes, {"config": {}})
    writer, ledger, rng = MetricsWriter(folder / "metrics", schema), Ledger(sweep.runs), np.random.default_rng(0)
    cfg = sweep.runs[0].problem().model
    shapes = {name: tuple(registry.DIMS[dim](cfg) for dim in m.shape) for name, m in columns.items()}
    n_evaluations = sweep.base["steps"] // sweep.base["eval_every"] + 1
    ledger_s = write_s = 0.0
    for first in range(0, len(sweep.runs), TOGETHER):
        runs = sweep.runs[first : first + TOGETHER]
        say(f"writing runs {first:,} to {first + len(runs):,} of {len(sweep.runs):,}")
        for i in range(n_evaluations):
            frame = _rows(runs, i * sweep.base["eval_every"], columns, shapes, rng)
            began = time.perf_counter()
            ledger.update(frame)
            ledger_s += time.perf_counter() - began
            began = time.perf_counter()
            writer.add(frame)
            if writer.n_rows >= ROWS_PER_FLUSH:
                writer.flush()
            write_s += time.perf_counter() - began
    began = time.perf_counter()
    writer.flush()
    return ledger, ledger_s, write_s + time.perf_counter() - began


def _rows(runs: Sequence[Run], step: int, columns, shapes, rng) -> dict[str, Any]:
    frame: dict[str, Any] = {"run": np.array([run.run for run in runs]), "step": np.full(len(runs), step)}
    frame["seed"] = np.array([run.values["seed"] for run in runs], object)
    for name, m in columns.items():
        values = rng.random((len(runs), *shapes[name]), np.float32)
        frame[name] = values if m.dtype == "float" or m.count_of else (values > 0.9).astype(m.dtype)
    return frame


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what was returned."""
    began = time.perf_counter()
    return (lambda value: (time.perf_counter() - began, value))(function())


def measure(n_runs: int, n_evaluations: int, measures: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Writes, reads and checks."""
    expand_s, sweep = timed(lambda: made_up(n_runs, n_evaluations, measures))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = _peak()
        ledger, ledger_s, write_s = write(folder, sweep, say)
        peak_writing = _peak()
        parts = metrics.parts(folder / "metrics")
        say("reading back")
        losses_s, losses = timed(lambda: read_metrics(folder, ["run", "step", "train_loss", "test_loss"]))
        table_s, table = timed(ledger.table)
        runs_s, _ = timed(lambda: files.write_parquet(table, folder / "runs.parquet"))
        say("checking")
        check_s, found = timed(lambda: recovery.examine(folder, sweep))
        state = {"state": [np.random.default_rng(0).random((TOGETHER, STATE_FLOATS // 16), np.float32)] * 16}
        say("a checkpoint")
        checkpoint_s, _ = timed(lambda: orbax.save_folder(folder / "checkpoints" / "000000", state, {}))
        return {
            "n_runs": n_runs,
            "n_evaluations": n_evaluations,
            "measures": list(measures),
            "n_rows": len(losses),
            "whole": not found.troubles,
            "n_parts": len(parts),
            "bytes": sum(part.stat().st_size for part in parts),
            "expand_s": expand_s,
            "config_bytes": len(json.dumps(described(sweep))),
            "ledger_s": ledger_s,
            "write_s": write_s,
            "read_losses_s": losses_s,
            "check_s": check_s,
            "runs_table_s": table_s + runs_s,
            "runs_table_bytes": (folder / "runs.parquet").stat().st_size,
            "peak_above_start_bytes": peak_writing - before,
            "checkpoint_s": checkpoint_s,
            "checkpoint_bytes": 4 * TOGETHER * STATE_FLOATS,
        }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def page(record: Record) -> str:
    """The figures as Markdown."""
    size, rows = record["bytes"], record["n_rows"]
    lines = {
        "rows": f"{rows:,}, each of {size / rows:,.0f} bytes compressed",
        "parts of metrics": f"{record['n_parts']:,} with {size / 1e9:.2f} GB",
        "expanding the config into runs": f"{record['expand_s']:.1f} s; config.json has "
        f"{record['config_bytes'] / 1e6:.1f} MB",
        "telling the ledger of a row": f"{1e6 * record['ledger_s'] / rows:.1f} µs",
        "writing the parts": f"{record['write_s']:.0f} s, {number(size / 1e6 / record['write_s'])} MB/s",
        "memory that writing adds at its peak": f"{record['peak_above_start_bytes'] / 2**20:.0f} MiB",
        "reading two columns of losses into pandas": f"{record['read_losses_s']:.1f} s",
        "checking every part and counting every run's rows": f"{record['check_s']:.1f} s",
        "making and writing the table of runs": f"{record['runs_table_s']:.2f} s, "
        f"{record['runs_table_bytes'] / 1e6:.1f} MB",
        f"a checkpoint of {TOGETHER} runs of the mainline": f"{record['checkpoint_s']:.1f} s, "
        f"{record['checkpoint_bytes'] / 1e9:.2f} GB",
    }
    groups = ", ".join(record["measures"]) or "the losses alone"
    return (
        f"{record['n_runs']:,} runs of {record['n_evaluations']} evaluations with {groups}, numbers made up:\n\n"
        "| | |\n| --- | --- |\n" + "\n".join(f"| {name} | {text} |" for name, text in lines.items()) + "\n"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = command.parser("tables", __doc__, rounds=1)
    parser.add_argument("--runs", type=command.positive(int), default=RUNS, help=f"(default: {RUNS:,})")
    parser.add_argument("--evaluations", type=command.positive(int), default=EVALUATIONS, help="of each (default: 400)")
    parser.add_argument("--measures", type=terminal.names, default=("losses",), help="groups (default: losses)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    command.enter(parse, _measure, argv)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> None:
    command.check(args)
    registry.of_groups(args.measures)
    minutes = f"about {1 + args.runs * args.evaluations / 1e6:.0f} minutes on two cores"
    record = command.measured(
        "tables", argv, minutes, lambda say: measure(args.runs, args.evaluations, args.measures, say)
    )
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
