"""How many runs train side by side: measured for real on a tiny model, remembered, chosen, recorded."""

import functools
import json

import jax
import pytest
import tiny

from grokjax import sweeps
from grokjax.core import devices
from grokjax.core.backends import ON_TPU
from grokjax.store import workdir
from grokjax.training import layouts, population, tune
from grokjax.training.layouts import Layout
from grokjax.training.request import StopRequest

RUNS = sweeps.expand(tiny.get_config()).runs
PROBLEM, INPUTS = RUNS[0].problem(), RUNS[0].inputs()
DEVICE = jax.local_devices()[0]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "grokjax" / "width"


@pytest.fixture
def accelerator(monkeypatch):
    """The CPU taken for an accelerator with room for 40 runs; rates of 8, 16, 32 runs without measuring."""
    rates = {8: 1_000.0, 16: 1_800.0, 32: 3_000.0}
    measured = []

    def measure(problem, inputs, width, device):
        measured.append(width)
        return rates[width]

    monkeypatch.setattr(layouts, "on_cpu", lambda device: False)
    monkeypatch.setattr(layouts, "fitting", lambda problem, device: 40)
    monkeypatch.setattr(tune, "SHORT", 0)
    monkeypatch.setattr(tune, "measure", measure)
    return measured


def runs(n):
    c = tiny.get_config()
    c.sweep.weight_decay, c.sweep.seed = None, tuple(range(n))
    return sweeps.expand(c).runs


@pytest.mark.parametrize(
    ("n_runs", "most", "expected"),
    [
        (100, 1000, [8, 16, 32, 64, 128]),
        (32, 1000, [8, 16, 32]),
        (1000, 40, [8, 16, 32]),
        (1000, 16, [8, 16]),
        (3, 1000, [8]),
        (100, 5, [4]),
        (100, 1, [1]),
    ],
)
def test_widths_grow_to_the_number_of_runs_and_what_fits(n_runs, most, expected):
    assert tune.ladder(n_runs, most) == expected


@pytest.mark.parametrize(
    ("rates", "climbed"),
    [
        ([100, 200, 400], [8, 16, 32]),
        ([100, 104, 400], [8, 16]),
        ([100, 90, 400], [8, 16]),
        ([100, 106, 400], [8, 16, 32]),
        ([100, None, 400], [8, 16]),
        ([None, 200, 400], [8]),
    ],
)
def test_the_climb_ends_where_doubling_gains_little_or_memory_ends(rates, climbed):
    rate_of = dict(zip([8, 16, 32], rates, strict=True))
    assert tune.climb([8, 16, 32], rate_of.__getitem__) == {w: rate_of[w] for w in climbed}


@pytest.mark.parametrize(
    ("rates", "n_runs", "slots"),
    [
        ({8: 100, 16: 200, 32: 300}, 20, 20),  # all at once
        ({8: 100, 16: 200, 32: 300}, 1000, 32),
        ({8: 100, 16: 196, 32: 200}, 1000, 16),  # close to the best is enough
        ({8: 100, 16: 190, 32: 200}, 33, 17),  # equal waves; one of 33 is wider than was measured
        ({8: 100, 16: 198, 32: 200}, 20, 20),  # two waves of 10 would take 2 × 0.08 s a step, one of 20 takes 0.1 s
        ({8: 100, 16: 100, 32: 100}, 200, 8),  # nothing gained: the smallest width
        ({8: 100, 16: 198, 32: None}, 40, 14),
        ({8: None}, 40, 4),
        ({8: None}, 3, 3),
        ({1: None}, 3, 1),
    ],
)
def test_slots_follow_from_the_rates(rates, n_runs, slots):
    assert tune.best(rates, n_runs) == slots


def test_what_a_step_takes_is_interpolated():
    rates = {8: 100.0, 16: 160.0, 32: None}  # 0.08 s and 0.1 s a step
    assert tune.rate_at(rates, 16) == pytest.approx(160)
    assert tune.rate_at(rates, 12) == pytest.approx(12 / 0.09)
    assert tune.rate_at(rates, 4) == pytest.approx(4 / 0.08)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tune, "TIMING_SECONDS", 0.01)


