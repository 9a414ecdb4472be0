"""Shows one sweep: its config, how far it has come, and every run's last evaluation; also while it is trained.

    grokjax show results/small
    grokjax show results/small --runs=20 --json

Of the config it shows the fields that differ from their defaults; --fields shows all.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from grokjax.cli import terminal

LAST = ("last_step", "train_loss", "test_loss", "train_acc", "test_acc", "grokked_step")

MOST_VALUES = 10  # of an axis, named one by one


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: the directory holds no sweep.
    """
    parser = terminal.command("show", __doc__)
    terminal.add_workdir(parser)
    parser.add_argument("--fields", action="store_true", help="show every field of the config")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs to show, those in training first; 10")
    terminal.add_json(parser)
    args = parser.parse_args(argv)

    from grokjax.store import listing
    from grokjax.store.records import read_record

    with terminal.busy(f"looking at {args.workdir}"):
        sweep, record = listing.look(args.workdir), read_record(args.workdir) or {}
        rows = _rows(sweep, args.runs)
    fields = _fields(record, args.fields)
    if args.json:
        found = {**dataclasses.asdict(sweep), "age_seconds": time.time() - sweep.written, "config": fields}
        about = {name: record.get(name) for name in ("versions", "platform", "device_kind", "n_devices", "git_commit")}
        return terminal.say_json({**found, **about, "last": rows})
    _say(sweep, record, fields, rows)


def _fields(record: Mapping[str, Any], every: bool) -> dict[str, Any]:
    """The config's fields but the swept ones; of these only those that differ from their defaults unless all are."""
    from grokjax.config import FIELDS

    default = {name: list(f.default) if isinstance(f.default, tuple) else f.default for name, f in FIELDS.items()}
    fields = {name: value for name, value in record["config"].items() if name not in record["axes"]}
    return {name: value for name, value in fields.items() if every or value != default.get(name)}


def _rows(sweep, most: int) -> list[dict[Any, Any]]:
    """The last evaluation of the runs that have one, those in training first, as many as are wanted."""
    from grokjax.store.metrics import read_progress

    if not (sweep.path / "runs.parquet").is_file():
        return []
    runs = read_progress(sweep.path)
    runs = runs[runs["last_step"].notna()].sort_values("status", key=lambda x: x != "training", kind="stable")
    names = ["run", *sweep.axes, "status", *LAST]
    return runs[[name for name in names if name in runs]].head(max(0, most)).to_dict("records")


def _say(sweep, record: Mapping[str, Any], fields: Mapping[str, Any], rows: Sequence[Mapping[Any, Any]]) -> None:
    """Prints what there is, line by line, and a table of runs."""
    from rich.table import Table

    from grokjax.cli import list as listed
    from grokjax.cli import tables
    from grokjax.errors import plain
    from grokjax.phases.text import shown

    say = terminal.say
    axes = " × ".join(f"{name} {_listed(values)}" for name, values in sweep.axes.items())
    done = f"{sweep.over} of {sweep.runs} runs have ended, {sweep.memorised} memorised, {sweep.grokked} grokked"
    at = f"{listed.age(time.time() - sweep.written)} ago"
    say(f"{sweep.path}: {sweep.state}; {done}; last written {at}; {listed.size(sweep.n_bytes)}")
    if sweep.note:
        say(f"note: this is {sweep.note}.")
    about = {"experiment": sweep.experiment, "swept": axes}
    about |= {name: ", ".join(map(str, v)) if isinstance(v, list) else v for name, v in fields.items()}
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    device = f"{record.get('n_devices', '?')} × {record['device_kind']}" if "device_kind" in record else ""
    about |= {"versions": versions, "device": device, "commit": record.get("git_commit")}
    width = max(map(len, about))
    for name, value in about.items():
        if value not in (None, ""):
            say(f"  {name:<{width}}  {value}")
    if not rows:
        return
    table = Table(box=None, pad_edge=False, title="Last evaluations", title_justify="left")
    for name in rows[0]:
        table.add_column(plain(name), justify="right")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    say("")
    tables.print_table(tables.wide_console(), table, wrap=False)
    if (more := sweep.runs - len(rows)) > 0:
        say(f"{more} more; --runs=N shows more of those that have begun")


def _listed(values: Sequence[Any]) -> str:
    """The values of an axis, the first and the last of many."""
    some = [str(value) for value in values]
    return ", ".join(some) if len(some) <= MOST_VALUES else f"{some[0]}, {some[1]}, …, {some[-1]} ({len(some)} values)"
