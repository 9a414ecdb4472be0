"""Populations: many runs as one compiled program, in slots, under vmap, on devices.

A population has a fixed number of slots per device, each holding one run or nothing. On a device, `vmap_width` slots
train together under vmap, and such sets of slots follow one another; devices hold independent slots side by side. A
run's bits depend on its own inputs, the vmap width and the backend, on nothing else: not on its slot, its neighbours or
the number of slots.

On a CPU a width of 1 is fastest: one run's activations stay in cache, where a vmapped population streams through
memory. So it is with a TPU's on-chip memory and a few runs: a set keeps it for all steps of a segment. On a GPU all
slots train under one vmap.

Size letters: R slots, W slots under one vmap.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, Shaped

from grokjax.core import compiler
from grokjax.core.problem import Inputs, Problem, State
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from grokjax.training import one_run
from grokjax.training.layouts import MAX_SEGMENTS, Layout


class Population:
    """Runs of one problem in training on some devices.

    Args:
      problem: the static part that all runs share.
      layout: how they lie on the devices.
      devices: of this process, at most as many as the layout says; by default its first local ones.

    Attributes:
      width: slots over these devices.
    """

    def __init__(self, problem: Problem, layout: Layout, devices: Sequence[jax.Device] | None = None):
        self.problem, self.layout = problem, layout
        devices = tuple(devices or jax.local_devices())[: layout.n_devices]
        self.width = layout.slots * len(devices)
        measures = tuple(registry.of_groups(problem.measures))
        self.sharding, self._start, self._advance = _compiled(problem, layout, devices, measures)
        zeros = jax.tree.map(lambda x: np.zeros((self.width, *x.shape), x.dtype), blank(problem))
        self.state: State = self._put(zeros)

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
    ) -> dict[str, Shaped[Array, "segments slots ..."]]:
        """Dispatches segments of `n_steps` steps, each ended by an evaluation unless `evaluate` is False.

        Returns at once; the results are there when the device is done.

        Args:
          active: slots to train; a set of slots without an active one costs nothing, what an inactive slot among active
            ones holds afterwards is meaningless.
          n_segments: at most MAX_SEGMENTS.
          n_steps: per segment; 0 only evaluates.
          evaluate: whether segments end in an evaluation.
          slow: for each segment, whether its evaluation includes the slow measures; by default none does.

        Returns:
          Results by column, for MAX_SEGMENTS segments, of which the first `n_segments` are filled.
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
def _compiled(problem: Problem, layout: Layout, devices: tuple[jax.Device, ...], measures: tuple[Measure, ...]):
    """The sharding over runs and the jitted `_start` and `_advance`; `measures` tells redefined ones apart."""
    mesh = jax.sharding.Mesh(np.array(devices), ("run",))
    runs, everywhere = PartitionSpec("run"), PartitionSpec()

    options = compiler.options(devices[0].platform)

    def on_each_device(function, in_specs, out_specs, **more):
        # Nothing is exchanged between devices, so there is no replication to check (check_vma).
        mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jax.jit(mapped, donate_argnums=0, compiler_options=options | more or None)

    # Drawing weights runs once per run: on a CPU, where optimizing it takes seconds, it is not worth optimizing.
    quick = {"xla_backend_optimization_level": 0} if devices[0].platform == "cpu" else {}
    start = on_each_device(functools.partial(_start, problem), (runs,) * 3, runs, **quick)
    advance = on_each_device(
        functools.partial(_advance, problem, layout),
        (runs, runs, everywhere, everywhere, everywhere),
        (runs, PartitionSpec(None, "run")),
    )
    return NamedSharding(mesh, runs), start, advance


