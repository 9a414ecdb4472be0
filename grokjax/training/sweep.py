"""One sweep from config to summary: plan, train or go on, and say what came out."""

import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from rich.console import Console

from grokjax import sweeps
from grokjax.columns import metrics_schema
from grokjax.core import devices, environment
from grokjax.core.hosts import ALONE, Hosts
from grokjax.core.native import kernels
from grokjax.core.problem import Shape
from grokjax.errors import HostLost, InputError, StorageError
from grokjax.measures import registry
from grokjax.report import write
from grokjax.report.write import figure_path, page_path
from grokjax.store import files, recovery
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter, how_to_read, part_number, parts, read_metrics, read_runs
from grokjax.store.records import ONLY, read_record
from grokjax.store.recovery import Findings
from grokjax.store.snapshots import compact
from grokjax.store.sweep import described, difference
from grokjax.store.workdir import Workdir
from grokjax.sweeps import Sweep
from grokjax.training import layouts, tune
from grokjax.training import plan as plan_lib
from grokjax.training import progress as progress_lib
from grokjax.training.scheduler import Interrupted, Scheduler
from grokjax.training.tune import Choice, Say


class StopRequest:
    """A signal's wish to stop: the first one lets the sweep save its state, a second one ends it at once."""

    def __init__(self):
        self.signal: int | None = None

    def handle(self, number, frame) -> None:
        """For `signal.signal`."""
        if self.signal is not None:
            sys.exit(128 + number)
        self.signal = number
        if number == signal.SIGHUP:
            # The terminal is gone, and writing to it would fail.
            nothing = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(nothing, stream)
        print("\nstopping: saving the state (again to stop at once) …", file=sys.stderr, flush=True)

    def __call__(self) -> bool:
        return self.signal is not None


def run(
    config,
    get_sweep,
    path: str | Path,
    only: Sequence[int] | None = None,
    overwrite: bool = False,
    plan_only: bool = False,
    experiment: str | None = None,
    stop: StopRequest | None = None,
    console: Console | None = None,
    spread: bool = False,
    hosts: Hosts = ALONE,
) -> int:
    """Trains a sweep into a working directory, or goes on with it.

    Args:
      config: the experiment's.
      get_sweep: the experiment's, or None.
      path: of the working directory.
      only: run numbers to train again; where the directory holds this sweep, into a folder inside it, and the rows are
        compared with those there.
      overwrite: throw away another sweep's results.
      plan_only: print the plan and return.
      experiment: the file it came from, for the record.
      stop: asked between dispatches.
      console: where to print.
      spread: make devices of a CPU's cores; only before JAX has computed anything.
      hosts: the processes that train together; all call this with the same arguments.

    Returns:
      The exit status: 0 when the sweep is done, 128 + signal when it was stopped and saved.

    Raises:
      InputError: bad config, flags or directory; nothing has been written.
      StorageError: results cannot be written; what was on disk before is whole.
      HostLost: another process is gone; what was on disk before is whole.
    """
    console, stop = console or Console(quiet=not hosts.is_first), stop or StopRequest()
    path = files.path(path)
    whole = sweeps.expand(config, get_sweep)
    if spread:
        record = (not overwrite and read_record(path)) or {}
        devices.spread(len(whole.runs), record.get("n_devices") if record.get("platform") == "cpu" else None)
    sweep, original, source = whole, None, path
    if only is not None:
        sweep = sweeps.only(whole, only)
        if read_record(path) and not overwrite:
            original, path = path, path / f"{ONLY}{compact(sorted(only))}"

    def lay_out(say: Say | None) -> tuple[list[Choice], str]:
        mine = _choices(whole, sweep, source, overwrite, say) if hosts.is_first else []
        choices = [Choice.of(told) for told in hosts.tell([dataclasses.asdict(choice) for choice in mine])[0]]
        choices = _for_all(choices, sweep, hosts)
        shapes = [choice.shape for choice in choices]
        return choices, plan_lib.plan(sweep, shapes, environment.environment(), path, choices[0].text)

    if plan_only:
        progress_lib.tell(console, lay_out(None)[1])
        return 0
    target = _opened(path, sweep, overwrite, hosts, lambda text: progress_lib.tell(console, text))
    try:
        status = _go_on(target, sweep, lay_out, stop, console, experiment, hosts)
        if original and status == 0:
            progress_lib.tell(console, compare(path, original))
        return status
    except StorageError as error:
        raise StorageError(
            f"{error}; what was saved before is whole. Once this is mended, the same command goes on from there"
        ) from error
    finally:
        target.close()


