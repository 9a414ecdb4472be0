"""Layouts: slots and vmap widths of a population on a machine's devices, which are compiled in and change bits."""

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from grokjax.core import backends, model
from grokjax.core import devices as devices_lib
from grokjax.core.backends import XLA, Backend
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Problem
from grokjax.measures import blocks, registry

ON_CHIP_BYTES = 128 << 20  # of a TPU's core, from v5e on
MOST_SETS = 32  # of slots that follow one another on a TPU: enough to keep it busy, few enough to be seen side by side
MAX_SEGMENTS = 64  # evaluations in one dispatch, at most; bounds the buffer of results
# On an accelerator, at most:
EVAL_WIDTH = 64  # slots evaluated together, since an evaluation is some 170 kernels however many they are
EVAL_BYTES = 4 << 30  # of their activations
MOST_NUMBERS = (1 << 31) - 1  # in an array, whose indices are int32
MARGIN = 1.13  # of memory, over what is counted


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
        return together(problem, slots, len(devices))
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
    n_sets, limit = -(-n_runs // vmap_width), 0.8 * devices_lib.memory(devices[0])
    fit = [n for n in range(1, MOST_SETS + 1) if needed_bytes(problem, in_sets(n, vmap_width)) <= limit]
    most = max(fit, default=1)
    return in_sets(-(-n_sets // -(-n_sets // most)), vmap_width, len(devices))


def on_chip(problem: Problem) -> int:
    """Runs whose training a TPU's on-chip memory holds, by estimate: a power of two, at least 1.

    What one set needs stays there for all steps of a segment; a larger set moves to and from memory at every step.
    """
    cfg = problem.model
    n_params = model.n_parameters(cfg)
    neurons = (
        2 * cfg.d_mlp * (1 if cfg.is_factored else cfg.n_ctx * cfg.n_layers)
    )  # before and after their nonlinearity
    one = 4 * (7 * n_params + problem.n_step * (neurons + 2 * cfg.p + 3 * cfg.d_model))
    return 1 << max(0, (ON_CHIP_BYTES // one).bit_length() - 1)


def measurable(problem: Problem, width: int, device: jax.Device) -> Layout:
    """The layout of so many runs under one vmap, as this device would train them."""
    return in_sets(1, width) if on_tpu(device) else together(problem, width)


def together(problem: Problem, slots: int, n_devices: int = 1) -> Layout:
    """The layout of an accelerator other than a TPU: all slots of a device under one vmap."""
    most = min(
        EVAL_WIDTH, EVAL_BYTES // _evaluation_bytes(problem), MOST_NUMBERS // _largest(problem, problem.model.p**2)
    )
    n_sets = -(-slots // max(1, most))
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
    """Runs that fit side by side into 80 % of a device's memory, by estimate, with no array too long; at least 1."""
    most, limit = MOST_NUMBERS // _largest(problem, problem.n_step), 0.8 * devices_lib.memory(device)

    def needed(slots: int) -> int:
        return needed_bytes(problem, together(problem, slots))

    fit = bisect.bisect_right(range(1, most + 1), limit, key=needed)
    while fit > 1 and needed(fit) > limit:  # more slots may be evaluated in smaller sets
        fit -= 1
    return max(1, fit)


def needed_bytes(problem: Problem, layout: Layout) -> int:
    """The bytes of an accelerator's memory that a layout needs on each device, evaluation included, estimated.

    States and results of all slots stay; activations of a training step and those of an evaluation take the same place.
    On a TPU a step's lie on chip, and evaluation takes the most, with states copied from set to set.
    """
    cfg = problem.model
    n_params = model.n_parameters(cfg)
    dims = {name: dim(problem) for name, dim in registry.DIMS.items()}
    row = sum(math.prod(dims[d] for d in m.shape) for m in registry.of_groups(problem.measures))
    more = problem.is_started + (problem.decay_to == "init") + (problem.gradient_transform == "grokfast")
    kept = 4 * ((3 + more) * n_params + problem.n_train + cfg.p**2 + MAX_SEGMENTS * row)
    if layout.backend.pairs_last:
        return int(MARGIN * (3 * layout.slots * kept + layout.eval_width * _evaluation_bytes_of_tpu(problem)))
    step = 4 * (4 * n_params + problem.n_step * _step_columns(cfg))
    if problem.batch_size:  # the orders of two epochs, and what sorting them takes
        step += 4 * 6 * problem.n_train
    evaluated = layout.eval_width * _evaluation_bytes(problem)
    return int(MARGIN * (layout.slots * kept + max(layout.slots * step, evaluated)))


def _step_columns(cfg: ModelConfig) -> int:
    """Numbers per training pair that a step holds: neurons before their nonlinearity and after, and narrower arrays.

    What is taken of each array is fitted to XLA's own account for an H100, which tests/test_population.py holds.
    """
    if not cfg.is_transformer:
        # One-hot columns, looked-up rows and their sum, and each layer's neurons before and after, and kept.
        return (3 + (4 if cfg.has_dropout else 2) * cfg.n_layers) * cfg.d_mlp + 4 * cfg.p
    if cfg.is_factored:
        return 2 * cfg.d_mlp + 3 * cfg.d_model + 2 * cfg.p
    positions = cfg.n_ctx * (cfg.n_layers - 1) + 1  # of the last layer the last token alone
    norms = 4 * cfg.d_model * (2 * positions + cfg.n_ctx) if cfg.normalization_type else 0
    dropped = 3 * cfg.d_model * positions if cfg.has_dropout else 0
    tokens = cfg.n_ctx * (cfg.d_vocab - 1) + 12 * cfg.p  # one-hot, and logits
    return 2 * cfg.d_mlp * positions + 10 * cfg.d_model * cfg.n_layers + tokens + norms + dropped


def _evaluation_bytes(problem: Problem) -> int:
    """Of one run's evaluation: activations of the whole grid, as far as XLA keeps them; a group's by blocks, too."""
    cfg = problem.model
    per_pair = cfg.is_factored or not cfg.is_transformer
    neurons = 1.75 * cfg.d_mlp if per_pair else cfg.n_ctx * (cfg.d_mlp + 2 * cfg.d_model)
    neurons += cfg.d_mlp if problem.group else 0
    return int(4 * cfg.p**2 * (neurons + cfg.p + 8 * cfg.n_heads * cfg.is_transformer))


def _evaluation_bytes_of_tpu(problem: Problem) -> int:
    """Likewise on a TPU, in its tiles: the training pairs' logits less each frequency take the most."""
    cfg = problem.model
    classes, pairs, grid = 8 * -(-cfg.p // 8), 128 * -(-problem.n_train // 128), 128 * -(-(cfg.p**2) // 128)
    neurons = 2 * cfg.d_mlp * (1 if cfg.n_layers == 1 else 3)
    return 4 * (2 * blocks.n_blocks(problem) * pairs * classes + grid * neurons)


def _largest(problem: Problem, n_pairs: int) -> int:
    """Numbers in the largest array that a run has of so many pairs."""
    cfg = problem.model
    return n_pairs * max(
        cfg.p, max(cfg.d_mlp, cfg.d_model) * (1 if cfg.is_factored or not cfg.is_transformer else cfg.n_ctx)
    )
