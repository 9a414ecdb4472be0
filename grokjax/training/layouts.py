"""Layouts: slots and vmap widths of a population on a machine's devices, which are compiled in and change bits."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from grokjax.core import backends, model
from grokjax.core import devices as devices_lib
from grokjax.core.backends import XLA, Backend
from grokjax.core.problem import Problem

ON_CHIP_BYTES = 128 << 20  # of a TPU's core, from v5e on
MOST_SETS = 32  # of slots that follow one another on a TPU: enough to keep it busy, few enough to be seen side by side
EVAL_WIDTH = 32  # slots of a GPU evaluated together, at most: an evaluation is some 160 kernels however many


@dataclasses.dataclass(frozen=True)
class Layout:
    """A population's place on the devices.

    Attributes:
      slots: runs per device.
      vmap_width: slots that train together under vmap; divides `slots`.
      eval_width: slots evaluated together; evaluation holds activations of the whole grid for each.
      n_devices: devices over all processes, each with its own slots.
      backend: computes gradients, and the forward pass of evaluations.
    """

    slots: int
    vmap_width: int
    eval_width: int
    n_devices: int
    backend: Backend = XLA

    @property
    def width(self) -> int:
        """Slots over all devices."""
        return self.slots * self.n_devices

    def record(self) -> dict[str, int]:
        """The layout as config.json holds it."""
        widths = {"slots": self.slots, "lanes": self.vmap_width, "eval_lanes": self.eval_width}
        return {**widths, "n_devices": self.n_devices, **self.backend.record()}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Layout":
        """The layout that `record` describes."""
        slots, vmap_width, eval_width, n = (record[name] for name in ("slots", "lanes", "eval_lanes", "n_devices"))
        return cls(slots, vmap_width, eval_width, n, backends.recorded(record))


def choose(
    problem: Problem, n_runs: int, slots: int = 0, devices: Sequence[jax.Device] | None = None, vmap_width: int = 0
) -> Layout:
    """The layout for this machine.

    Args:
      problem: to be trained.
      n_runs: how many runs there are.
      slots: runs per device; 0 chooses: on a CPU up to 4, so that progress is seen side by side and an interrupt is
        answered soon; on a TPU whole sets, up to `MOST_SETS`; on other accelerators as many as fit into
        memory, in equal waves (`tune` measures what is fastest).
      devices: those to use, by default all of all processes.
      vmap_width: on a TPU; 0 chooses `on_chip`.
    """
    devices = list(devices or jax.devices())
    per_device = -(-n_runs // len(devices))
    if on_tpu(devices[0]):
        return _chosen_sets(problem, per_device, slots, devices, vmap_width)
    if not slots:
        most = 4 if on_cpu(devices[0]) else fitting(problem, devices[0])
        waves = -(-per_device // most)
        slots = -(-per_device // waves)
    slots = min(slots, per_device)
    if not on_cpu(devices[0]):
        return together(slots, len(devices))
    n_beside = sum(device.process_index == devices[0].process_index for device in devices)
    return Layout(slots, 1, 1, len(devices), backends.on_cpu(problem, len(devices), n_beside))


def on_cpu(device: jax.Device) -> bool:
    """Whether runs follow one another on this device instead of training together."""
    return device.platform == "cpu"


def on_tpu(device: jax.Device) -> bool:
    """Whether sets of a few runs follow one another on this device, each set small enough for on-chip memory."""
    return device.platform == "tpu"


def in_sets(n_sets: int, vmap_width: int, n_devices: int = 1) -> Layout:
    """The layout of a TPU: sets that follow one another, each under a vmap."""
    return Layout(n_sets * vmap_width, vmap_width, min(vmap_width, 8), n_devices, backends.ON_TPU)


def _chosen_sets(problem: Problem, n_runs: int, slots: int, devices: Sequence[jax.Device], vmap_width: int) -> Layout:
    """The layout of TPUs with so many runs for each; given slots are kept, by sets of the largest width that fits."""
    vmap_width = min(vmap_width or on_chip(problem), n_runs)
    if slots := min(slots, n_runs):
        vmap_width = max(width for width in range(1, vmap_width + 1) if slots % width == 0)
        return in_sets(slots // vmap_width, vmap_width, len(devices))
    n_sets = -(-n_runs // vmap_width)
    most = max(1, min(MOST_SETS, fitting(problem, devices[0]) // vmap_width))
    return in_sets(-(-n_sets // -(-n_sets // most)), vmap_width, len(devices))


def on_chip(problem: Problem) -> int:
    """Runs whose training a TPU's on-chip memory holds, by estimate: a power of two, at least 1.

    What one set needs stays there for all steps of a segment; a larger set moves to and from memory at every step.
    """
    return 1 << max(0, (ON_CHIP_BYTES // run_bytes(problem)).bit_length() - 1)


def measurable(width: int, device: jax.Device) -> Layout:
    """The layout of so many runs under one vmap, as this device would train them."""
    return in_sets(1, width) if on_tpu(device) else together(width)


def together(slots: int, n_devices: int = 1) -> Layout:
    """The layout of an accelerator other than a TPU: all slots of a device under one vmap."""
    n_sets = -(-slots // EVAL_WIDTH)
    return Layout(slots, slots, -(-slots // n_sets), n_devices)


def relaid(recorded: Layout, problem: Problem, devices: Sequence[jax.Device]) -> Layout:
    """The layout for going on with a recorded population on these devices: vmap width and backend stay.

    Where there is no C++ for it any more, XLA takes its place, and bits change.
    """
    slots = -(-recorded.width // len(devices))
    slots = -(-slots // recorded.vmap_width) * recorded.vmap_width
    relaid = dataclasses.replace(recorded, slots=slots, n_devices=len(devices))
    return relaid if relaid.backend.serves(problem, devices[0].platform) else by_xla(relaid, problem)


def by_xla(layout: Layout, problem: Problem) -> Layout:
    """The layout on a CPU with XLA in place of C++."""
    return dataclasses.replace(layout, backend=backends.xla_on_cpu(problem, layout.n_devices))


def fitting(problem: Problem, device: jax.Device) -> int:
    """Runs that fit side by side into 60 % of a device's memory, by estimate; at least 1."""
    return max(1, int(0.6 * devices_lib.memory(device) / run_bytes(problem)))


def run_bytes(problem: Problem) -> int:
    """The bytes that one run in training needs on a device, estimated: state, gradients and activations, float32."""
    cfg = problem.model
    n_params = sum(int(np.prod(shape)) for shape in model.shapes(cfg).values())
    per_pair = 4 * cfg.d_mlp + 6 * cfg.d_model + 8 * cfg.p
    positions = 1 if cfg.n_layers == 1 else 3 * cfg.n_layers
    return 4 * (6 * n_params + problem.n_train * per_pair * positions)
