"""Sweeps that grow: what is new is trained as a fresh sweep would train it, and what is there stays as it is."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
from doubles import StopAfter
from tiers import long_but

import grokjax
from grokjax.core.native import kernels
from grokjax.errors import InputError
from grokjax.report import write
from grokjax.store import files, final_states
from grokjax.store.metrics import parts, read_metrics, read_part, read_runs
from grokjax.store.records import read_record
from grokjax.store.snapshots import find_snapshots, load_params


class Killed(BaseException):
    """In place of SIGKILL."""


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(write, "write", lambda path: None)


def config(seeds=(0, 1), decays=(0.0, 1.0), **fields):
    c = tiny.get_config("paper")
    c.steps, c.slots, c.checkpoint_every_steps = 100, 2, 40
    c.sweep.seed, c.sweep.weight_decay = seeds, decays
    for name, value in fields.items():
        c[name] = value
    return c


def seeds_of(c):
    """As an experiment's get_sweep."""
    return [{"seed": seed, "weight_decay": 0.3 * seed} for seed in c.sweep.seed]


def train(path, c, **more):
    status, text = tiny.train(c, path, **more)
    assert status == 0, text
    return text


def contents(path):
    """The digest of every part and every file of a snapshot."""
    kept = [*(path / "metrics").iterdir(), *(file for file in (path / "snapshots").rglob("*") if file.is_file())]
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept if file.is_file()
    }


def assert_kept(path, before, runs):
    """Parts and snapshots are there byte for byte, rows of runs.parquet unchanged."""
    after = contents(path)
    assert {name: after.get(name) for name in before} == before
    pd.testing.assert_frame_equal(read_runs(path).head(len(runs)), runs, check_exact=True)


