"""How a population is laid out on a machine's devices: slots, vmap width, and what computes the gradient."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from grokjax.core import devices as devices_lib
from grokjax.core import model
from grokjax.core.native import kernels
from grokjax.core.problem import Problem, Shape

BLOCK_BYTES = 3 << 19  # of one block's neurons


def choose(problem: Problem, n_runs: int, slots: int = 0, devices: Sequence[jax.Device] | None = None) -> Shape:
    """A layout for this machine.

    Args:
      problem: what is to be trained.
      n_runs: how many runs there are.
      slots: runs per device; 0 chooses: on a CPU up to 4, so that progress is seen side by side and an interrupt is
        answered soon; on an accelerator as many as fit into its memory, in equal waves (`width` measures what is
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
    if not is_native(problem):
        return Shape(slots, 1, 1, len(devices), _block(problem, len(devices)))
    beside = sum(device.process_index == devices[0].process_index for device in devices)
    return Shape(slots, 1, 1, len(devices), n_parts=max(1, min(devices_lib.n_cores() // beside, kernels.MOST_PARTS)))


def is_native(problem: Problem) -> bool:
    """Whether such runs train in C++ here."""
    suits = problem.precision == "float32" and kernels.suits(problem.model)
    return suits and jax.default_backend() == "cpu" and not kernels.unavailable()


def on_cpu(device: jax.Device) -> bool:
    """Whether runs follow one another on this device instead of training together."""
    return device.platform == "cpu"


def together(slots: int, n_devices: int = 1) -> Shape:
    """The layout of an accelerator: all slots of a device share one set of lanes."""
    return Shape(slots, slots, min(slots, 8), n_devices)


def _block(problem: Problem, n_devices: int) -> int:
    """XLA's block on a CPU. A run that all cores share gains nothing: blocks are too short to be split well."""
    return block_of(problem) if n_devices > 1 or devices_lib.n_cores() == 1 else 0


def block_of(problem: Problem) -> int:
    """Training pairs per block where a core has a run to itself: about 1.5 MiB of neurons, which its caches hold."""
    if problem.model.n_layers > 1:
        return 0
    n_blocks = max(1, round(problem.n_train * problem.model.d_mlp * 4 / BLOCK_BYTES))
    return -(-problem.n_train // n_blocks) if n_blocks > 1 else 0


def relaid(recorded: Shape, problem: Problem, n_devices: int) -> Shape:
    """The layout for going on with a recorded population on another number of devices: lanes, blocks and parts stay.

    Where there is no C++ for it any more, XLA takes its place, and bits change.
    """
    slots = -(-recorded.width // n_devices)
    slots = -(-slots // recorded.lanes) * recorded.lanes
    relaid = dataclasses.replace(recorded, slots=slots, n_devices=n_devices)
    return relaid if not relaid.n_parts or is_native(problem) else without_native(relaid, problem)


def without_native(shape: Shape, problem: Problem) -> Shape:
    """The layout with XLA in place of C++."""
    return dataclasses.replace(shape, n_parts=0, block=_block(problem, shape.n_devices))


def fitting(problem: Problem, device: jax.Device) -> int:
    """Runs that fit side by side into 60 % of a device's memory, by estimate; at least 1."""
    return max(1, int(0.6 * devices_lib.memory(device) / lane_bytes(problem)))


def lane_bytes(problem: Problem) -> int:
    """What one run in training needs on a device, estimated in bytes: state, gradients and activations, float32."""
    cfg = problem.model
    n_params = sum(int(np.prod(shape)) for shape in model.shapes(cfg).values())
    per_pair = 4 * cfg.d_mlp + 6 * cfg.d_model + 8 * cfg.p
    positions = 1 if cfg.n_layers == 1 else 3 * cfg.n_layers
    return 4 * (6 * n_params + problem.n_train * per_pair * positions)
