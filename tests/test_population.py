"""One compilation per group, and bits that depend on a run's own inputs and the layout of lanes and parts alone."""

import dataclasses
import functools
import os
import types

import jax
import numpy as np
import pytest
import tiny
from cases import QUICK
from tiers import long_but

from grokjax import config, sweeps
from grokjax.core import backends
from grokjax.core import devices as devices_lib
from grokjax.core.backends import ON_TPU, Backend
from grokjax.core.model import ModelConfig
from grokjax.core.native import kernels
from grokjax.core.problem import HYPERPARAMETERS
from grokjax.training import layouts, one_run, population, tune
from grokjax.training.layouts import Layout
from grokjax.training.population import Population

RUNS = sweeps.expand(tiny.get_config()).runs
PROBLEM = RUNS[0].problem()

LAYOUTS = {
    "one lane": Layout(3, 1, 1, 1),
    "in blocks": Layout(3, 1, 1, 1, backend=Backend(8)),
    "three lanes": Layout(3, 3, 3, 1),
    "two lanes in sets, as on a TPU": Layout(4, 2, 2, 1, backend=ON_TPU),
    "in C++": Layout(3, 1, 1, 1, backend=Backend(n_parts=1)),
    "in C++ in parts": Layout(3, 1, 1, 1, backend=Backend(n_parts=3)),
}


@pytest.fixture(scope="module", params=long_but(["one lane", "three lanes", "in C++"], LAYOUTS))
def layout(request):
    if request.param.backend.n_parts and kernels.unavailable() and not os.environ.get("CI"):
        pytest.skip(kernels.unavailable())
    return request.param


def trained(layout, runs, n_segments=2, n_steps=20, rounds=2):
    """Parameters and last results of each slot after a few dispatches."""
    pop = Population(PROBLEM, layout)
    pop.start({slot: run.inputs() for slot, run in runs.items()})
    for _ in range(rounds):
        results = pop.advance(list(runs), n_segments, n_steps)
    params = jax.tree.map(np.asarray, pop.take(range(layout.width)).params)
    last = {name: np.asarray(x)[n_segments - 1] for name, x in results.items()}
    return {slot: ({k: x[slot] for k, x in params.items()}, {k: x[slot] for k, x in last.items()}) for slot in runs}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_bits_do_not_depend_on_slot_or_neighbours(layout):
    one = trained(layout, {0: RUNS[0], 1: RUNS[1], 2: RUNS[2]})
    other = trained(layout, {0: RUNS[3], 1: RUNS[2], 2: RUNS[0]})
    alone = trained(layout, {1: RUNS[0]})
    assert_same(one[0], other[2])
    assert_same(one[2], other[1])
    assert_same(one[0], alone[1])
    assert not np.array_equal(one[0][0]["embed.W_E"], one[1][0]["embed.W_E"])


def test_what_is_lowered_without_arrays_is_what_runs():
    layout = Layout(2, 1, 1, 1)
    pop = Population(PROBLEM, layout)
    lowered = population.lowered(PROBLEM, layout, jax.local_devices()[:1])
    inputs = jax.tree.map(lambda *x: np.stack(x), *(run.inputs() for run in RUNS[:2]))
    started = pop._start.lower(pop.state, pop._put(np.zeros(2, bool)), pop._put(inputs))
    counts, switches = pop._put(np.zeros(2, np.int32)), (np.int32(1), np.bool_(True))
    advanced = pop._advance.lower(pop.state, counts, *switches, np.zeros(population.MAX_SEGMENTS, bool))
    assert {"start": started.as_text(), "advance": advanced.as_text()} == {
        name: one.as_text() for name, one in lowered.items()
    }