def _go_on(
    target: Workdir, sweep: Sweep, lay_out, stop: StopRequest, console: Console, experiment: str | None, hosts: Hosts
) -> int:
    """Trains what is left to train, after what is there has been looked at."""

    def say(text: str) -> None:
        if stop():
            raise Interrupted
        progress_lib.tell(console, text)

    found = _found(target, sweep, console, hosts)
    if target.record and found.is_done(sweep):
        progress_lib.tell(console, f"{target.path} is finished: nothing to do. --overwrite trains it again.")
        _write_missing(target, found.ledger, console, hosts)
        _say_result(target, sweep, console)
        return 0
    try:
        choices, plan = lay_out(say)  # which may take minutes of the devices, so that it waits for the directory
    except Interrupted:
        progress_lib.tell(console, "stopped while measuring widths: nothing was trained.")
        return 128 + (stop.signal or 0)
    if target.record is None and any(hosts.tell(stop())):  # what was looked for meanwhile may have been cut short
        progress_lib.tell(console, "stopped before anything was trained.")
        return 128 + max(hosts.tell(stop.signal or 0))
    if target.record:
        _warn_of_changes(target.record, console)
    progress_lib.tell(console, plan)
    shapes = [choice.shape for choice in choices]
    if target.record is None:
        target.begin(shapes, experiment, [choice.record() for choice in choices], hosts)
    return _train(target, sweep, shapes, found, stop, console, hosts)


def _opened(path: Path, sweep: Sweep, overwrite: bool, hosts: Hosts, tell: Callable[[str], None]) -> Workdir:
    """The working directory, held by the first process; the others look once that has been done."""
    target, refused = None, ""
    if hosts.is_first:
        try:
            target = Workdir(path, sweep, overwrite, tell=tell)
        except InputError as error:
            refused = str(error)
    refused = hosts.tell(refused)[0]
    if refused:
        raise InputError(refused)
    return target or Workdir(path, sweep, held=True)


def _choices(whole: Sweep, part: Sweep, path: Path, overwrite: bool, say: Say | None) -> list[Choice]:
    """The layouts of the whole sweep's groups that a part's runs belong to.

    Recorded ones where the directory holds the sweep, else chosen for this machine; `say` is for `width.choose`.
    """
    groups = whole.groups()
    of_run = {run.run: number for number, runs in enumerate(groups) for run in runs}
    numbers = [of_run[runs[0].run] for runs in part.groups()]
    record = None if overwrite else read_record(path)
    if record and not difference(record["runs"], described(whole)):
        if len(record["groups"]) != len(groups):
            raise InputError(f"{path}/config.json has layouts of {len(record['groups'])} groups, not {len(groups)}.")
        return [
            Choice(
                "recorded",
                layouts.relaid(Shape(**record["groups"][n]), groups[n][0].problem(), jax.device_count()),
            )
            for n in numbers
        ]
    return [tune.choose(groups[number], whole.base["slots"], say=say) for number in numbers]


def _for_all(choices: Sequence[Choice], sweep: Sweep, hosts: Hosts) -> list[Choice]:
    """The choices without C++ unless every process has the same, since a run's bits must not depend on its slot."""
    if not any(choice.shape.n_parts for choice in choices) or len(set(hosts.tell(kernels.identity()))) == 1:
        return list(choices)
    return [
        dataclasses.replace(choice, shape=layouts.without_native(choice.shape, runs[0].problem()))
        for choice, runs in zip(choices, sweep.groups(), strict=True)
    ]


def _train(
    target: Workdir, sweep: Sweep, shapes: Sequence[Shape], found: Findings, stop, console: Console, hosts: Hosts
) -> int:
    started, ledger = time.monotonic(), found.ledger
    at = sum(r["last_step"] or 0 for r in ledger.records.values())
    if at:
        progress_lib.tell(console, f"going on from {at:,} run-steps")
    part = 1 + max((part_number(place)[0] for place in parts(target.metrics)), default=-1)
    hosts.wait()  # nobody writes before all have looked
    writer = MetricsWriter(target.metrics, _schema(target, sweep), part, hosts.index)
    if hosts.is_first:
        files.write_parquet(ledger.table(), target.runs)
    total = sum(run.steps for run in sweep.runs)
    done = sum(ledger.runs[n].steps if ledger.over(n) else r["last_step"] or 0 for n, r in ledger.records.items())
    try:
        with progress_lib.LiveProgress(console, ledger, total, done) as progress:
            Scheduler(target, sweep.groups(), shapes, ledger, writer, progress, stop, hosts).run(found.checkpoint)
    except Interrupted:
        progress_lib.tell(
            console,
            f"stopped with {ledger.count('finished')} of {len(sweep.runs)} runs finished; everything is saved in "
            f"{target.path}. To go on, give the same command again:\n"
            f"  {_again()}",
        )
        return 128 + max(hosts.tell(stop.signal or 0))
    except HostLost as error:
        raise HostLost(
            f"{error}; what was saved last is whole. Start all processes again with the same command; there may be "
            "more of them or fewer"
        ) from error
    progress_lib.tell(console, f"trained in {progress_lib.duration(time.monotonic() - started)}")
    if hosts.is_first:
        _report(target.path, console)
        _say_result(target, sweep, console)
    hosts.wait()
    return 0


