"""How long a sweep will take: its own clock's figures kept and read back, sums by hand, and the sentences of a plan."""

import json

import jax
import pandas as pd
import pyarrow as pa
import pytest
import tiny
from commands import call
from pretended import plan_of

from grokjax import sweeps
from grokjax.api import requests
from grokjax.cli import train
from grokjax.columns import runs_schema
from grokjax.core import cache
from grokjax.store import files
from grokjax.training import layouts, speeds
from grokjax.training.layouts import Layout
from grokjax.training.request import Request
from grokjax.training.speeds import Speed

RUNS = sweeps.expand(tiny.get_config()).runs
ALONE = Layout(3, 1, 1, 2)  # one after another on each of two devices
WIDE = Layout(8, 4, 4, 2)  # two sets of four on each of two devices
UNKNOWN = "not known: no such program has been timed on this machine; --plan=measure does, in about a minute"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "grokjax" / "speeds"


@pytest.fixture
def planned(tmp_path):
    """A plan, with what is known of each group's speed kept, None for nothing."""

    def plan(known, layout=ALONE, **fields):
        c = tiny.get_config()
        for name, one in fields.items():
            c[name] = one
        sweep = sweeps.expand(c)
        made = plan_of(sweep, tmp_path / "out", [layout] * len(known))
        for runs, speed in zip(sweep.groups(), known, strict=True):
            if speed:
                speeds.keep(speeds.key(runs[0].problem(), sweep.base, layout), *speed)
        return made

    return plan


def lines(plan):
    return speeds.text(plan, speeds.estimates(plan)).splitlines()


# --- sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "expected"),
    [([], 0), ([0], 1), ([3], 1), ([0, 3], 1), ([3, 4], 2), ([0, 8], 1), ([0, 8, 12], 2), (range(16), 2)],
)
def test_sets_that_follow_one_another(slots, expected):
    assert speeds.busiest(WIDE, slots) == expected


@pytest.mark.parametrize(
    ("steps", "layout", "expected"),
    [
        ([200] * 4, Layout(3, 1, 1, 2), 400),
        ([200] * 5, Layout(3, 1, 1, 2), 600),
        ([200, 100, 100], Layout(1, 1, 1, 2), 200),
        ([100, 200, 300], Layout(1, 1, 1, 1), 600),
        ([200] * 5, WIDE, 200),
        ([200] * 9, WIDE, 400),
        ([100, 100, 100, 100, 300], WIDE, 300),
    ],
)
def test_steps_that_follow_one_another(steps, layout, expected):
    assert speeds.steps_in_turn(steps, layout) == expected


def test_the_clock_counts_from_the_first_results(monkeypatch):
    """Compilation until 7; then until 57 four steps of two sets each, and two of one."""
    times = iter([5.0, 7.0, 20.0, 40.0, 57.0])
    monkeypatch.setattr(speeds.time, "monotonic", lambda: next(times))
    clock = speeds.Clock()
    clock.took_in(WIDE, range(16), 0)
    clock.took_in(WIDE, range(16), 4)
    clock.took_in(WIDE, [0], 2)
    clock.keep({"a": 1})
    assert speeds.read({"a": 1}) == Speed(5.0, 2.0)


def test_a_clock_that_starts_with_steps_knows_no_compilation(monkeypatch):
    """As where a sweep goes on: the first results have taken compilation and steps."""
    times = iter([0.0, 7.0, 8.0, 9.0])
    monkeypatch.setattr(speeds.time, "monotonic", lambda: next(times))
    speeds.keep({"a": 1}, 9.0, 3.0)
    clock = speeds.Clock()
    clock.keep({"a": 1})  # nothing has been seen yet
    assert speeds.read({"a": 1}) == Speed(9.0, 3.0)
    clock.took_in(WIDE, [0], 4)
    clock.took_in(WIDE, [0], 4)
    clock.keep({"a": 1})
    assert speeds.read({"a": 1}) == Speed(0.5, 3.0)