def test_bits_do_not_depend_on_how_steps_are_dispatched(layout):
    whole = trained(layout, {0: RUNS[0], 1: RUNS[1]}, n_segments=4, rounds=1)
    pop = Population(PROBLEM, layout)
    pop.start({0: RUNS[0].inputs(), 1: RUNS[1].inputs()})
    for n_steps, evaluate in [(13, False), (7, True), (20, True), (20, True), (1, False), (19, True)]:
        results = pop.advance([0, 1], 1, n_steps, evaluate)
    assert_same(whole[1][0], {k: np.asarray(x)[1] for k, x in pop.take(range(3)).params.items()})
    assert_same(whole[1][1], {k: np.asarray(x)[0, 1] for k, x in results.items()})


def test_bits_do_not_depend_on_when_a_run_starts_or_whether_it_is_restored(layout):
    together = trained(layout, {0: RUNS[0], 1: RUNS[1]}, rounds=2)
    pop = Population(PROBLEM, layout)
    pop.start({0: RUNS[0].inputs()})
    pop.advance([0], 2, 20)
    pop.start({2: RUNS[1].inputs()})
    pop.advance([0, 2], 2, 20)
    saved = jax.tree.map(np.asarray, pop.take([2]))
    again = Population(PROBLEM, layout)
    again.restore(saved, [1])
    again.advance([1], 2, 20)
    assert_same(together[0][0], {k: np.asarray(x)[0] for k, x in pop.take(range(3)).params.items()})
    assert_same(together[1][0], {k: np.asarray(x)[1] for k, x in again.take(range(3)).params.items()})


@pytest.mark.parametrize("size", long_but([8], [1, 8, 30]))
def test_the_gradient_in_blocks_is_the_gradient(size):
    """29 training pairs, so that most sizes leave a last block to be filled."""
    inputs = RUNS[0].inputs()
    assert len(inputs.train_pairs) == 29
    with jax.enable_x64(True):
        drawn = jax.jit(functools.partial(one_run.init, PROBLEM), compiler_options=QUICK)(inputs).params
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), drawn)
        quick = functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
        whole = quick(jax.grad(backends.loss, 1))(PROBLEM, params, *backends.batch(PROBLEM, inputs))
        pieces = quick(backends.gradient)(PROBLEM, params, backends.blocks(PROBLEM, inputs, size))
    for key in params:
        np.testing.assert_allclose(pieces[key], whole[key], rtol=1e-12, atol=1e-14, err_msg=key)


def test_blocks_on_a_cpu_fit_its_cache():
    mainline = sweeps.expand(config.default()).runs[0].problem()
    block = backends.block_of(mainline)
    assert 3000 < -(-3830 // block) * block <= 3900
    assert block * 512 * 4 < 2 << 20
    assert backends.block_of(PROBLEM) == 0
    assert backends.block_of(dataclasses.replace(mainline, model=dataclasses.replace(mainline.model, n_layers=2))) == 0


@pytest.mark.long
def test_one_lane_gives_the_same_bits_in_any_number_of_slots():
    few = trained(Layout(1, 1, 1, 1), {0: RUNS[1]})
    many = trained(Layout(5, 1, 1, 1), {3: RUNS[1], 0: RUNS[0]})
    assert_same(few[0], many[3])


def test_a_run_in_a_population_is_the_run_alone(layout):
    def alone(inputs):
        return one_run.train(PROBLEM, one_run.init(PROBLEM, inputs), 20)

    state = jax.jit(alone)(RUNS[0].inputs())
    params, results = trained(layout, {0: RUNS[0]}, n_segments=1, rounds=1)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), params, state.params)
    np.testing.assert_allclose(results["train_loss"], one_run.evaluate(PROBLEM, state)["train_loss"], rtol=1e-4)


@pytest.mark.long
def test_an_idle_slot_is_left_alone_with_one_lane():
    pop = Population(PROBLEM, Layout(2, 1, 1, 1))
    pop.start({0: RUNS[0].inputs(), 1: RUNS[1].inputs()})
    before = jax.tree.map(np.asarray, pop.take([1]))
    pop.advance([0], 1, 20)
    assert_same(before, jax.tree.map(np.asarray, pop.take([1])))


