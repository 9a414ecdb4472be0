"""Training from Python: `grokjax.train`."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from grokjax.api import requests
from grokjax.api.results import Results
from grokjax.core import cache
from grokjax.errors import for_python
from grokjax.experiment import load_experiment
from grokjax.training.request import Request, StopRequest


def train(
    config: Any,
    workdir: str | Path,
    *,
    get_sweep: Callable[[Any], Iterable[Mapping[str, Any]]] | None = None,
    only: Sequence[int] | None = None,
    shard: tuple[int, int] | None = None,
    reuse: Sequence[str | Path] = (),
    extend: bool = False,
    overwrite: bool = False,
    lock: bool = True,
    quiet: bool = False,
) -> Results:
    """Trains the runs of a sweep side by side, or goes on with them, and writes the report: as `grokjax train` does.

    Progress is printed, in a notebook too. Interrupting it (Ctrl-C, or the cell's stop button) saves the state and
    raises KeyboardInterrupt; the same call goes on from there.

    On a CPU each core is a device if JAX has not computed anything yet in this process; otherwise there are as many
    as JAX has started with, which a note says and config.json records, since bits depend on it.

    Args:
      config: an experiment's name, such as "experiments/wd_sweep.py:small", or a config made from
        `grokjax.config.default` or `grokjax.config.small`, with tuples at the swept leaves of `config.sweep`.
      workdir: a directory for the results: local, gs://bucket/path or s3://bucket/path.
      get_sweep: from the config to a list of overrides by dotted path, in place of `config.sweep`; by default the
        experiment's, if it has one.
      only: numbers of runs to train again, into a directory inside this one, and to compare with those in it.
      shard: (i, n) to train each n-th run, from run i, into a folder of its own in this directory.
      reuse: directories from which runs are taken, bit for bit, that are there already.
      extend: whether runs that are new here are trained into a directory that holds an earlier, smaller sweep, whose
        runs and numbers stay.
      overwrite: whether to throw away what another sweep left in the directory.
      lock: whether a file system that has no locks is refused; without, no other process may train there.
      quiet: whether to print nothing.

    Returns:
      The results, as `grokjax.open` gives them.

    Raises:
      InputError: bad config, arguments or directory; nothing has been written.
      StorageError: results cannot be written; what was on disk before is whole.
      KeyboardInterrupt: it was interrupted; everything is saved.

    Example:
      >>> import grokjax
      >>> c = grokjax.config.small()
      >>> c.p, c.model.d_model, c.model.d_mlp = 7, 8, 16
      >>> c.steps, c.eval_every, c.snapshot_every, c.measures = 40, 20, 20, ()
      >>> c.sweep.seed = (0, 1)
      >>> results = grokjax.train(c, "results/two", quiet=True)
      >>> results.runs["last_step"].tolist()
      [40, 40]
    """
    experiment = None
    if isinstance(config, str | Path):
        experiment = str(config)
        module, config = load_experiment(experiment)
        get_sweep = get_sweep or getattr(module, "get_sweep", None)
    cache.enable()
    with _stopping() as stop, for_python():
        request = Request(
            config,
            workdir,
            get_sweep,
            only=only,
            shard=shard,
            reuse=reuse,
            extend=extend,
            overwrite=overwrite,
            lock=lock,
            experiment=experiment,
            spread=True,
            stop=stop,
            console=Console(force_jupyter=False, quiet=quiet),  # text, which a notebook keeps together
            again=f"call grokjax.train again as before; grokjax.open({str(workdir)!r}) has what there is",
        )
        if requests.train(request):
            raise KeyboardInterrupt(f"stopped and saved in {workdir}")
    return Results(request.path)


@contextlib.contextmanager
def _stopping() -> Iterator[StopRequest]:
    """A wish to stop that an interrupt sets, as long as this lasts; outside the main thread nothing sets it."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop():  # asked for a second time: at once
            raise KeyboardInterrupt
        stop.handle(number, frame)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
