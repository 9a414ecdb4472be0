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

EVAL_WIDTH = 32  # slots of an accelerator evaluated together, at most: an evaluation is some 160 kernels however many


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
        return {**widths, "n_devices": self.n_devices, **dataclasses.asdict(self.backend)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Layout":
        """The layout that `record` describes."""
        slots, vmap_width, eval_width, n = (record[name] for name in ("slots", "lanes", "eval_lanes", "n_devices"))
        return cls(slots, vmap_width, eval_width, n, backends.recorded(record))


def choose(problem: Problem, n_runs: int, slots: int = 0, devices: Sequence[jax.Device] | None = None) -> Layout:
    """The layout for this machine.

    Args:
      problem: to be trained.
      n_runs: how many runs there are.
      slots: runs per device; 0 chooses: on a CPU up to 4, so that progress is seen side by side and an interrupt is
        answered soon; on an accelerator as many as fit into its memory, in equal waves (`tune` measures what is
        fastest).
      devices: those to use, by default all of all processes.
    """
    devices = list(devices or jax.devices())
    per_device = -(-n_runs // len(devices))
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


def together(slots: int, n_devices: int = 1) -> Layout:
    """The layout of an accelerator: all slots of a device under one vmap."""
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