def test_traced_hyperparameters_never_recompile(layout):
    pop = Population(PROBLEM, layout)
    pop.start({0: RUNS[0].inputs()})
    pop.advance([0], 1, 0)
    with count_compilations() as compiled:
        inputs = RUNS[1].inputs()
        for name in HYPERPARAMETERS:
            inputs.hyperparameters[name] = np.float32(0.5)
        pop.start({0: inputs, 1: RUNS[3].inputs()})
        for n_segments, n_steps, evaluate in [(1, 20, True), (3, 7, True), (1, 5, False)]:
            pop.advance([0, 1], n_segments, n_steps, evaluate)
        Population(PROBLEM, layout).start({2: RUNS[2].inputs()})
    assert compiled == []


class count_compilations(list):
    """One entry for each program that is compiled inside the block."""

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, seconds, **_):
        # Lowering, not XLA's compilation, which a persistent cache may skip.
        if event.endswith("jaxpr_to_mlir_module_duration"):
            self.append(event)


def test_layouts():
    chosen = layouts.choose(PROBLEM, 25)
    backend = Backend() if kernels.unavailable() else Backend(n_parts=max(chosen.backend.n_parts, 1))
    assert chosen == Layout(4, 1, 1, jax.local_device_count(), backend)
    assert layouts.choose(PROBLEM, 2).slots == 2
    assert layouts.choose(PROBLEM, 25, slots=7).slots == 7
    two = jax.local_devices()[:1] * 2
    assert layouts.relaid(Layout(4, 2, 1, 4), PROBLEM, two) == Layout(8, 2, 1, 2)
    assert layouts.relaid(Layout(3, 3, 1, 1), PROBLEM, two) == Layout(3, 3, 1, 2)


def of_two_layers(c):
    c.model.n_layers = 2
    return sweeps.expand(c).runs


def test_operations_by_hand():
    """P = 7, d_model 8, d_mlp 16: 680 parameters, and 536 more in a second layer; 29 pairs."""
    assert tune.operations(RUNS) == 6 * 680 * 29 * 800
    assert tune.operations(of_two_layers(tiny.get_config())[:3]) == 6 * 1216 * 3 * 29 * 600


def test_what_fits_is_80_percent_of_the_memory(monkeypatch):
    for slots in (1, 7, 50):
        enough = layouts.needed_bytes(PROBLEM, layouts.together(PROBLEM, slots)) / 0.8
        for memory, expected in ((enough + 1, slots), (enough - 1, max(1, slots - 1)), (1, 1)):
            monkeypatch.setattr(devices_lib, "memory", lambda device, memory=memory: memory)
            assert layouts.fitting(PROBLEM, None) == expected


def of(**fields):
    c = config.default()
    for name, value in fields.items():
        if name in c.model:
            c.model[name] = value
        else:
            c[name] = value
    return sweeps.expand(c).runs[0].problem()


@pytest.mark.parametrize("fields", [{}, {"n_layers": 2}, {"p": 53}, {"p": 499}, {"p": 499, "n_layers": 2}])
def test_no_array_has_more_numbers_than_int32_counts(monkeypatch, fields):
    problem = of(**fields)
    monkeypatch.setattr(devices_lib, "memory", lambda device: 1 << 60)
    slots, neurons = layouts.fitting(problem, None), 512 * (1 if problem.model.n_layers == 1 else 3)
    assert slots * problem.n_train * neurons < 2**31 <= (slots + 1) * problem.n_train * neurons
    layout = layouts.together(problem, slots)
    assert layout.eval_width * problem.model.p**2 * neurons < 2**31


