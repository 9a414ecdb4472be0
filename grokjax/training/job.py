"""Jobs: a request's sweep, expanded, and the directory that it is trained into."""

import dataclasses
from pathlib import Path

from grokjax import sweeps
from grokjax.core import devices
from grokjax.errors import InputError
from grokjax.store import extension, files, snapshots
from grokjax.store.extension import Extension
from grokjax.store.records import ONLY, read_record
from grokjax.store.sweep import holds_part, load_sweep, of_tasks, refuse_other_answers
from grokjax.sweeps import Sweep
from grokjax.training import starting
from grokjax.training.rehearsal import rehearse
from grokjax.training.request import Request


@dataclasses.dataclass(frozen=True)
class Job:
    """The runs that are to be trained.

    Attributes:
      request: that asked for them.
      whole: the sweep that they belong to, whose layouts they are trained in.
      sweep: of these runs alone.
      path: of the directory that they are trained into.
      source: of the directory whose layouts count, where it holds the whole sweep.
      extension: what the sweep adds to that of the directory, if it adds anything.
      wanted_devices: those of a CPU that were to be made when JAX had started already; 0 if none.
    """

    request: Request
    whole: Sweep
    sweep: Sweep
    path: Path
    source: Path
    extension: Extension | None = None
    wanted_devices: int = 0

    @property
    def original(self) -> Path | None:
        """The directory whose runs are trained again, if that is what is asked for."""
        return None if self.path == self.source else self.source


def expanded(request: Request) -> Job:
    """Expands a request's sweep and makes JAX devices for it, before JAX computes anything.

    Raises:
      InputError: bad config or flags, or a directory whose config.json cannot be read.
    """
    path = request.path
    _refuse_together(request)
    for other in request.reuse:
        load_sweep(files.path(other))  # which says what is no sweep's directory
    if request.shard:
        return _expanded_shard(request)
    whole = sweeps.expand(request.config, request.get_sweep)
    record = (None if request.overwrite else read_record(path)) or {}
    wanted = 0
    if request.spread:
        recorded = record.get("n_devices") if record.get("platform") == "cpu" else None
        wanted = devices.spread(len(whole.runs), recorded)
    devices.require()
    whole, more = extension.numbered(path, record, starting.settled(whole), request.extend)
    rehearse(whole)
    if request.only is None:
        return Job(request, whole, whole, path, path, more, wanted)
    some = sweeps.only(whole, request.only)
    refuse_other_answers(f"--workdir={path}", record, of_tasks(some))
    # A directory that was begun with the same --only is gone on with, as any other by its own command.
    is_new = not record or holds_part(record, some, whole)
    again = path if is_new else path / f"{ONLY}{snapshots.compact([run.run for run in some.runs])}"
    return Job(request, whole, some, again, path, wanted_devices=wanted)


def _expanded_shard(request: Request) -> Job:
    """The job of each n-th run of a sweep, in a folder of its own."""
    assert request.shard
    i, n = request.shard
    whole = sweeps.expand(request.config, request.get_sweep)
    numbers = [run.run for run in whole.runs if run.run % n == i]
    if not numbers:
        raise InputError(f"--shard={i}/{n} has none of the sweep's {len(whole.runs)} runs: make fewer shards.")
    path = request.path
    record = (None if request.overwrite else read_record(path)) or {}
    recorded = record.get("n_devices") if record.get("platform") == "cpu" else None
    wanted = devices.spread(len(whole.runs), recorded) if request.spread else 0
    devices.require()
    whole = starting.settled(whole)
    rehearse(whole)
    return Job(request, whole, sweeps.only(whole, numbers), path, path, wanted_devices=wanted)


def _refuse_together(request: Request) -> None:
    """Refuses what does not go with --extend or --shard."""
    only, shard = request.only is not None, request.shard is not None
    for name, given in (("--only", only), ("--overwrite", request.overwrite), ("--shard", shard)):
        if request.extend and given:
            raise InputError(f"--extend and {name} do not go together: give one of them.")
    if shard and only:
        raise InputError("--shard and --only do not go together: give one of them.")