def assert_as_fresh(path, fresh):
    """Every run of a fresh sweep is in the directory: rows, parameters and its row of runs.parquet, bit for bit."""
    mine, theirs = read_runs(path), read_runs(fresh)
    number = mine.set_index("identity")["run"].to_dict()
    same = {run: number[identity] for run, identity in zip(theirs["run"], theirs["identity"], strict=True)}
    for read in (read_runs, read_metrics):
        wanted, have = read(fresh), read(path)
        wanted["run"] = wanted["run"].map(same)
        by = [name for name in ("run", "step") if name in wanted]
        wanted = wanted.sort_values(by, ignore_index=True)
        have = have[have["run"].isin(same.values())].sort_values(by, ignore_index=True)
        pd.testing.assert_frame_equal(have[list(wanted)], wanted, check_exact=True, check_dtype=False)
    snapshots = find_snapshots(fresh)
    assert {(same[run], step) for run, step in snapshots} <= set(find_snapshots(path))
    for run, step in snapshots:
        for name, x in load_params(fresh, run, step).items():
            np.testing.assert_array_equal(x, load_params(path, same[run], step)[name])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Two decays and two seeds."""
    path = tmp_path_factory.mktemp("extension") / "begun"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write", lambda path: None)
        train(path, config())
    return path


@pytest.fixture
def path(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "a")


# --- more seeds and values ------------------------------------------------------------------------------------------


def test_more_seeds_and_values_are_those_of_a_fresh_sweep(path, tmp_path):
    before, runs = contents(path), read_runs(path)
    wanted = config((0, 1, 2), (0.0, 0.5, 1.0))
    text = train(path, wanted, extend=True)
    assert "  extends  4 runs that are there and stay; 5 new" in text
    assert_kept(path, before, runs)
    train(tmp_path / "fresh", wanted)
    assert_as_fresh(path, tmp_path / "fresh")
    assert read_record(path)["axes"] == {"weight_decay": [0.0, 1.0, 0.5], "seed": [0, 1, 2]}
    assert len(read_record(path)["groups"]) == 1


def test_the_extended_command_goes_on_by_itself(path):
    wanted = config((0, 1, 2))
    assert tiny.train(wanted, path, extend=True, stop=StopAfter(4))[0] == 143
    assert read_runs(path)["run"].tolist() == [0, 1, 2, 3, 4, 5]
    train(path, wanted)  # without --extend, under the directory's numbers
    assert read_runs(path)[["weight_decay", "seed"]].to_numpy().tolist()[4:] == [[0.0, 2], [1.0, 2]]
    assert "is finished: nothing to do" in train(path, wanted)
    assert "is finished: nothing to do" in train(path, wanted, extend=True)


def test_a_run_of_it_is_trained_again_under_the_directorys_number(path):
    wanted = config((0, 1, 2))
    train(path, wanted, extend=True)
    assert f"rows equal those in {path}, bit for bit" in train(path, wanted, only=[4])


@pytest.mark.long
@pytest.mark.exhaustive
def test_it_may_be_extended_twice_and_before_it_is_finished(tmp_path):
    path, wanted = tmp_path / "a", config((0, 1, 2, 3))
    assert tiny.train(config(), path, stop=StopAfter(5))[0] == 143
    assert tiny.train(config((0, 1, 2)), path, extend=True, stop=StopAfter(4))[0] == 143
    train(path, wanted, extend=True)
    train(tmp_path / "fresh", wanted)
    assert_as_fresh(path, tmp_path / "fresh")
    assert [one["from_run"] for one in read_record(path)["extensions"]] == [4, 6]


def test_fewer_values_leave_what_is_there(path):
    before, runs = contents(path), read_runs(path)
    wanted = config((1, 2), (1.0,))
    assert (
        "4 runs that are there and stay (3 not asked for by this command); 1 new"
        in tiny.train(wanted, path, plan_only=True, extend=True)[1]
    )
    assert contents(path) == before
    train(path, wanted, extend=True)
    assert_kept(path, before, runs)
    assert len(read_runs(path)) == 5


@pytest.mark.long
def test_a_new_directory_is_begun(tmp_path):
    train(tmp_path / "a", config((0,), (1.0,)), extend=True)
    assert read_runs(tmp_path / "a")["status"].tolist() == ["finished"]


def test_python_extends(path, monkeypatch):
    monkeypatch.setattr(grokjax.training.request.Request, "spread", False, raising=False)
    results = grokjax.train(config((0, 1, 2)), path, extend=True, quiet=True)
    assert len(results.runs) == 6


# --- new axes, and lists of runs ------------------------------------------------------------------------------------


def test_a_new_axis_has_the_configs_value_for_the_runs_that_are_there(path, tmp_path):
    runs, rows = read_runs(path), read_metrics(path)
    wanted = config()
    wanted.sweep.learning_rate = (1e-2, 3e-3)
    train(path, wanted, extend=True)
    pd.testing.assert_frame_equal(read_runs(path).head(4), runs, check_exact=True)
    now = read_metrics(path)
    assert set(now[now["run"] < 4]["learning_rate"]) == {1e-2}
    pd.testing.assert_frame_equal(now[now["run"] < 4][list(rows)].reset_index(drop=True), rows, check_exact=True)
    train(tmp_path / "fresh", wanted)
    assert_as_fresh(path, tmp_path / "fresh")
    assert list(now) == list(read_metrics(tmp_path / "fresh"))


def test_a_new_axis_without_the_configs_value(path):
    wanted = config((0,), (1.0,))
    wanted.sweep.learning_rate = (3e-3,)
    train(path, wanted, extend=True)
    assert read_metrics(path).groupby("run")["learning_rate"].first().tolist() == [1e-2] * 4 + [3e-3]


@pytest.mark.long
def test_a_new_axis_that_makes_groups(path, tmp_path):
    before = read_record(path)["groups"]
    wanted = config((0,), (1.0,))
    wanted.sweep.p = (7, 11)
    train(path, wanted, extend=True)
    assert read_record(path)["groups"][:1] == before
    assert len(read_record(path)["groups"]) == 2
    train(tmp_path / "fresh", wanted)
    assert_as_fresh(path, tmp_path / "fresh")


def test_splits_of_their_own_come_with_the_seed_that_was_used(path):
    wanted = config((0,), (1.0,))
    wanted.sweep.split_seed = (None, 5)
    train(path, wanted, extend=True)
    found = read_metrics(path).groupby("run")["split_seed_used"].first()
    assert found.tolist() == [0, 1, 0, 1, 5]


@pytest.mark.long
def test_a_list_of_runs_that_grows(tmp_path):
    path, wanted = tmp_path / "a", config((3, 2, 1, 0), None)
    train(path, config((0, 2), None), get_sweep=seeds_of)
    before, runs = contents(path), read_runs(path)
    train(path, wanted, get_sweep=seeds_of, extend=True)
    assert_kept(path, before, runs)
    assert read_runs(path)["seed"].tolist() == [0, 2, 3, 1]
    train(tmp_path / "fresh", wanted, get_sweep=seeds_of)
    assert_as_fresh(path, tmp_path / "fresh")


# --- more steps -------------------------------------------------------------------------------------------------------


def lasting(steps, seeds=(0, 1), decays=(0.0, 1.0), **fields):
    c = config(seeds, decays, keep_final_state=1, snapshot_every=20, **fields)
    c.steps = steps
    return c


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Four runs of 160 steps."""
    path = tmp_path_factory.mktemp("extension") / "long"
    train(path, lasting(160))
    return path


