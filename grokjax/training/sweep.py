"""A sweep in training: from a job and its directory to its end, or to where it was stopped."""

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import pyarrow as pa

from grokjax.columns import disagreement, metrics_schema, moduli, read_otherwise, redefined
from grokjax.core.environment import environment
from grokjax.core.native import kernels
from grokjax.errors import HostLost, InputError
from grokjax.measures import blocks, registry
from grokjax.store import extension, files
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter, part_number, parts, read_part
from grokjax.store.opening import mended
from grokjax.store.recovery import Findings
from grokjax.store.workdir import Workdir
from grokjax.training import plan as plan_lib
from grokjax.training import reuse, scheduler
from grokjax.training.job import Job
from grokjax.training.plan import Plan
from grokjax.training.progress import LiveProgress, duration
from grokjax.training.recorder import Recorder
from grokjax.training.request import Request
from grokjax.training.scheduler import Interrupted


def train(job: Job, workdir: Workdir, found: Findings) -> int:
    """Trains what is left to train.

    Args:
      job: to be done.
      workdir: its directory.
      found: in there.

    Returns:
      The exit status: 0 when the sweep is done, 128 + signal when it was stopped and saved.

    Raises:
      StorageError: results cannot be written; what was on disk before is whole.
      HostLost: another process is gone; what was on disk before is whole.
    """
    request = job.request
    if found.is_done(workdir.sweep) and not workdir.is_extended:
        request.tell(f"{workdir.path} is finished: nothing to do. --overwrite trains it again.")
        _tell_of_later_measures(workdir, request)
        return 0

    def say(text: str) -> None:
        if request.stop():
            raise Interrupted
        request.tell(text)

    try:
        plan = plan_lib.make(job, say)  # which may take minutes of the devices, so that it waits for the directory
    except Interrupted:
        request.tell("stopped while measuring widths: nothing was trained.")
        return 128 + (request.stop.signal or 0)
    begins = workdir.record is None or workdir.is_extended
    if begins and any(request.hosts.all_gather(request.stop())):
        request.tell("stopped before anything was trained.")  # what was measured meanwhile may have been cut short
        return request.stop_status()
    if workdir.record:
        _warn_of_changes(workdir.record, request)
    _tell_of_few_devices(job)
    _tell_of_later_measures(workdir, request)
    request.tell(plan_lib.text(plan))
    if begins:
        layouts = [layout.record() for layout in plan.layouts]
        width = [choice.record() for choice in plan.choices]
        compiler = next(filter(None, (layout.backend.identity() for layout in plan.layouts)), None)
        if workdir.record is None:
            workdir.begin(layouts, request.experiment, width, compiler, request.hosts, len(job.whole.runs))
        else:
            workdir.extend(layouts, width, compiler, request.hosts)
            found = mended(workdir, workdir.sweep, request.hosts, request.tell)
    return _trained(plan, workdir, found)


def _tell_of_few_devices(job: Job) -> None:
    """Says where JAX has started in this process with fewer devices of a CPU than would have been made."""
    here = jax.local_devices()
    if here[0].platform == "cpu" and len(here) < job.wanted_devices:
        job.request.tell(
            f"note: JAX has started already, with {len(here)} device{'s' * (len(here) > 1)} where {job.wanted_devices} "
            "would be made. Bits depend on it, and it is recorded; a process that has not used JAX yet is faster."
        )


def _tell_of_later_measures(workdir: Workdir, request: Request) -> None:
    """Says how to have measures that the sweep's tables were begun without."""
    places = parts(workdir.metrics)
    begun = read_part(places[0]).schema.names if places else None
    columns = registry.metrics_columns(workdir.sweep.base["measures"])
    later = [m for name, m in columns.items() if begun and name not in begun and not m.needs_update]
    if not later:
        return
    names = ", ".join(dict.fromkeys(m.name for m in later))
    groups = ",".join(dict.fromkeys(m.group for m in later))
    own = any(m.is_own for m in later)
    command = ["grokjax", "replay", str(workdir.path), f"--measures={groups}"]
    command += [f"--experiment={request.experiment or 'FILE'}"] * own
    request.tell(
        f"note: this sweep was begun without the measures {names}, so its tables have no columns of them. Once it is "
        f"finished, its snapshots give them: {shlex.join(command)}"
    )