@pytest.mark.long
def test_measured_for_real_and_read_the_second_time(home, quick, monkeypatch):
    said = []
    rates, is_new = tune.table(PROBLEM, INPUTS, [2, 4], DEVICE, said.append)
    assert is_new
    assert rates.keys() == {2, 4}
    assert all(rate > 100 for rate in rates.values())
    assert said[0].startswith("measuring how many runs")
    assert [line.split(" runs")[0].strip() for line in said[1:]] == ["2", "2", "4", "4"]
    (file,) = home.iterdir()
    content = json.loads(file.read_text())
    assert content["run_steps_per_second"] == {"2": rates[2], "4": rates[4]}
    assert content["measured_for"]["device_kind"] == DEVICE.device_kind
    assert content["measured_for"]["problem"]["model"]["p"] == 7

    monkeypatch.setattr(tune, "measure", None)
    assert tune.table(PROBLEM, INPUTS, [2, 4], DEVICE, say=None) == (rates, False)
    assert tune.table(PROBLEM, INPUTS, [2], DEVICE, say=None) == ({2: rates[2]}, False)


@pytest.mark.parametrize("said", ["RESOURCE_EXHAUSTED: 9 GiB", "INTERNAL: CUDA_ERROR: Out of memory"])
def test_memory_is_known_by_whatever_a_device_says_of_it(monkeypatch, said):
    def full(*args):
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(tune, "_timed", full)
    assert tune.measure(PROBLEM, INPUTS, 1, DEVICE) is None


def test_memory_ends_the_climb_and_that_is_remembered(quick, monkeypatch):
    """The compiled program asks for more than a CPU has: 2 PB of it."""
    make = population.Population

    def population_that_bursts(problem, layout, devices):
        if layout.vmap_width > 2:
            jax.jit(lambda: jax.numpy.arange(2e14)).lower().compile()().block_until_ready()
        return make(problem, layout, devices)

    monkeypatch.setattr(tune, "Population", population_that_bursts)
    rates, is_new = tune.table(PROBLEM, INPUTS, [2, 4, 8], DEVICE, print)
    assert is_new
    assert rates.keys() == {2, 4}
    assert rates[4] is None
    monkeypatch.setattr(tune, "measure", None)
    assert tune.table(PROBLEM, INPUTS, [2, 4, 8], DEVICE, say=None) == (rates, False)


