"""Hosts: the processes that train a sweep together, one per host (or per accelerator), and the messages between them.

Runs never exchange anything while they train. The processes only agree on what to do next: each learns the losses of
all runs, so that all give away slots in the same way, and whether one of them was asked to stop.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from grokjax.errors import HostLost


@dataclasses.dataclass(frozen=True)
class Hosts:
    """This process among those that train the sweep.

    Attributes:
      index: of this process, from 0.
      count: of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files of which there is one."""
        return self.index == 0

    def all_gather(self, mine: Any) -> list[Any]:
        """Gathers the message of every process, in the order of processes; returns once all have sent theirs.

        Args:
          mine: None, numbers, texts, arrays, and lists and dicts of these; nothing that is received is ever run.

        Raises:
          HostLost: another process is gone.
        """
        if self.count == 1:
            return [mine]
        message = np.frombuffer(msgpack_serialize(mine), np.uint8)
        lengths = self._exchange(np.array([len(message)], np.int32))[:, 0]
        rows = self._exchange(np.pad(message, (0, int(lengths.max()) - len(message))))
        return [msgpack_restore(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]

    def barrier(self) -> None:
        """Returns once all processes have come here.

        Raises:
          HostLost: another process is gone.
        """
        self.all_gather(None)

    def _exchange(self, mine: np.ndarray) -> np.ndarray:
        from jax.experimental import multihost_utils

        try:
            return np.asarray(multihost_utils.process_allgather(mine))
        except Exception as error:  # whatever the backend's transport raises where the other end is gone
            why = str(error).splitlines()[0][:160]
            raise HostLost(f"another of the {self.count} processes is gone ({why})") from None


ALONE = Hosts()


def join(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> Hosts:
    """Joins the processes that train together; call it before JAX computes anything.

    Args:
      coordinator_address: HOST:PORT of process 0; where it is None, JAX finds all three out from the cluster (Cloud
        TPU, SLURM, Open MPI, GKE).
      num_processes: in all.
      process_id: of this one, from 0.
    """
    jax.distributed.initialize(coordinator_address, num_processes, process_id)
    return Hosts(jax.process_index(), jax.process_count())