def test_the_longest_compilation_is_kept_and_the_last_step():
    for step, compilation in ((1.0, 30.0), (2.0, 4.0), (1.5, None)):
        speeds.keep({"a": 1}, step, compilation)
    assert speeds.read({"a": 1}) == Speed(1.5, 30.0)


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "figures", [{}, {"step": 1.0}, {"step": "1", "compilation": 1.0}, {"step": 0.0, "compilation": 1.0}]
)
def test_damaged_figures_are_none(figures):
    cache.keep(speeds.KIND, {"a": 1}, figures)
    assert speeds.read({"a": 1}) is None


def test_figures_of_other_programs_are_apart():
    def name(layout=WIDE, every=20, **fields):
        c = tiny.get_config()
        for field, value in fields.items():
            c[field] = value
        sweep = sweeps.expand(c)
        return cache.file_of(speeds.KIND, speeds.key(sweep.runs[0].problem(), sweep.base, layout))

    assert name() == name(steps=400) == name(weight_decay=3.0) == name(layout=Layout(16, 4, 4, 2))
    others = [name(eval_every=40), name(measures=("paper",)), name(p=11), name(optimizer="sgd"), name(slow_every=100)]
    others += [name(layout=Layout(8, 8, 4, 2)), name(layout=Layout(8, 4, 4, 1))]
    assert len({name(), *others}) == 8


# --- sentences --------------------------------------------------------------------------------------------------------


def test_one_group(planned):
    """Four runs of 200 steps on two devices: 400 steps in turn of half a second."""
    assert lines(planned([(0.5, 20.0)])) == [
        "     time  about 3 min 40 s, as timed on this machine: compilation 20 s at most, training 3 min 20 s"
    ]
    assert lines(planned([None], p=11)) == [f"     time  {UNKNOWN}"]


def test_several_groups(planned):
    c = tiny.get_config()
    c.sweep.p = (5, 7)
    assert lines(planned([(0.5, 20.0), (1.0, 10.0)], sweep=c.sweep)) == [
        "     time  about 10 min 30 s, as timed on this machine, one group after another",
        "           4 runs of p 5: compilation 20 s at most, training 3 min 20 s",
        "           4 runs of p 7: compilation 10 s at most, training 6 min 40 s",
    ]
    c.sweep.p = (5, 11)
    assert lines(planned([(0.5, 20.0), None], sweep=c.sweep)) == [
        "     time  about 3 min 40 s, as timed on this machine, one group after another; 1 of 2 groups are not known, "
        "which --plan=measure times",
        "           4 runs of p 5: compilation 20 s at most, training 3 min 20 s",
        "           4 runs of p 11: not known",
    ]
    c.sweep.p = tuple(range(13, 35))
    assert lines(planned([None] * 22, sweep=c.sweep))[-1] == "           and 2 more groups"


def test_as_json(planned):
    made = planned([(0.5, 20.0)])
    told = speeds.record(made, speeds.estimates(made))
    assert (told["seconds"], told["runs"], told["run_steps"]) == (220.0, 4, 800)
    (group,) = told["groups"]
    assert (group["runs"], group["compilation_seconds"], group["training_seconds"]) == ([0, 1, 2, 3], 20.0, 200.0)
    made = planned([None], p=11)
    told = speeds.record(made, speeds.estimates(made))
    assert told["seconds"] is told["groups"][0]["training_seconds"] is None


# --- for real ---------------------------------------------------------------------------------------------------------


