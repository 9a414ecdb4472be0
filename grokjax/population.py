"""Many runs as one compiled program: slots, lanes, devices.

A population has a fixed number of slots per device, each holding one run or nothing. On a device, `lanes` slots train
together under vmap and groups of lanes follow one another; devices hold independent slots side by side. A run's bits
depend on its own inputs and on `lanes`, `block` and `n_parts`, on nothing else: not on its slot, its neighbours or the
number of slots.

On a CPU one lane is fastest: one run's activations stay in cache, where a vmapped population streams through memory.
On an accelerator all slots of a device share one set of lanes.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from grokjax import cpu, model, training
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from grokjax.native import kernels as native
from grokjax.training import Inputs, Problem, State

MAX_SEGMENTS = 64  # evaluations in one dispatch, at most; bounds the buffer of results
BLOCK_BYTES = 3 << 19  # of one block's neurons


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a population is laid out: what is compiled, and so what bits depend on.

    Attributes:
      slots: runs per device.
      lanes: slots that train together under vmap; divides `slots`.
      eval_lanes: lanes evaluated together; evaluation holds activations of the whole grid for each.
      n_devices: devices over all processes, each with its own slots.
      block: training pairs whose gradients are taken at a time; 0 for all of them.
      n_parts: of the training pairs whose gradients are taken side by side in C++ (`grokjax.native`); 0 for XLA.
    """

    slots: int
    lanes: int
    eval_lanes: int
    n_devices: int
    block: int = 0
    n_parts: int = 0

    @property
    def width(self) -> int:
        """Slots over all devices."""
        return self.slots * self.n_devices


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
    return Shape(slots, 1, 1, len(devices), n_parts=max(1, min(cpu.count() // beside, native.MOST_PARTS)))


def is_native(problem: Problem) -> bool:
    """Whether such runs train in C++ here."""
    suits = problem.precision == "float32" and native.suits(problem.model)
    return suits and jax.default_backend() == "cpu" and not native.unavailable()


def on_cpu(device: jax.Device) -> bool:
    """Whether runs follow one another on this device instead of training together."""
    return device.platform == "cpu"


def together(slots: int, n_devices: int = 1) -> Shape:
    """The layout of an accelerator: all slots of a device share one set of lanes."""
    return Shape(slots, slots, min(slots, 8), n_devices)


def _block(problem: Problem, n_devices: int) -> int:
    """XLA's block on a CPU. A run that all cores share gains nothing: blocks are too short to be split well."""
    return block_of(problem) if n_devices > 1 or cpu.count() == 1 else 0


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


def memory(device: jax.Device) -> int:
    """Bytes that JAX may use of a device's memory; 8 GiB where it does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", 8 << 30)


def fitting(problem: Problem, device: jax.Device) -> int:
    """Runs that fit side by side into 60 % of a device's memory, by estimate; at least 1."""
    return max(1, int(0.6 * memory(device) / lane_bytes(problem)))


def lane_bytes(problem: Problem) -> int:
    """What one run in training needs on a device, estimated in bytes: state, gradients and activations, float32."""
    cfg = problem.model
    n_params = sum(int(np.prod(shape)) for shape in model.shapes(cfg).values())
    per_pair = 4 * cfg.d_mlp + 6 * cfg.d_model + 8 * cfg.p
    positions = 1 if cfg.n_layers == 1 else 3 * cfg.n_layers
    return 4 * (6 * n_params + problem.n_train * per_pair * positions)


class Population:
    """Runs of one problem in training on some devices.

    Args:
      problem: the static part that all runs share.
      shape: the layout.
      devices: of this process, at most as many as the layout says; by default its first local ones.

    Attributes:
      width: slots over these devices.
    """

    def __init__(self, problem: Problem, shape: Shape, devices: Sequence[jax.Device] | None = None):
        self.problem, self.shape = problem, shape
        devices = tuple(devices or jax.local_devices())[: shape.n_devices]
        self.width = shape.slots * len(devices)
        measures = tuple(registry.of_groups(problem.measures))
        self.sharding, self._start, self._advance = _compiled(problem, shape, devices, measures)
        self.state: State = self._put(_zeros(problem, self.width))

    def _put(self, tree):
        return jax.device_put(tree, self.sharding)

    def start(self, runs: Mapping[int, Inputs]) -> None:
        """Puts runs, before their first step, into slots; the other slots go on undisturbed."""
        fresh = np.zeros(self.width, bool)
        fresh[list(runs)] = True
        filler = next(iter(runs.values()))
        stacked = jax.tree.map(lambda *x: np.stack(x), *(runs.get(i, filler) for i in range(self.width)))
        self.state = self._start(self.state, self._put(fresh), self._put(stacked))

    def advance(
        self,
        active: Sequence[int],
        n_segments: int,
        n_steps: int,
        evaluate: bool = True,
        slow: Sequence[bool] = (),
    ):
        """Dispatches segments of `n_steps` steps, each ended by an evaluation unless `evaluate` is False.

        Returns at once; the results are there when the device is done.

        Args:
          active: slots to train; lanes without an active slot cost nothing, what an inactive slot among active
            lanes holds afterwards is meaningless.
          n_segments: at most MAX_SEGMENTS.
          n_steps: per segment; 0 only evaluates.
          evaluate: whether segments end in an evaluation.
          slow: for each segment, whether its evaluation includes the slow measures; by default none does.

        Returns:
          {column: array [MAX_SEGMENTS, slots over all devices, ...]}, of which the first `n_segments` are filled.
        """
        counts = np.zeros(self.width, np.int32)
        counts[list(active)] = n_segments
        with_slow = np.zeros(MAX_SEGMENTS, bool)
        with_slow[: len(slow)] = slow
        self.state, results = self._advance(
            self.state, self._put(counts), np.int32(n_steps), np.bool_(evaluate), with_slow
        )
        return results

    def take(self, slots: Sequence[int]) -> State:
        """Copies of the state of some slots, stacked, unaffected by what happens next."""
        return _take(self.state, np.array(slots, np.int32))

    def restore(self, state: State, slots: Sequence[int]) -> None:
        """Puts saved states, stacked, into slots; the others are left as they are."""

        def put(old, saved):
            new = np.array(old)
            new[list(slots)] = saved
            return new

        self.state = self._put(jax.tree.map(put, self.state, state))


@jax.jit
def _take(tree, slots):
    return jax.tree.map(lambda x: x[slots], tree)


@functools.cache
def _compiled(problem: Problem, shape: Shape, devices: tuple[jax.Device, ...], measures: tuple[Measure, ...]):
    """The sharding over runs and the jitted `_start` and `_advance`; `measures` tells redefined ones apart."""
    mesh = jax.sharding.Mesh(np.array(devices), ("run",))
    runs, everywhere = PartitionSpec("run"), PartitionSpec()

    def on_each_device(function, in_specs, out_specs, **options):
        # Nothing is exchanged between devices, so there is no replication to check (check_vma).
        mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jax.jit(mapped, donate_argnums=0, **options)

    # Drawing weights runs once per run: on a CPU, where optimizing it takes seconds, it is not worth optimizing.
    quick = {"compiler_options": {"xla_backend_optimization_level": 0}} if devices[0].platform == "cpu" else {}
    start = on_each_device(functools.partial(_start, problem), (runs,) * 3, runs, **quick)
    advance = on_each_device(
        functools.partial(_advance, problem, shape),
        (runs, runs, everywhere, everywhere, everywhere),
        (runs, PartitionSpec(None, "run")),
    )
    return NamedSharding(mesh, runs), start, advance


def blank(problem: Problem) -> State:
    """The shapes and dtypes of one run's state."""
    return jax.eval_shape(functools.partial(training.init, problem), _blank_inputs(problem))


def _blank_inputs(problem: Problem) -> Inputs:
    return Inputs(
        seed=jax.ShapeDtypeStruct((), np.uint32),
        hyperparameters={name: jax.ShapeDtypeStruct((), np.float32) for name in training.HYPERPARAMETERS},
        train_pairs=jax.ShapeDtypeStruct((problem.n_train,), np.int32),
        answers=jax.ShapeDtypeStruct((problem.model.p**2,), np.int32),
        stop_loss=jax.ShapeDtypeStruct((), np.float32),
        stop_evals=jax.ShapeDtypeStruct((), np.int32),
    )


def _zeros(problem: Problem, width: int) -> State:
    return jax.tree.map(lambda x: np.zeros((width, *x.shape), x.dtype), blank(problem))


def _start(problem: Problem, state: State, fresh_R, inputs: Inputs) -> State:
    return _pick(fresh_R, jax.lax.map(functools.partial(training.init, problem), inputs), state)


def _pick(where_R, ours: State, theirs: State) -> State:
    """Of each run, our state where `where_R` (bool [runs]) is true, else theirs."""

    def pick(one, other):
        return jnp.where(where_R.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(pick, ours, theirs)


def _advance(problem: Problem, shape: Shape, state: State, counts_R, n_steps, evaluate, with_slow):
    """One device's share: lanes in turn, each through its segments."""

    def in_lanes(x):
        return x.reshape(-1, shape.lanes, *x.shape[1:])

    def lanes_through(args):
        state, counts_L = args
        return _segments(problem, shape, state, jnp.max(counts_L), n_steps, evaluate, with_slow)

    state, results = jax.lax.map(lanes_through, (jax.tree.map(in_lanes, state), in_lanes(counts_R)))
    state = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state)
    # [lane groups, segments, lanes, ...] to [segments, slots, ...]
    return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(MAX_SEGMENTS, -1, *x.shape[3:]), results)


def _segments(problem: Problem, shape: Shape, state: State, n_segments, n_steps, evaluate, with_slow):
    """Lanes that train together, through some segments; trip counts are traced, so any number is one program."""
    train = jax.vmap(functools.partial(training.train, problem, block=shape.block, n_parts=shape.n_parts), (0, None))

    def measure(slow):
        one = functools.partial(training.evaluate, problem, slow=slow, in_native=bool(shape.n_parts))
        return functools.partial(jax.lax.map, one, batch_size=shape.eval_lanes)

    def blank(function):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, state))

    tiers = [measure(False), measure(True)]
    blanks = [blank(tier) for tier in tiers]
    results = jax.tree.map(lambda x: jnp.zeros((MAX_SEGMENTS, *x.shape), x.dtype), blanks[0] | blanks[1])

    def segment(i, carry):
        state, results = carry
        stopped_L = jax.vmap(training.stopped)(state)
        trained = train(state, jnp.where(jnp.all(stopped_L), 0, n_steps))
        state = _pick(stopped_L, state, trained)
        row: dict[str, jax.Array] = {}
        # The predicates are the same for all lanes, so that these stay branches and do not become selects.
        for tier, nothing, wanted in zip(tiers, blanks, (evaluate, evaluate & with_slow[i]), strict=True):
            if nothing:
                row |= jax.lax.cond(wanted, tier, lambda _, nothing=nothing: nothing, state)
        counted = jax.vmap(training.counted)(state, row["test_loss"])
        state = _pick(jnp.broadcast_to(evaluate, stopped_L.shape), counted, state)
        return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), results, row)

    return jax.lax.fori_loop(0, n_segments, segment, (state, results))
