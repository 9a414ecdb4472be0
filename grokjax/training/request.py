"""Requests: which sweep is to be trained, where its results go, and who trains it."""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from grokjax.core.hosts import ALONE, Hosts
from grokjax.errors import in_python
from grokjax.store import files
from grokjax.training.progress import tell


class StopRequest:
    """A signal's wish to stop: the first one lets the sweep save its state, a second one ends it at once."""

    def __init__(self):
        self.signal: int | None = None

    def handle(self, number, frame) -> None:
        """Takes in a signal, for `signal.signal`."""
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


@dataclasses.dataclass(frozen=True)
class Request:
    """A sweep to be trained.

    Attributes:
      config: the experiment's.
      workdir: of the results: local, gs://bucket/path or s3://bucket/path.
      get_sweep: the experiment's, or None.
      only: run numbers to train again; where the directory holds this sweep, into a folder inside it, and the rows are
        compared with those there.
      shard: (i, n) to train each n-th run, from run i, into a folder of its own in the directory.
      reuse: directories from which runs of the sweep are taken that are there already.
      extend: whether the directory's sweep may be extended by this one.
      overwrite: whether to throw away what another sweep left in the directory.
      lock: whether a file system that has no locks is refused.
      experiment: the file it came from, for the record.
      spread: whether to make devices of a CPU's cores; only before JAX has computed anything.
      hosts: the processes that train together; all make the same request.
      stop: asked between dispatches; a true answer saves and ends.
      console: where to print.
      again: how to go on after a stop, in words; empty for this process's command line.
    """

    config: Any
    workdir: str | Path
    get_sweep: Callable[[Any], Iterable[Mapping[str, Any]]] | None = None
    only: Sequence[int] | None = None
    shard: tuple[int, int] | None = None
    reuse: Sequence[str | Path] = ()
    extend: bool = False
    overwrite: bool = False
    lock: bool = True
    experiment: str | None = None
    spread: bool = False
    hosts: Hosts = ALONE
    stop: Any = dataclasses.field(default_factory=StopRequest)
    console: Console = dataclasses.field(default_factory=Console)
    again: str = ""

    @property
    def path(self) -> Path:
        """The directory that is trained into: that of a shard is a folder, such as shard-03-of-16."""
        path = files.path(self.workdir)
        if not self.shard:
            return path
        i, n = self.shard
        return path / f"shard-{i:0{len(str(n))}d}-of-{n}"

    def tell(self, text: str) -> None:
        """Prints lines as they are, whatever names are in them."""
        tell(self.console, in_python(text) if self.again else text)

    def stop_status(self) -> int:
        """The exit status where any process was asked to stop: 128 + its signal."""
        return 128 + max(self.hosts.all_gather(self.stop.signal or 0))
