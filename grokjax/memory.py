"""Memory that has been freed, given back to the operating system."""

import ctypes
import functools
import time
from collections.abc import Callable

EVERY_SECONDS = 60.0

_last = -EVERY_SECONDS


def give_back() -> None:
    """Gives back what this process has freed; does nothing if that was done less than `EVERY_SECONDS` ago.

    The GNU C library keeps what compilers and many short threads have freed: hundreds of MiB after the first
    compilation, and more by the hour. It takes a moment; other C libraries keep less and have no such function.
    """
    global _last
    if time.monotonic() - _last >= EVERY_SECONDS:
        _last = time.monotonic()
        _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda _: None