def test_nothing_is_timed_for_a_plan_unless_it_is_asked_for(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(speeds, "measure", lambda made, tell: timed.append(made))
    request = Request(tiny.get_config(), tmp_path / "out")
    requests.plan(request)
    assert timed == []
    made = requests.plan(request, measure=True)
    assert timed == [made]


def test_what_a_sweep_took_is_what_the_next_plan_says(tmp_path, home):
    c = tiny.get_config()
    assert not home.exists()
    tiny.train(c, tmp_path / "first")
    (file,) = home.iterdir()
    kept = json.loads(file.read_text())
    assert kept["measured_for"]["device_kind"] == jax.devices()[0].device_kind
    c.sweep.seed = tuple(range(10))  # of the same program
    (one,) = speeds.estimates(requests.plan(Request(c, tmp_path / "second")))
    assert one.speed == Speed(kept["step"], kept["compilation"])
    in_turn = -(-20 // one.layout.n_devices) * 200
    assert one.training == pytest.approx(kept["step"] * in_turn)
    assert not (tmp_path / "second").exists()


def test_a_plan_of_a_sweep_that_has_begun_is_of_what_is_left(tmp_path, capsys):
    c = tiny.get_config()
    assert tiny.train(c, tmp_path / "out")[0] == 0
    table = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    done = requests.done(requests.plan(Request(c, tmp_path / "out")))
    assert done == dict.fromkeys(range(4), 200)
    schema = runs_schema()
    begun = table.assign(status=["finished", "stopped", "training", "waiting"], last_step=[200, 50, 80, None])
    files.write_parquet(pa.Table.from_pandas(begun, schema), tmp_path / "out" / "runs.parquet")
    made = requests.plan(Request(c, tmp_path / "out"))
    assert requests.done(made) == {0: 200, 1: 200, 2: 80, 3: 0}
    (one,) = speeds.estimates(made, requests.done(made))
    assert one.left == [0, 0, 120, 200]
    assert " for the 320 run-steps that are left, as timed " in speeds.text(made, [one])
    assert speeds.record(made, [one])["run_steps_left"] == 320
    (one,) = speeds.estimates(made, dict.fromkeys(range(4), 200))
    assert one.seconds == 0
    assert speeds.text(made, [one]) == "     time  none: every run is trained"
    assert requests.done(requests.plan(Request(c, tmp_path / "out", overwrite=True))) == {}
    (tmp_path / "out" / "runs.parquet").write_bytes(b"damaged")
    assert requests.done(requests.plan(Request(c, tmp_path / "out"))) == {}


def planning(capsys, *args):
    return call(capsys, train.main, "--config=tests/tiny.py", *args)


def test_measuring_a_plan(tmp_path, capsys, monkeypatch, home):
    monkeypatch.setattr(speeds, "TIMING_SECONDS", 0.01)
    args = [f"--workdir={tmp_path / 'out'}", "--config.sweep.model.d_mlp=8,16"]
    status, out, err = planning(capsys, *args, "--plan")
    assert (status, err) == (0, "")
    assert f"     time  {UNKNOWN}\n" in out
    assert not home.exists()
    status, out, err = planning(capsys, *args, "--plan=measure")
    assert (status, err) == (0, "")
    assert "timing 4 runs of model.d_mlp 8 …\n" in out
    assert "\n     time  about " in out
    assert len(list(home.iterdir())) == 2
    status, out, err = planning(capsys, *args, "--plan", "--json")
    told = json.loads(out)
    assert (status, err, told["workdir"]) == (0, "", str(tmp_path / "out"))
    assert told["seconds"] > 0
    assert all(group["training_seconds"] > 0 for group in told["groups"])
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_groups_of_one_program_are_timed_once(tmp_path, monkeypatch):
    """Here with all runs under one vmap, as on an accelerator."""
    monkeypatch.setattr(speeds, "TIMING_SECONDS", 0.01)
    c = tiny.get_config()
    c.sweep.task = ("quadratic", "random", "add")
    sweep = sweeps.expand(c)
    made = plan_of(sweep, tmp_path, [layouts.together(sweep.runs[0].problem(), 4)] * 3)
    said = []
    speeds.measure(made, said.append)
    assert said == ["timing 4 runs of task quadratic …", "timing 4 runs of task add …"]
    assert all(one.seconds > 0 for one in speeds.estimates(made))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, home):
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    assert tiny.train(tiny.get_config(), tmp_path / "out")[0] == 0
    assert "run-steps" in tiny.train(tiny.get_config(), tmp_path / "other", plan_only=True)[1]
