"""A record of every dispatch of training: when it was handed to the device and when the device was done."""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from unittest import mock

import jax

from grokjax.training.population import Population


@dataclasses.dataclass
class Dispatch:
    """Work for the device.

    Attributes:
      sent: when it was in flight, by time.perf_counter.
      host_s: processor seconds of the host's main thread until it was sent.
      done: when its results were there.
    """

    sent: float
    host_s: float
    done: float = 0.0

    def watch(self, outputs) -> None:
        """Waits for the results."""
        jax.block_until_ready(outputs)
        self.done = time.perf_counter()


class Flight:
    """The dispatches of whatever trains while `recording` is entered."""

    def __init__(self):
        self.dispatches: list[Dispatch] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Every population's dispatches are recorded until this is left; they are done by then."""
        advance = Population.advance

        def recorded(population, *args, **options):
            outputs = advance(population, *args, **options)
            self.dispatches.append(Dispatch(time.perf_counter(), time.thread_time()))
            watcher.submit(self.dispatches[-1].watch, outputs)
            return outputs

        # One thread is enough, since dispatches end in the order they were sent.
        with concurrent.futures.ThreadPoolExecutor(1) as watcher, mock.patch.object(Population, "advance", recorded):
            yield

    @property
    def wall_s(self) -> float:
        """From the end of the first dispatch, which compiles and evaluates untrained runs, to the end of the last."""
        return self.dispatches[-1].done - self.dispatches[0].done

    @property
    def idle_s(self) -> float:
        """Of that, seconds with no dispatch in flight."""
        return idle([(dispatch.sent, dispatch.done) for dispatch in self.dispatches])

    @property
    def host_share(self) -> float:
        """Processor time of the host's main thread per wall time, between the second and the last dispatch."""
        first, last = self.dispatches[1], self.dispatches[-1]
        return (last.host_s - first.host_s) / max(last.sent - first.sent, 1e-9)


def idle(intervals: Sequence[tuple[float, float]]) -> float:
    """Seconds between the end of the first interval and the end of the last that no interval covers."""
    reached, total = intervals[0][1], 0.0
    for sent, done in intervals[1:]:
        total += max(0.0, sent - reached)
        reached = max(reached, done)
    return total
