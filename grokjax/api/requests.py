"""Requests carried out: a sweep is planned, trained, reported and compared, for the command line and for `train`."""

from pathlib import Path
from typing import Any

from grokjax import waiting
from grokjax.columns import disagreement, moduli, redefined
from grokjax.errors import StorageError
from grokjax.report import write
from grokjax.store import files, final_states
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import how_to_read, parts, read_metrics, read_part, read_runs
from grokjax.store.opening import opened
from grokjax.store.records import part, read_record
from grokjax.store.recovery import Findings
from grokjax.store.workdir import Workdir, refuse
from grokjax.training import plan as plan_lib
from grokjax.training import speeds, sweep
from grokjax.training.job import expanded
from grokjax.training.plan import Plan
from grokjax.training.progress import summary
from grokjax.training.request import Request


def plan(request: Request, measure: bool = False) -> Plan:
    """Plans a sweep; nothing is written in its directory.

    Args:
      request: for the sweep.
      measure: whether to time each group's program, and on an accelerator its widths, for the cache; else what is
        cached already has to do.

    Raises:
      InputError: bad config, flags or directory.
    """
    job = expanded(request)
    refuse(job.path, job.sweep, request.overwrite, request.extend)
    made = plan_lib.make(job, request.tell if measure else None)
    if measure:
        speeds.measure(made, request.tell)
    return made


def done(plan: Plan) -> dict[int, int]:
    """The steps that a plan's directory has of each of its runs, by a whole runs.parquet; ended runs have all."""
    path, runs = plan.job.path, {run.run: run for run in plan.job.sweep.runs}
    if plan.job.request.overwrite or files.trouble(path / "runs.parquet"):  # which a launch makes anew
        return {}
    table = read_runs(path)
    steps = zip(table["run"], table["status"], table["last_step"].fillna(0), strict=True)
    return {
        int(run): runs[run].steps if status in Ledger.OVER else int(last) for run, status, last in steps if run in runs
    }


def train(request: Request) -> int:
    """Trains a sweep into a working directory, or goes on with it, and writes its report.

    Returns:
      The exit status: 0 when the sweep is done, 128 + signal when it was stopped and saved.

    Raises:
      InputError: bad config, flags or directory; nothing has been written.
      StorageError: results cannot be written; what was on disk before is whole.
      HostLost: another process is gone; what was on disk before is whole.
    """
    job, hosts = expanded(request), request.hosts
    try:
        held = opened(job.path, job.sweep, request.overwrite, hosts, request.tell, request.lock, extend=request.extend)
        with held as (workdir, found):
            was_done = found.is_done(job.sweep) and not workdir.is_extended
            status = sweep.train(job, workdir, found)
            if status == 0 and hosts.is_first:
                final_states.prune(job.path)
                if was_done:
                    _write_missing(workdir, found, request)
                else:
                    _report(job.path, request)
                _say_result(workdir, request)
            hosts.barrier()
            if job.original and status == 0:
                request.tell(compare(job.path, job.original))
        return status
    except StorageError as error:
        raise StorageError(
            f"{error}; what was saved before is whole. Once this is mended, the same command goes on from there"
        ) from error


def runs(request: Request) -> list[dict[Any, Any]]:
    """The rows of runs.parquet that training has left; none where it was stopped before there was any."""
    path = expanded(request).path
    return list(read_runs(path).to_dict("records")) if (path / "runs.parquet").is_file() else []


def _write_missing(workdir: Workdir, found: Findings, request: Request) -> None:
    """Writes what follows from the metrics and is not there, or damaged."""
    if files.trouble(workdir.runs):
        files.write_parquet(found.ledger.table(), workdir.runs)
    if any(map(files.trouble, (write.page_path(workdir.path), write.figure_path(workdir.path)))):
        _report(workdir.path, request)


def _report(path: Path, request: Request) -> None:
    """Writes the report; if that fails the sweep is still done, and a sentence says how to get the report."""
    try:
        with waiting.busy("writing the report", request.tell):
            write.write(path)
    except Exception as error:  # a full disk, say: hours of training must not end as a failure for want of a page
        request.tell(
            f"note: the results are whole, but the report could not be written ({type(error).__name__}: {error}). "
            f"To write it: grokjax report {path}",
        )


def _say_result(workdir: Workdir, request: Request) -> None:
    request.console.print(summary(read_runs(workdir.path), list(workdir.sweep.axes)))
    request.tell(
        f"\n  metrics   {workdir.metrics}    {how_to_read(workdir.metrics)}\n"
        f"  runs      {workdir.runs}\n"
        f"  page      {write.page_path(workdir.path)}\n"
        f"  figure    {write.figure_path(workdir.path)}",
    )


def compare(path: Path, original: Path) -> str:
    """Says in a sentence whether rows trained again equal those of the sweep they belong to."""
    again, first = read_metrics(path), read_metrics(original)
    schemas = [read_part(parts(place / "metrics")[0]).schema for place in (path, original)]
    if text := disagreement(redefined(schemas[0], schemas[1], moduli(read_record(original) or {}))):
        return f"rows cannot be compared with those in {original}: they hold {text}."
    shared = [name for name in again if name in first]  # an earlier version may have had fewer
    again, first = again[shared], first[shared]
    first = first[first["run"].isin(again["run"].unique())].reset_index(drop=True)
    if first.empty and (some := part(read_record(original))):
        return f"{original} is {some}, without these: there is nothing to compare with."
    if len(first) < len(again):
        return f"{original} has not trained these runs to their end yet, so there is nothing to compare with."
    # Text holds every bit of a float, and makes nulls and lists comparable.
    both = again.map(str).to_numpy() == first.map(str).to_numpy()
    if both.all():
        return f"all {len(again):,} rows equal those in {original}, bit for bit."
    row = again.iloc[int((~both.all(1)).argmax())]
    return f"rows differ from those in {original}, first for run {row['run']} at step {row['step']}."
