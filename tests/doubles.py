"""Doubles: a wish to stop that comes by itself, and a worker that fails."""

import os
import signal

from grokjax.training.request import StopRequest


class StopAfter(StopRequest):
    """A wish to stop that comes at the n-th question."""

    def __init__(self, n: int):
        super().__init__()
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.signal = signal.SIGTERM
        return super().__call__()


def failing_worker(whole, errors, channel) -> None:
    """In place of `faults.readers.work`: crashes on case 1, hangs on others."""
    channel.send("ready")
    if channel.recv() == 1:
        os.abort()
    signal.pause()