@pytest.fixture
def short(tmp_path):
    """The same of 80."""
    train(tmp_path / "short", lasting(80))
    return tmp_path / "short"


def without_keys(rows):
    final = [name for name in rows if f"{name}_online" in rows] + ["key_freqs"]
    return rows.drop(columns=[name for name in final if name in rows])


def test_runs_go_on_as_if_they_had_been_that_long(short, long):
    before, rows = contents(short), read_metrics(short)
    text = train(short, lasting(160), extend=True)
    assert "  extends  4 runs that are there and go on to step 160; 0 new" in text
    assert_as_fresh(short, long)
    assert len(read_metrics(short)) == len(read_metrics(long))
    snapshots = {name: digest for name, digest in before.items() if name.startswith("snapshots")}
    assert {name: contents(short)[name] for name in snapshots} == snapshots
    now = read_metrics(short)
    now = now[now["step"] <= 80].reset_index(drop=True)
    pd.testing.assert_frame_equal(without_keys(now), without_keys(rows), check_exact=True)
    assert read_record(short)["config"]["steps"] == 160
    assert {step for _, step in final_states.find(short)} == {160}


@pytest.mark.long
def test_runs_may_go_on_twice_stopped_between_and_beside_new_ones(short, tmp_path):
    wanted = lasting(160, (0, 1, 2))
    assert tiny.train(lasting(120), short, extend=True, stop=StopAfter(4))[0] == 143
    train(short, lasting(120))
    assert tiny.train(wanted, short, extend=True, stop=StopAfter(4))[0] == 143
    train(short, wanted)
    train(tmp_path / "fresh", wanted)
    assert_as_fresh(short, tmp_path / "fresh")


@pytest.mark.parametrize("n", long_but([], [1, 2, 3, 5, 8, 12], exhaustive=[1, 3, 8]))
def test_killed_while_it_goes_on(short, long, n, monkeypatch):
    put, left = files._put, [n, n]

    def put_or_die(data, place):
        left[0] -= 1
        if left[0] == 0:
            left.pop(0)
            raise Killed
        put(data, place)

    monkeypatch.setattr(files, "_put", put_or_die)
    for _ in range(2):
        with pytest.raises(Killed):
            tiny.train(lasting(160), short, extend=True)
    monkeypatch.setattr(files, "_put", put)
    train(short, lasting(160), extend=True)
    assert_as_fresh(short, long)
    assert len(read_metrics(short)) == len(read_metrics(long))


@pytest.mark.long
def test_a_damaged_final_state_means_from_nothing(short, long):
    for file in (short / "final_states").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(b"?")
    text = train(short, lasting(160), extend=True)
    assert "again, with the same results" in text
    assert_as_fresh(short, long)