def _warn_of_changes(record: Mapping[str, Any], request: Request) -> None:
    """Says where going on here may not give the bits that the first machine would have given."""
    now = environment()
    names = ["platform", "device_kind", "xla_flags"]
    if now["platform"] == "cpu":
        names += ["n_devices", "cpu_threads"]
    if now["platform"] == "gpu":
        names.append("compiler_options")
    if any(group.get("n_parts") for group in record["groups"]):
        names.append("native")
        now["native"] = kernels.identity()
    for name in names:
        if record.get(name) != now[name]:
            request.tell(
                f"note: {name} was {record.get(name)!r} when this sweep began and is {now[name]!r} now, so the rest "
                "may differ in the last bits from an uninterrupted sweep."
            )


def _trained(plan: Plan, workdir: Workdir, found: Findings) -> int:
    """Trains all groups and returns the exit status."""
    request, ledger = plan.job.request, found.ledger
    started, records = time.monotonic(), ledger.records
    if at := sum(record["last_step"] or 0 for record in records.values()):
        request.tell(f"going on from {at:,} run-steps")
    number = 1 + max((part_number(place)[0] for place in parts(workdir.metrics)), default=-1)
    request.hosts.barrier()  # nobody writes before all have looked
    sweep, record = workdir.sweep, workdir.record or {}
    columns = registry.metrics_columns(sweep.base["measures"])
    read_by = blocks.described(runs[0].problem() for runs in sweep.groups())
    schema = metrics_schema(columns, sweep.axes, {"config": record["config"], "axes": record["axes"]}, read_by)
    if request.hosts.is_first:
        extension.add_axes(workdir.metrics, sweep, schema)
    request.hosts.barrier()
    schema = _as_begun(schema, workdir)
    writer = MetricsWriter(workdir.metrics, schema, number, request.hosts.index)
    _reuse(plan, workdir, ledger, writer)
    if request.hosts.is_first:
        files.write_parquet(ledger.table(), workdir.runs)
    total = sum(run.steps for run in workdir.sweep.runs)
    done = sum(ledger.runs[n].steps if ledger.over(n) else record["last_step"] or 0 for n, record in records.items())
    try:
        with LiveProgress(request.console, ledger, total, done) as progress:
            recorder = Recorder(workdir, ledger, writer, progress, request.hosts)
            scheduler.train_groups(plan, recorder, found.checkpoint, found.kept)
    except Interrupted:
        request.tell(
            f"stopped with {ledger.count('finished')} of {len(workdir.sweep.runs)} runs finished; everything is saved "
            f"in {workdir.path}. To go on, {request.again or _again()}",
        )
        return request.stop_status()
    except HostLost as error:
        raise HostLost(
            f"{error}; what was saved last is whole. Start all processes again with the same command; there may be "
            "more of them or fewer"
        ) from error
    request.tell(f"trained in {duration(time.monotonic() - started)}")
    return 0


def _reuse(plan: Plan, workdir: Workdir, ledger: Ledger, writer: MetricsWriter) -> None:
    """Takes runs from the directories that the request names, and tells the ledger of them, in all processes."""
    request = plan.job.request
    if not request.reuse:
        return
    taken = None
    if request.hosts.is_first:
        taken = reuse.take(plan, workdir, ledger, writer, [files.path(path) for path in request.reuse])
    taken = request.hosts.all_gather(taken and list(taken))[0]
    if taken:
        frame, keys = taken
        ledger.update(frame)
        for run, some in keys:
            ledger.set_keys(run, some)


def _as_begun(schema: pa.Schema, workdir: Workdir) -> pa.Schema:
    """The schema less the columns that the sweep's tables lack, since a version without them began it.

    Raises:
      InputError: a column would hold two definitions.
    """
    places = parts(workdir.metrics)
    if not places:
        return schema
    begun = read_part(places[0]).schema
    if text := disagreement(redefined(begun, schema, moduli(workdir.record or {}))) or read_otherwise(begun, schema):
        raise InputError(
            f"--workdir={workdir.path} was begun by another version of grokjax: the table would "
            f"hold {text}. Finish it with that version, or start again with --overwrite."
        )
    return pa.schema([field for field in schema if field.name in begun.names], schema.metadata)


def _again() -> str:
    """What to do: give this process's command line, without what would start from nothing."""
    ours = Path(sys.argv[0]).parts[-2:] == ("grokjax", "__main__.py")
    main = ["-m", "grokjax"] if ours else sys.argv[:1]
    words = [Path(sys.executable).name, *main, *(arg for arg in sys.argv[1:] if arg.lstrip("-") != "overwrite")]
    return f"give the same command again:\n  {shlex.join(words)}"
