"""Jobs: a request's sweep, expanded, and the directory that it is trained into."""

import dataclasses
from pathlib import Path

from grokjax import sweeps
from grokjax.core import devices
from grokjax.store import files, snapshots
from grokjax.store.records import ONLY, read_record
from grokjax.store.sweep import holds_part, of_tasks, refuse_other_answers
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
      wanted_devices: those of a CPU that were to be made when JAX had started already; 0 if none.
    """

    request: Request
    whole: Sweep
    sweep: Sweep
    path: Path
    source: Path
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
    path = files.path(request.workdir)
    whole = sweeps.expand(request.config, request.get_sweep)
    asks = request.spread or request.only is not None
    record = (read_record(path) if asks and not request.overwrite else None) or {}
    wanted = 0
    if request.spread:
        recorded = record.get("n_devices") if record.get("platform") == "cpu" else None
        wanted = devices.spread(len(whole.runs), recorded)
    devices.require()
    whole = starting.settled(whole)
    rehearse(whole)
    if request.only is None:
        return Job(request, whole, whole, path, path, wanted)
    some = sweeps.only(whole, request.only)
    refuse_other_answers(f"--workdir={path}", record, of_tasks(some))
    # A directory that was begun with the same --only is gone on with, as any other by its own command.
    is_new = not record or holds_part(record, some, whole)
    again = path if is_new else path / f"{ONLY}{snapshots.compact([run.run for run in some.runs])}"
    return Job(request, whole, some, again, path, wanted)