@pytest.mark.long
def test_stopped_runs_stay_as_they_are(tmp_path):
    rule = {"stop_loss": 1e9, "stop_evals": 3}
    for name, steps in {"a": 40, "fresh": 120}.items():
        train(tmp_path / name, lasting(steps, **rule))
    assert read_runs(tmp_path / "a")["status"].tolist() == ["finished"] * 4  # at the step at which the rule holds
    train(tmp_path / "a", lasting(120, **rule), extend=True)
    assert read_runs(tmp_path / "a")["status"].tolist() == ["stopped"] * 4
    assert read_runs(tmp_path / "a")["last_step"].tolist() == [40] * 4
    assert {step for _, step in final_states.find(tmp_path / "a")} == {40}  # the last ones that there are
    assert_as_fresh(tmp_path / "a", tmp_path / "fresh")


def test_the_plan_says_how_large_the_states_are(tmp_path):
    text = tiny.train(lasting(80), tmp_path, plan_only=True)[1]
    assert "of final states" in text
    assert "of final states" not in tiny.train(config(), tmp_path, plan_only=True)[1]


def test_longer_runs_are_refused_where_they_would_not_be_the_same(path, short):
    c = config()
    c.steps = 200
    assert refused(path, c, extend=True).startswith(
        f"--extend: the runs in {path} cannot go on from step 100 to 200, since the final state of runs 0-3 was not"
    )
    assert "--extend" not in refused(path, c)
    assert "--extend goes on with the runs that are there; or" in refused(short, lasting(160))
    assert "without 2 of them that this command does not ask for" in refused(short, lasting(160, (0,)), extend=True)
    assert "has config.steps 80, but this one has 40" in refused(short, lasting(40), extend=True)


def test_a_step_between_snapshots_is_no_place_to_go_on_from(tmp_path):
    c = lasting(100)
    c.snapshot_every = 40
    train(tmp_path / "a", c)
    c.steps = 200
    assert "100 is no multiple of snapshot_every, 40" in refused(tmp_path / "a", c, extend=True)


# --- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", long_but([2], range(1, 13), exhaustive=[3, 4, 6, 7, 9, 10, 11]))
def test_killed_at_any_write_it_goes_on_the_same(path, n, tmp_path, monkeypatch, fresh_with_axis):
    """Before the n-th file is put in its place, twice in a row."""
    put, left = files._put, [n, n]

    def put_or_die(data, place):
        left[0] -= 1
        if left[0] == 0:
            left.pop(0)
            raise Killed
        put(data, place)

    wanted = with_axis()
    monkeypatch.setattr(files, "_put", put_or_die)
    for _ in range(2):
        with pytest.raises(Killed):
            tiny.train(wanted, path, extend=True)
        assert len(read_metrics(path).columns) > 5
        assert set(read_metrics(path)["run"]) >= {0, 1, 2, 3}
    monkeypatch.setattr(files, "_put", put)
    train(path, wanted, extend=True)
    assert_as_fresh(path, fresh_with_axis)


def with_axis():
    wanted = config((0, 1), (1.0,))
    wanted.sweep.learning_rate = (1e-2, 3e-3)
    return wanted


@pytest.fixture(scope="module")
def fresh_with_axis(tmp_path_factory):
    path = tmp_path_factory.mktemp("extension") / "fresh"
    train(path, with_axis())
    return path


# --- by C++ ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.exhaustive
@pytest.mark.skipif(bool(kernels.unavailable()), reason="no compiler here")
def test_new_runs_have_the_bits_of_a_fresh_sweep_by_cpp(tmp_path):
    path = tmp_path / "a"

    def wide(seeds):
        c = config(seeds, (1.0,), p=23, train_fraction=0.5)
        c.model.d_model, c.model.d_mlp, c.model.n_heads = 32, 64, 2
        return c

    train(path, wide((0, 1)))
    assert read_record(path)["groups"][0]["n_parts"] > 0
    before, runs = contents(path), read_runs(path)
    train(path, wide((0, 1, 2)), extend=True)
    assert_kept(path, before, runs)
    train(tmp_path / "fresh", wide((0, 1, 2)))
    assert_as_fresh(path, tmp_path / "fresh")


