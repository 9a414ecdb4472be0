"""Waiting: who waits is told, after some seconds, what takes so long."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

SLOW_SECONDS = 5.0  # of silence before it is said
LINE_SECONDS = 15.0  # between lines


@contextlib.contextmanager
def busy(text: str, tell: Callable[[str], None], left: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Tells what is being done, once that has taken some seconds, and then now and then.

    Args:
      text: what, such as "measuring model.npz".
      tell: takes a line; called from another thread.
      left: says how far it is, or nothing.
    """
    done, started = threading.Event(), time.monotonic()

    def run() -> None:
        seconds = SLOW_SECONDS
        while not done.wait(seconds):
            seconds = LINE_SECONDS
            told = left() or f"{time.monotonic() - started:.0f} s so far"
            with contextlib.suppress(OSError, ValueError):  # a stream that is gone
                tell(f"{text} … {told}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