# By P, layers, slots and those evaluated together: bytes that XLA says it needs on an H100, in jaxlib 0.10.2.
NEEDED = {
    (113, 1, 64, 64): 2_753_516_733,
    (113, 1, 256, 64): 8_257_675_453,
    (113, 1, 1024, 64): 33_030_555_069,
    (53, 1, 64, 64): 749_187_773,
    (113, 1, 1, 1): 45_292_113,
    (113, 1, 8, 8): 427_300_701,
    (113, 2, 64, 32): 8_391_283_005,
    (113, 2, 8, 8): 1_120_582_877,
    (499, 1, 1, 1): 1_533_324_809,
    (499, 1, 2, 2): 3_023_122_773,
    (53, 1, 1, 1): 15_619_969,
    (53, 1, 8, 8): 94_910_429,
}


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({}, 2 * 16 + 3 * 8 + 2 * 7),
        ({"n_layers": 2}, 2 * 16 * 4 + 10 * 8 * 2 + 3 * 7 + 12 * 7),  # three tokens, and the last one again
        ({"n_layers": 2, "normalization_type": "LN"}, 393 + 4 * 8 * (2 * 4 + 3)),
        ({"n_layers": 2, "dropout": 0.1}, 393 + 3 * 8 * 4),
        ({"architecture": "mlp"}, (3 + 2) * 16 + 4 * 7),
        ({"architecture": "mlp", "dropout": 0.1}, (3 + 4) * 16 + 4 * 7),
    ],
    ids=str,
)
def test_numbers_that_a_step_holds_for_each_pair_by_hand(fields, numbers):
    assert layouts._step_columns(ModelConfig(**{"p": 7, "d_model": 8, "n_heads": 2, "d_mlp": 16} | fields)) == numbers


@pytest.mark.parametrize("case", NEEDED)
def test_the_estimate_of_memory_is_up_to_half_above_what_the_compiler_says(case):
    p, n_layers, slots, eval_width = case
    problem = of(p=p, n_layers=n_layers)
    layout = layouts.together(problem, slots)
    assert layout.eval_width == eval_width
    assert 1 <= layouts.needed_bytes(problem, layout) / NEEDED[case] <= 1.5


# By P, sets and their width, as they are chosen: the least and the most that libtpu 0.0.42 says of a v5e and a v6e, of
# P = 53 of a v5e.
NEEDED_BY_SETS = {
    (53, 2, 8): (355_034_112, 355_034_112),
    (53, 8, 8): (665_583_104, 665_583_104),
    (113, 1, 2): (444_738_560, 567_109_088),
    (113, 2, 4): (966_819_808, 1_210_193_920),
    (113, 16, 4): (1_676_874_816, 1_734_654_464),
}


@pytest.mark.parametrize("case", NEEDED_BY_SETS)
def test_so_is_that_of_a_tpu(case):
    (p, n_sets, width), (least, most) = case, NEEDED_BY_SETS[case]
    problem = of(p=p)
    assert layouts.on_chip(problem) == {53: 8, 113: 4}[p]
    assert most <= layouts.needed_bytes(problem, layouts.in_sets(n_sets, width)) <= 1.5 * least


@pytest.mark.parametrize(
    ("n_runs", "slots", "n_devices", "expected"),
    [(25, 0, 1, 4), (9, 0, 1, 3), (5, 0, 1, 3), (4, 0, 1, 4), (25, 0, 2, 4), (3, 0, 2, 2), (25, 7, 1, 7), (5, 7, 2, 3)],
)
def test_slots_are_filled_in_equal_waves(n_runs, slots, n_devices, expected):
    devices = jax.local_devices()[:1] * n_devices
    layout = layouts.choose(PROBLEM, n_runs, slots, devices)
    assert (layout.slots, layout.vmap_width, layout.n_devices) == (expected, 1, n_devices)


def test_an_accelerator_trains_all_slots_together(monkeypatch):
    monkeypatch.setattr(layouts, "on_cpu", lambda device: False)
    monkeypatch.setattr(layouts, "fitting", lambda problem, device: 40)
    devices = jax.local_devices()[:1]
    assert layouts.choose(PROBLEM, 100, 0, devices) == Layout(34, 34, 34, 1)
    assert layouts.choose(PROBLEM, 5, 0, devices) == Layout(5, 5, 5, 1)