@pytest.mark.long
@pytest.mark.skipif(bool(kernels.unavailable()), reason="no compiler here")
def test_axes_and_steps_have_the_bits_of_a_fresh_sweep_by_cpp(tmp_path):
    """First an axis that shares the compilation, then one that makes groups, then more steps for all of them."""
    path = tmp_path / "a"

    def wide(steps, **axes):
        c = lasting(steps, (0,), (1.0,), p=23, train_fraction=0.5)
        c.model.d_model, c.model.d_mlp, c.model.n_heads = 32, 64, 2
        for name, values in axes.items():
            c.sweep[name] = values
        return c

    axes = {"beta2": (0.98, 0.99), "p": (23, 29)}
    train(path, wide(60))
    assert read_record(path)["groups"][0]["n_parts"] > 0
    train(path, wide(60, beta2=axes["beta2"]), extend=True)
    train(path, wide(60, **axes), extend=True)
    assert tiny.train(wide(120, **axes), path, extend=True, stop=StopAfter(4))[0] == 143
    train(path, wide(120, **axes))
    assert [group["n_parts"] > 0 for group in read_record(path)["groups"]] == [True, True]
    train(tmp_path / "fresh", wide(120, **axes))
    assert_as_fresh(path, tmp_path / "fresh")


# --- refused --------------------------------------------------------------------------------------------------------


def refused(path, c, **more):
    before = contents(path) | {"config.json": (path / "config.json").read_text()}
    with pytest.raises(InputError) as error:
        tiny.train(c, path, **more)
    assert contents(path) | {"config.json": (path / "config.json").read_text()} == before
    return str(error.value)


def test_the_refusal_names_extend(path):
    assert refused(path, config((0, 1, 2))) == (
        f"--workdir={path} holds another sweep (of 4 runs, not 6): --extend trains the 2 runs that are new there and "
        "leaves what is there as it is; or choose another directory, or --overwrite to start again there."
    )
    assert "(of 4 runs, not 2): --extend leaves what is there as it is; or choose" in refused(path, config((0,)))
    assert "--extend trains the 1 run that is new there and" in refused(path, config((2,), (1.0,)))


def test_what_is_no_axis_must_be_the_same(path):
    assert "(of 4 runs, not 6): choose another directory" in refused(path, config((0, 1, 2), learning_rate=3e-3))
    assert refused(path, config((0, 1, 2), learning_rate=3e-3), extend=True) == (
        f"--extend: the sweep in {path} has config.learning_rate 0.01, but this one has 0.003: to have runs of both, "
        "give config.sweep.learning_rate = (0.01, 0.003)."
    )
    text = refused(path, config((0, 1, 2), snapshot_every=20), extend=True)
    assert text.endswith("this one has 20: it is one for all runs of a sweep, so choose another directory.")


def test_extend_goes_alone(path):
    for flag, more in {"only": {"only": [1]}, "overwrite": {"overwrite": True}}.items():
        text = refused(path, config((0, 1, 2)), extend=True, **more)
        assert text == f"--extend and --{flag} do not go together: give one of them."


def test_a_part_of_a_sweep_is_not_extended(tmp_path):
    train(tmp_path / "a", config(), only=[1])
    assert "holds a part of this sweep" in refused(tmp_path / "a", config(), extend=True)


def test_other_parts_that_are_no_axis_are_still_damage(path):
    place = parts(path / "metrics")[0]
    more = read_part(place)
    files.write_parquet(more.append_column("note", more["run"]), place.with_name("part-000009.parquet"))
    with pytest.raises(files.Damaged, match="has other columns"):
        read_metrics(path)


def test_the_plan_says_where_the_layout_is_narrower_than_the_machine(path, monkeypatch):
    monkeypatch.setattr("grokjax.core.devices.n_cores", lambda: 64)
    n = read_record(path)["groups"][0]["n_devices"]
    text = tiny.train(config((0, 1, 2)), path, plan_only=True, extend=True)[1]
    if n < 6:
        assert f"2 new, on {n} device{'s' * (n > 1)} as it was begun, since bits depend on it" in " ".join(text.split())
        assert "a directory of their own would have 6" in " ".join(text.split())


def test_a_record_tells_of_what_came_when(path):
    train(path, config((0, 1, 2)), extend=True)
    record = json.loads((path / "config.json").read_text())
    (told,) = record["extensions"]
    assert told["from_run"] == 4
    assert told["n_devices"] == record["n_devices"]
