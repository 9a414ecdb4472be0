"""Doubles: a wish to stop that comes by itself, and a reader that fails."""

import os
import signal

from faults.cases import Case
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


def not_ready(whole, errors) -> None:
    """In place of `faults.readers.make_ready`."""


def failing_answer(case, reader, folder) -> None:
    """In place of `faults.readers.answer`: export crashes, measure hangs."""
    if reader == "export":
        os.abort()
    signal.pause()


def made_case(number, whole, folder) -> Case:
    """In place of `faults.cases.make`."""
    return Case(number, "npz", "cut", False, "model.npz", "", ("export", "measure"))