def test_other_errors_are_errors(monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(tune, "Population", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        tune.measure(PROBLEM, INPUTS, 2, DEVICE)


DAMAGED = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"measured_for": {}, "run_steps_per_second": {"8": 1.0}}',
    *(b'{"measured_for": KEY, "run_steps_per_second": %b}' % x for x in (b"[]", b"{'8'", b'{"8": -1}', b'{"8": NaN}')),
    *(b'{"measured_for": KEY, "run_steps_per_second": %b}' % x for x in (b'{"8": "9"}', b'{"x": 1}', b"null")),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_cache_is_measured_again(home, accelerator, content):
    key = tune.signature(PROBLEM, DEVICE)
    home.mkdir(parents=True)
    tune.file_of(key).write_bytes(content.replace(b"KEY", json.dumps(key).encode()))
    assert tune.table(PROBLEM, INPUTS, [8], DEVICE, print) == ({8: 1_000.0}, True)
    assert tune.table(PROBLEM, INPUTS, [8], DEVICE, None) == ({8: 1_000.0}, False)


def test_a_cache_that_cannot_be_written_is_no_error(home, accelerator):
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    assert tune.table(PROBLEM, INPUTS, [8], DEVICE, print) == ({8: 1_000.0}, True)


def test_what_training_depends_on_is_measured_apart():
    def name(**changes):
        return tune.file_of(tune.signature(tune.dataclasses.replace(PROBLEM, **changes), DEVICE))

    assert name() == name(eval_every=7) == name(measures=("paper",)) == name(key_threshold=0.5)
    others = [name(n_train=11), name(optimizer="sgd"), name(precision="bfloat16")]
    assert len({name(), *others}) == 4


def test_an_accelerator_is_measured_once(accelerator):
    first = tune.choose(runs(70))
    assert first.how == "measured"
    assert first.layout == Layout(24, 24, 24, 1)
    assert accelerator == [8, 16, 32]
    kind = DEVICE.device_kind
    assert first.text == f"24 runs side by side, measured on this {kind}"
    second = tune.choose(runs(70), say=None)
    assert (second.how, second.layout, second.rates) == ("cached", first.layout, first.rates)
    assert second.text == f"{first.text}, cached"
    assert tune.choose(runs(64)).text == f"32 runs side by side, measured on this {kind}, cached"
    assert accelerator == [8, 16, 32]


def test_a_smaller_sweep_gets_what_it_would_get_alone(accelerator):
    alone = tune.choose(runs(12))
    assert accelerator == [8, 16]
    tune.choose(runs(70))
    assert accelerator == [8, 16, 32]
    after = tune.choose(runs(12))
    assert (after.layout, after.rates) == (alone.layout, alone.rates)


def test_what_is_interrupted_is_kept(accelerator):
    def say(text):
        if text.startswith("  16"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune.choose(runs(70), say=say)
    assert accelerator == [8]
    tune.choose(runs(70))
    assert accelerator == [8, 16, 32]


def test_devices_share_the_runs(accelerator):
    choice = tune.choose(runs(70), devices=[DEVICE] * 2)
    assert choice.layout == Layout(18, 18, 18, 2)
    assert choice.text.startswith("18 runs side by side on each device, measured on this ")


def test_a_plan_measures_nothing(accelerator):
    choice = tune.choose(runs(70), say=None)
    assert accelerator == []
    assert choice.layout == layouts.choose(PROBLEM, 70)
    assert choice.text == "will be measured at the start; 35 runs side by side fit"


def test_little_is_not_worth_measuring(accelerator, monkeypatch):
    assert tune.choose(runs(5)).how == "memory"
    monkeypatch.setattr(tune, "SHORT", 1e15)
    choice = tune.choose(runs(70))
    assert choice.how == "memory"
    assert choice.text == "35 runs side by side, as many as fit: too little work to measure for"
    assert accelerator == []


def test_given_slots_and_cpus_are_not_measured(accelerator, monkeypatch):
    assert tune.choose(runs(70), slots=5) == tune.Choice("given", Layout(5, 5, 5, 1))
    monkeypatch.setattr(layouts, "on_cpu", lambda device: True)
    assert tune.choose(runs(70)) == tune.Choice("cpu rule", layouts.choose(PROBLEM, 70))
    assert accelerator == []


def accelerated():
    c = tiny.get_config()
    c.slots = 0
    c.sweep.weight_decay, c.sweep.seed = (1.0,), tuple(range(20))
    c.steps = 40
    return c


@pytest.mark.long
def test_a_sweep_says_and_records_its_width(tmp_path, accelerator):
    """Measured, trained at that width, and not measured again on the same or another start."""
    train = functools.partial(tiny.train, accelerated())
    assert "width  will be measured" in train(tmp_path / "sweep", plan_only=True)[1]
    assert accelerator == []
    assert not (tmp_path / "sweep").exists()

    status, text = train(tmp_path / "sweep")
    assert status == 0
    assert "8 runs: 1,000 run-steps/s" in text
    assert "width  20 runs side by side, measured on this " in text
    record = json.loads((tmp_path / "sweep" / "config.json").read_text())
    assert record["groups"] == [{"slots": 20, "lanes": 20, "eval_lanes": 20, "n_devices": 1, "block": 0, "n_parts": 0}]
    rates = {"8": 1_000.0, "16": 1_800.0, "32": 3_000.0}
    assert record["width"] == [{"how": "measured", "run_steps_per_second": rates}]

    assert ", cached" in train(tmp_path / "other", plan_only=True)[1]
    status, text = train(tmp_path / "sweep", only=[3])
    assert "bit for bit" in text
    record = json.loads((tmp_path / "sweep" / "only_3" / "config.json").read_text())
    assert record["width"] == [{"how": "recorded"}]
    assert accelerator == [8, 16, 32]


def test_only_the_groups_that_are_wanted_are_measured(tmp_path, monkeypatch, accelerator):
    c = accelerated()
    c.sweep.optimizer = ("adamw", "sgd")
    seen = []
    monkeypatch.setattr(tune, "table", lambda problem, *args: seen.append(problem.optimizer))
    text = tiny.train(c, tmp_path / "sweep", only=[25], plan_only=True)[1]
    assert seen == ["sgd"]
    assert "20 slots per device at vmap width 20" in text


@pytest.fixture
def tpu(monkeypatch, accelerator):
    """The CPU taken for a TPU: on chip there is room for four runs, in all for ten sets of them. Widths measured."""
    rates = {1: 900.0, 2: 1_000.0, 4: 1_100.0, 8: 700.0}
    memory = layouts.needed_bytes(runs(1)[0].problem(), layouts.in_sets(10, 4)) / 0.8 + 1
    monkeypatch.setattr(devices, "memory", lambda device: memory)
    monkeypatch.setattr(layouts, "on_tpu", lambda device: True)
    monkeypatch.setattr(layouts, "on_chip", lambda problem: 4)
    monkeypatch.setattr(
        tune, "measure", lambda problem, inputs, width, device: accelerator.append(width) or rates[width]
    )
    return accelerator


def test_a_tpu_is_measured_from_one_run_on(home, tpu):
    planned = tune.choose(runs(70), say=None)
    assert planned.text == "will be measured at the start; 4 of 36 runs side by side fit"
    first = tune.choose(runs(70))
    assert tpu == [1, 2, 4, 8]
    assert (first.how, first.layout) == ("measured", Layout(36, 4, 4, 1, ON_TPU))
    assert first.text == f"4 of 36 runs side by side, measured on this {DEVICE.device_kind}"
    second = tune.choose(runs(70), say=None)
    assert (second.how, second.layout, second.rates) == ("cached", first.layout, first.rates)
    assert len(list(home.iterdir())) == 1


def test_a_tpu_s_rates_are_not_those_of_the_form_before(tpu, monkeypatch):
    here = tune.signature(PROBLEM, DEVICE)
    monkeypatch.setattr(layouts, "on_tpu", lambda device: False)
    assert here.keys() - tune.signature(PROBLEM, DEVICE).keys() == {"attention"}


@pytest.mark.parametrize(
    ("rates", "n_runs", "width"),
    [
        ({1: 900, 2: 1000, 4: 1060}, 100, 4),
        ({1: 900, 2: 1000, 4: 1020}, 100, 2),  # close to the best is enough
        ({1: 900, 2: 1000, 4: 1060}, 5, 1),  # two sets of 4 take 8 / 1060 s, five of 1 take 5 / 900
        ({1: 900, 2: None}, 100, 1),
        ({1: None}, 100, 1),
    ],
)
def test_the_width_of_a_set_follows_from_the_rates(rates, n_runs, width):
    assert tune.best_set(rates, n_runs) == width


def test_a_tpu_is_measured_with_the_program_that_it_trains_by(tpu, monkeypatch):
    seen = []
    monkeypatch.undo()
    monkeypatch.setattr(layouts, "on_tpu", lambda device: True)
    monkeypatch.setattr(tune, "Population", lambda problem, layout, devices: seen.append(layout) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune.measure(PROBLEM, INPUTS, 4, DEVICE)
    assert seen == [Layout(4, 4, 4, 1, ON_TPU)]


def test_a_directory_that_is_refused_is_not_measured_for(tmp_path, accelerator):
    (tmp_path / "file").write_text("")
    with pytest.raises(workdir.InputError):
        tiny.train(accelerated(), tmp_path / "file")
    assert accelerator == []


def test_an_interrupt_while_measuring_trains_nothing(tmp_path, accelerator):
    stop = StopRequest()
    stop.signal = 15
    status, text = tiny.train(accelerated(), tmp_path / "sweep", stop=stop)
    assert status == 128 + 15
    assert "nothing was trained" in text
    assert not (tmp_path / "sweep" / "config.json").exists()
