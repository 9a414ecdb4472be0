"""Finds the phases of every run in a table of metrics, and prints what was found, group by group.

    grokjax phases results/small --csv=phases.csv
    grokjax phases results/a results/b --by=sweep    # several sweeps as one; a run that two have counts once
    grokjax phases curves.csv --runs                 # any table with step (or epoch), train_loss, test_loss
    grokjax phases curves.pth                        # PyTorch's, with lists train_losses and test_losses
    grokjax phases curves.csv --rename=acc_id=train_acc,acc_ood=test_acc
    grokjax phases results/small --rule=cleanup=gap_closed --set=gap=5,class_rule=absolute

docs/phases.md says what the phases, the rules for their ends and the settings are.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from grokjax.cli import terminal
from grokjax.errors import InputError, StorageError, plain, unknown

WIDTH = 80  # characters per line where the output is no terminal


def main(argv: Sequence[str]) -> None:
    """Entry point: prints the phases of a table.

    Raises:
      InputError: bad arguments, or a table that cannot be read.
    """
    args = _parser().parse_args(argv)

    from rich.console import Console

    from grokjax import phases
    from grokjax.cli import tables
    from grokjax.interp import metrics_table
    from grokjax.phases import text
    from grokjax.store import files

    settings = _settings(args.set, args.rule, args.chance_loss)
    source = ", ".join(args.sources)
    with terminal.busy(f"finding the phases of {source}"):
        metrics = _renamed(metrics_table.read_all(args.sources), _pairs("rename", args.rename))
        found = phases.find_phases(metrics, settings)
        found.attrs["notes"] = [*metrics.attrs.get("notes", ()), *found.attrs["notes"]]
        if found.empty:
            raise InputError(f"{source} holds no evaluations yet.")
        by = args.by.split(",") if args.by else [name for name in ["weight_decay"] if name in found]
        summary = phases.summarize(found, by)
        readings = phases.readings(metrics, settings) if args.rules else None
    if args.csv:
        try:
            files.put(found.to_csv(index=False).encode(), files.path(args.csv))
        except StorageError as error:
            raise InputError(f"--csv={error}: choose another file.") from None
        terminal.written(args.csv, beside=True)
    for one in args.sources:
        terminal.say_part(one)
    if args.json:
        parts = {"runs": found, "groups": summary.groups, "fits": summary.fits}
        parts |= {"rules": phases.describe_rules(readings)} if readings is not None else {}
        rows = {name: table.to_dict("records") for name, table in parts.items()}
        return terminal.say_json({**rows, "notes": found.attrs["notes"]})
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
    say = functools.partial(tables.print_lines, console)
    if len(found) > 1:
        say([text.group_sentence(row, by) for row in summary.groups.to_dict("records")])
        for table in (tables.groups_table(summary, by), tables.ends_table(summary, by)):
            console.print()
            tables.print_table(console, table)
        say([text.legend(), *text.notes(summary.groups, by)])
    if len(summary.groups) > 1 and len(summary.fits):
        console.print()
        fits = tables.fits_table(summary, by)
        if fits:
            tables.print_table(console, fits)
        say(text.notes(summary.fits, ["quantity"]))
    if args.runs or len(found) == 1:
        say([""] * (len(found) > 1) + tables.runs_text(found, by))
    if readings is not None:
        console.print()
        tables.print_table(console, tables.rules_table(readings))
    if notes := found.attrs["notes"]:
        say(["", *(f"note: {plain(note)}" for note in notes)])


def _parser() -> terminal.Parser:
    parser = terminal.command("phases", __doc__)
    source = "a sweep's working directory, or several, a table (.csv, .jsonl or .parquet) or a PyTorch file with curves"
    parser.add_argument("sources", metavar="DIR", nargs="+", help=source)
    parser.add_argument("--csv", metavar="FILE", help="write the table of phases, one row per run")
    parser.add_argument("--by", metavar="COLUMNS", help="form groups by these (a,b); by default weight_decay")
    parser.add_argument("--runs", action="store_true", help="list every run, too")
    parser.add_argument("--rules", action="store_true", help="list every rule, and how far they agree, too")
    pairs: dict[str, Any] = {"type": terminal.names, "action": "extend", "default": []}
    parser.add_argument("--rule", metavar="PHASE=RULE", help="another rule for the end of a phase", **pairs)
    parser.add_argument("--set", metavar="NAME=VALUE", help="another threshold, such as drop=0.4", **pairs)
    parser.add_argument("--rename", metavar="OLD=NEW", help="read column OLD as NEW, such as train_acc", **pairs)
    parser.add_argument("--chance-loss", metavar="NATS", type=float, help="loss of an uninformed guess, such as ln P")
    terminal.add_json(parser)
    return parser


def _pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """Name=value pairs of a flag."""
    for pair in given:
        if not all(pair.partition("=")):
            raise InputError(f"--{flag}={pair} must be two names with = between them.")
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in given}


def _settings(given: Sequence[str], rules: Sequence[str], chance_loss: float | None):
    """The settings of an analysis from its flags."""
    from grokjax.phases import Settings
    from grokjax.phases.rules import named

    fields = {field.name: field for field in dataclasses.fields(Settings) if field.name != "rules"}
    values: dict[str, Any] = {} if chance_loss is None else {"chance_loss": chance_loss}
    for name, value in _pairs("set", given).items():
        if name not in fields:
            raise unknown("setting", name, fields)
        kind: Any = fields[name].type if fields[name].type in (int, str) else float
        try:
            values[name] = kind(value)
        except ValueError:
            raise InputError(f"setting {name} = {value} must be a{' whole' * (kind is int)} number.") from None
    chosen = {boundary.replace("-", "_"): rule for boundary, rule in _pairs("rule", rules).items()}
    for boundary, rule in chosen.items():
        named(boundary, rule)
    return Settings(**values, rules=chosen)


def _renamed(metrics, names: Mapping[str, str]):
    """A table with columns under the names that --rename gives them."""
    from grokjax.phases.curves import COLUMNS

    for old, new in names.items():
        if old not in metrics:
            raise unknown("column", old, [str(name) for name in metrics])
        if new not in (known := ("run", "step", "p", *COLUMNS)):
            raise unknown("column that phases read", new, known)
        if new in metrics:
            raise InputError(f"--rename={old}={new}: the table has a column '{new}' already.")
    return metrics.rename(columns=dict(names))