def tpus(n=1, memory=16e9):
    """Devices that say that they are TPUs."""
    stats = {"bytes_limit": int(memory)}
    one = types.SimpleNamespace(platform="tpu", device_kind="TPU v5 lite", process_index=0, memory_stats=lambda: stats)
    return [one] * n


def test_the_rule_for_on_chip_memory(monkeypatch):
    """128 MiB hold four runs of the mainline; a run that is larger trains alone. The bytes of PROBLEM by hand."""
    mainline = dataclasses.replace(PROBLEM, model=ModelConfig(), n_train=3830)
    assert layouts.on_chip(mainline) == 4
    assert layouts.on_chip(dataclasses.replace(mainline, n_train=12_769)) == 1
    one = 4 * (7 * 680 + 29 * (2 * 16 + 2 * 7 + 3 * 8))
    for runs, width in ((0.9, 1), (1, 1), (2, 2), (3.9, 2), (4, 4), (9, 8)):
        monkeypatch.setattr(layouts, "ON_CHIP_BYTES", int(runs * one))
        assert layouts.on_chip(PROBLEM) == width


@pytest.mark.parametrize(
    ("n_runs", "slots", "width", "n_devices", "expected"),
    [
        (25, 0, 0, 1, (26, 2)),
        (25, 0, 8, 1, (32, 8)),  # a measured width
        (25, 0, 0, 4, (8, 2)),
        (1, 0, 0, 1, (1, 1)),
        (3, 0, 8, 1, (3, 3)),
        (64, 0, 2, 1, (64, 2)),
        (65, 0, 2, 1, (34, 2)),  # two waves
        (25, 10, 0, 1, (10, 2)),
        (25, 9, 4, 1, (9, 3)),  # given slots are kept
        (25, 7, 0, 1, (7, 1)),
        (5, 7, 2, 1, (5, 1)),
    ],
)
def test_slots_and_vmap_width_are_chosen_apart_on_a_tpu(monkeypatch, n_runs, slots, width, n_devices, expected):
    monkeypatch.setattr(layouts, "on_chip", lambda problem: 2)
    layout = layouts.choose(PROBLEM, n_runs, slots, tpus(n_devices), width)
    assert (layout.slots, layout.vmap_width, layout.eval_width) == (*expected, expected[1])
    assert (layout.n_devices, layout.backend) == (n_devices, ON_TPU)


def test_slots_of_a_tpu_fit_into_its_memory(monkeypatch):
    monkeypatch.setattr(layouts, "on_chip", lambda problem: 2)
    memory = layouts.needed_bytes(PROBLEM, layouts.in_sets(3, 2)) / 0.8 + 1
    assert layouts.choose(PROBLEM, 100, 0, tpus(memory=memory)).slots == 6
    assert layouts.choose(PROBLEM, 100, 0, tpus(memory=1)).slots == 2


def test_a_recorded_layout_of_a_tpu_is_kept():
    """One from before sets were small, and one from after; both on as many devices and on fewer."""
    before = {"slots": 34, "lanes": 34, "eval_lanes": 8, "n_devices": 2, "block": 0, "n_parts": 0}
    after = Layout(8, 2, 2, 2, ON_TPU)
    assert layouts.relaid(Layout.of(before), PROBLEM, tpus(2)) == Layout(34, 34, 8, 2)
    assert layouts.relaid(Layout.of(before), PROBLEM, tpus(1)) == Layout(68, 34, 8, 1)
    assert layouts.relaid(Layout.of(after.record()), PROBLEM, tpus(2)) == after
    assert layouts.relaid(after, PROBLEM, tpus(1)) == Layout(16, 2, 2, 1, ON_TPU)