def _found(target: Workdir, sweep: Sweep, console: Console, hosts: Hosts) -> Findings:
    """What the directory holds, after the first process has mended it."""
    found = Findings(Ledger(sweep.runs))
    if hosts.is_first and target.record:
        found = recovery.examine(target.path, sweep)
        for place, what in found.troubles.items():
            progress_lib.tell(console, f"note: {place} {what}; it is set aside.")
        if found.troubles and found.lost:
            runs = f"run{'s' * (len(found.lost) > 1)} {compact(found.lost)}"
            progress_lib.tell(console, f"note: training {runs} again, with the same results.")
        recovery.repair(target.path, found)
    hosts.wait()
    if target.record and (found.changed or not hosts.is_first):
        found = recovery.examine(target.path, sweep)
    return found


def _write_missing(target: Workdir, ledger: Ledger, console: Console, hosts: Hosts) -> None:
    """Writes what follows from the metrics and is not there, or damaged."""
    if hosts.is_first and files.trouble(target.runs):
        files.write_parquet(ledger.table(), target.runs)
    if hosts.is_first and any(map(files.trouble, (page_path(target.path), figure_path(target.path)))):
        _report(target.path, console)


def _report(path: Path, console: Console) -> None:
    """Writes the report; if that fails the sweep is still done, and a sentence says how to get the report."""
    try:
        write.write(path)
    except Exception as error:  # a full disk, say: hours of training must not end as a failure for want of a page
        progress_lib.tell(
            console,
            f"note: the results are whole, but the report could not be written ({type(error).__name__}: {error}). "
            f"To write it: grokjax report {path}",
        )


def _again() -> str:
    """This process's command line, without what would start from nothing."""
    return shlex.join([Path(sys.executable).name, *(arg for arg in sys.argv if arg.lstrip("-") != "overwrite")])


def _schema(target: Workdir, sweep: Sweep):
    columns = registry.metrics_columns(sweep.base["measures"])
    assert target.record
    return metrics_schema(columns, sweep.axes, {"config": target.record["config"], "axes": target.record["axes"]})


def _warn_of_changes(record, console: Console) -> None:
    """Says where going on here may not give the bits that the first machine would have given."""
    now = environment.environment()
    names = ["platform", "device_kind", "xla_flags"]
    if now["platform"] == "cpu":
        names += ["n_devices", "cpu_threads"]
    if any(group.get("n_parts") for group in record["groups"]):
        names.append("native")
        now["native"] = kernels.identity()
    for name in names:
        if record.get(name) != now[name]:
            progress_lib.tell(
                console,
                f"note: {name} was {record.get(name)!r} when this sweep began and is {now[name]!r} now, so the rest "
                "may differ in the last bits from an uninterrupted sweep.",
            )


def _say_result(target: Workdir, sweep: Sweep, console: Console) -> None:
    console.print(progress_lib.summary(read_runs(target.path), list(sweep.axes)))
    progress_lib.tell(
        console,
        f"\n  metrics   {target.metrics}    {how_to_read(target.metrics)}\n"
        f"  runs      {target.runs}\n"
        f"  page      {page_path(target.path)}\n"
        f"  figure    {figure_path(target.path)}",
    )


def compare(path: Path, original: Path) -> str:
    """Whether rows trained again equal those of the sweep they belong to, in a sentence."""
    again, first = read_metrics(path), read_metrics(original)
    first = first[first["run"].isin(again["run"].unique())].reset_index(drop=True)
    if len(first) < len(again):
        return f"{original} has not trained these runs to their end yet, so there is nothing to compare with."
    # Text holds every bit of a float, and makes nulls and lists comparable.
    both = again.map(str).to_numpy() == first.map(str).to_numpy()
    if both.all():
        return f"all {len(again):,} rows equal those in {original}, bit for bit."
    row = again.iloc[int((~both.all(1)).argmax())]
    return f"rows differ from those in {original}, first for run {row['run']} at step {row['step']}."