def lowered(problem: Problem, layout: Layout, devices: Sequence[jax.Device]) -> dict[str, jax.stages.Lowered]:
    """A population's programs, `start` and `advance`, ready to be compiled for devices that need not be there."""
    measures = tuple(registry.of_groups(problem.measures))
    runs, start, advance = _compiled(problem, layout, tuple(devices), measures)

    def stacked(x, sharding=runs):
        return jax.ShapeDtypeStruct((layout.slots * len(devices), *x.shape), x.dtype, sharding=sharding)

    state = jax.tree.map(stacked, blank(problem))
    marks = {name: stacked(np.empty((), name)) for name in ("bool", "int32")}
    switches = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((), "bool")
    with_slow = jax.ShapeDtypeStruct((MAX_SEGMENTS,), "bool")
    return {
        "start": start.trace(state, marks["bool"], state.inputs).lower(),
        "advance": advance.trace(state, marks["int32"], *switches, with_slow).lower(),
    }


def blank(problem: Problem) -> State:
    """The shapes and dtypes of one run's state."""
    hyperparameters = dict.fromkeys(problem.hyperparameters, np.float32(0))
    pairs, answers = (np.zeros(n, np.int32) for n in (problem.n_train, problem.model.p**2))
    inputs = Inputs(np.uint32(0), hyperparameters, pairs, answers)
    return jax.eval_shape(functools.partial(one_run.init, problem), inputs)


def _start(problem: Problem, state: State, fresh_R: Bool[Array, " R"], inputs: Inputs) -> State:
    return _pick(fresh_R, jax.lax.map(functools.partial(one_run.init, problem), inputs), state)


def _pick(where_R: Bool[Array, " R"], ours: State, theirs: State) -> State:
    """Picks of each run our state where `where_R` is true, else theirs."""

    def pick(one, other):
        return jnp.where(where_R.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(pick, ours, theirs)


def _advance(problem: Problem, layout: Layout, state: State, counts_R: Int[Array, " R"], n_steps, evaluate, with_slow):
    """Takes one device's sets of vmapped slots in turn, each through its segments."""

    def in_sets(x):
        return x.reshape(-1, layout.vmap_width, *x.shape[1:])

    def set_through(args):
        state, counts_W = args
        return _segments(problem, layout, state, jnp.max(counts_W), n_steps, evaluate, with_slow)

    state, results = jax.lax.map(set_through, (jax.tree.map(in_sets, state), in_sets(counts_R)))
    state = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state)
    # [sets, segments, slots of a set, ...] to [segments, slots, ...]
    return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(MAX_SEGMENTS, -1, *x.shape[3:]), results)


def _segments(problem: Problem, layout: Layout, state: State, n_segments, n_steps, evaluate, with_slow):
    """Takes slots that train together through some segments; trip counts are traced, so any number is one program."""
    train = jax.vmap(functools.partial(one_run.train, problem, backend=layout.backend), (0, None))

    def measure(slow):
        one = functools.partial(one_run.evaluate, problem, slow=slow, backend=layout.backend)
        return functools.partial(jax.lax.map, one, batch_size=layout.eval_width)

    def blank(function):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, state))

    tiers = [measure(False), measure(True)]
    blanks = [blank(tier) for tier in tiers]
    results = jax.tree.map(lambda x: jnp.zeros((MAX_SEGMENTS, *x.shape), x.dtype), blanks[0] | blanks[1])

    def segment(i, carry):
        state, results = carry
        stopped_W = jax.vmap(one_run.stopped)(state)
        trained = train(state, jnp.where(jnp.all(stopped_W), 0, n_steps))
        state = _pick(stopped_W, state, trained)
        row: dict[str, jax.Array] = {}
        # The predicates are the same for all slots, so that these stay branches and do not become selects.
        for tier, nothing, wanted in zip(tiers, blanks, (evaluate, evaluate & with_slow[i]), strict=True):
            if nothing:
                row |= jax.lax.cond(wanted, tier, lambda _, nothing=nothing: nothing, state)
        counted = jax.vmap(one_run.counted)(state, row["test_loss"])
        state = _pick(jnp.broadcast_to(evaluate, stopped_W.shape), counted, state)
        return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), results, row)

    return jax.lax.fori_loop(0, n_segments, segment, (state, results))
