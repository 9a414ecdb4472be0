"""A record of every dispatch of training: when it was handed to the device and when the device was done."""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

import jax

from grokjax.training.population import Population


@dataclasses.dataclass
class Dispatch:
    """Work for the device.

    Attributes:
      sent: when it was in flight, by time.perf_counter.
      done: when its results were there.
      host_s: processor seconds of the host's main thread until it was sent.
      n_active: slots with a run.
      n_steps: training steps of each.
      width: slots in all.
    """

    sent: float
    host_s: float
    n_active: int
    n_steps: int
    width: int
    done: float = 0.0


class Flight:
    """The dispatches of whatever trains while `recording` is entered."""

    def __init__(self):
        self.dispatches: list[Dispatch] = []
        self._watcher = concurrent.futures.ThreadPoolExecutor(1)  # dispatches end in the order they were sent

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Every population's dispatches are recorded until this is left; they are done by then."""
        advance = Population.advance

        def recorded(population, active, n_segments, n_steps, *args, **options):
            outputs = advance(population, active, n_segments, n_steps, *args, **options)
            now, host_s = time.perf_counter(), time.thread_time()
            sent = Dispatch(now, host_s, len(active), n_segments * n_steps, population.shape.width)
            self.dispatches.append(sent)
            self._watcher.submit(self._watch, sent, outputs)
            return outputs

        Population.advance = recorded  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Population.advance = advance  # type: ignore[method-assign]
            self._watcher.shutdown()

    @staticmethod
    def _watch(dispatch: Dispatch, outputs) -> None:
        jax.block_until_ready(outputs)
        dispatch.done = time.perf_counter()

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

    @property
    def idle_slot_steps(self) -> int:
        """Steps that slots without a run waited for the others."""
        return sum((d.width - d.n_active) * d.n_steps for d in self.dispatches)


def idle(intervals: Sequence[tuple[float, float]]) -> float:
    """Seconds between the end of the first interval and the end of the last that no interval covers."""
    reached, total = intervals[0][1], 0.0
    for sent, done in intervals[1:]:
        total += max(0.0, sent - reached)
        reached = max(reached, done)
    return total
