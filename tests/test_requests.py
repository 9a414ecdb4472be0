"""The whole job: train, interrupt, resume, rerun, diverge. What is on disk is held against an uninterrupted sweep."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from doubles import StopAfter
from launches import assert_equal_sweeps, ended, launch, wait_for
from tiers import long_but
from tiny import train

import grokjax
from grokjax import sweeps, tasks
from grokjax.core import devices, hosts
from grokjax.core.problem import State
from grokjax.errors import InputError
from grokjax.interp.measure import measure
from grokjax.measures import registry
from grokjax.measures.shared import Shared
from grokjax.report import write
from grokjax.store import check
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.snapshots import find_snapshots, load_params
from grokjax.training import one_run
from grokjax.training.layouts import Layout
from grokjax.training.population import Population
from grokjax.training.request import Request


def test_a_shard_s_directory_sorts_by_its_number(tmp_path):
    c = tiny.get_config()
    assert Request(c, tmp_path).path == tmp_path
    assert Request(c, tmp_path, shard=(3, 16)).path == tmp_path / "shard-03-of-16"
    assert Request(c, tmp_path, shard=(0, 9)).path == tmp_path / "shard-0-of-9"


def test_a_sweep_leaves_what_it_promises(finished):
    path, text = finished
    metrics = pd.read_parquet(path / "metrics")
    assert len(metrics) == 4 * 11
    assert not metrics.duplicated(["run", "step"]).any()
    assert metrics.groupby("run")["step"].apply(sorted).tolist() == [list(range(0, 201, 20))] * 4
    assert metrics["train_loss"].notna().all()
    assert read_runs(path)["status"].tolist() == ["finished"] * 4
    record = json.loads((path / "config.json").read_text())
    assert record["config"]["p"] == 7
    (group,) = record["groups"]
    assert bool(group.pop("n_parts")) == (record["native"] is not None)
    assert group == {"slots": 3, "lanes": 1, "eval_lanes": 1, "n_devices": 1, "block": 0}
    assert record["versions"]["jax"]
    assert {"platform", "device_kind", "cpu_threads", "precision", "git_commit"} <= set(record)
    for expected in ("4 = 2 weight_decay × 2 seed", "run-steps", "left", "memorised", str(path)):
        assert expected in text
    assert write.figure_path(path).read_bytes().startswith(b"\x89PNG")


def test_final_parameters_reproduce_the_last_row(finished):
    import jax.numpy as jnp

    path, _ = finished
    run = sweeps.expand(tiny.get_config("paper")).runs[2]
    inputs = run.inputs()
    params = {key: jnp.asarray(x) for key, x in load_params(path, 2).items()}
    shared = Shared(run.problem().model, 1, params, jnp.asarray(inputs.train_pairs), jnp.asarray(inputs.answers))
    last = read_metrics(path).query("run == 2").iloc[-1]
    mask = np.asarray(shared.train_mask_N)
    np.testing.assert_allclose(np.asarray(shared.loss_N)[mask].mean(), last["train_loss"], rtol=1e-5)


def test_a_finished_sweep_says_so_and_does_nothing(finished):
    path, _ = finished
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*.parquet")}
    status, text = train(tiny.get_config("paper"), path)
    assert status == 0
    assert "is finished: nothing to do" in text
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*.parquet")} == before


def test_another_sweep_is_refused_and_overwrite_starts_again(finished, tmp_path):
    path, _ = finished
    c = tiny.get_config("paper")
    c.learning_rate = 3e-3
    with pytest.raises(InputError, match=r"\(learning_rate of run 0 is 0\.01 there, 0\.003 here\): choose "):
        train(c, path)
    c.sweep.seed = (0,)
    with pytest.raises(InputError, match=r"holds another sweep \(of 4 runs, not 2\): choose another directory, or "):
        train(c, path)
    assert len(read_metrics(path)) == 44
    small = tmp_path / "small"
    c.steps, c.measures = 20, ()
    train(c, small)
    c.learning_rate = 1e-3
    assert train(c, small, overwrite=True)[0] == 0
    assert read_runs(small)["learning_rate"].tolist() == [1e-3] * 2


def test_a_foreign_or_unwritable_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match=r"holds thesis\.tex but no sweep"):
        train(tiny.get_config(), tmp_path)
    with pytest.raises(InputError, match="is a file, but it must be a directory"):
        train(tiny.get_config(), tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="cannot be written"):
        train(tiny.get_config(), "/proc/nowhere/sweep")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_plan_writes_nothing(tmp_path):
    status, text = train(tiny.get_config(), tmp_path / "new", plan_only=True)
    assert status == 0
    assert "800 run-steps in all" in text
    assert list(tmp_path.iterdir()) == []


def test_the_status_is_the_signal_that_any_process_was_sent(tmp_path):
    class Hosts(hosts.Hosts):
        def all_gather(self, mine):
            return [mine, *others]

    request = Request(tiny.get_config(), tmp_path, hosts=Hosts(0, 2))
    others = [signal.SIGTERM]
    assert request.stop_status() == 143
    others = [0]
    assert request.stop_status() == 128
    request.stop.signal = signal.SIGINT
    assert request.stop_status() == 130


@pytest.mark.parametrize("gap", long_but([], [1, 2, 3], exhaustive=[1, 3]))
def test_interrupted_again_and_again_equals_uninterrupted(gap, finished, tmp_path, monkeypatch):
    # Short dispatches, so that interruptions fall inside segments too.
    monkeypatch.setattr("grokjax.training.scheduler.DISPATCH_SECONDS", 1e-6)
    monkeypatch.setattr("grokjax.training.scheduler.Group._size", odd_sizes(gap))
    status, stops = 143, 0
    while status == 143:
        status, _ = train(tiny.get_config("paper"), tmp_path / "a", stop=StopAfter(gap + 1))
        stops += status == 143
        assert stops < 200
    assert stops > 3
    assert status == 0
    assert_equal_sweeps(tmp_path / "a", finished[0])


def odd_sizes(seed):
    """A replacement for Group._size that cuts segments at odd places."""
    rng = np.random.default_rng(seed)

    def size(self):
        left = self.problem.eval_every - self.offset
        n_steps = int(rng.integers(1, left + 1))
        return 1, n_steps, n_steps == left

    return size


@pytest.mark.parametrize(
    ("first", "again"), [("/elsewhere/grokjax/__main__.py", "-m grokjax train"), ("launch.py", "launch.py train")]
)
def test_stopping_says_how_to_go_on(first, again, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [first, "train", "--config=tiny.py", "--overwrite"])
    status, text = train(tiny.get_config(), tmp_path / "a", stop=StopAfter(3))
    assert status == 128 + signal.SIGTERM
    assert "To go on, give the same command again" in text
    assert f"{Path(sys.executable).name} {again} --config=tiny.py\n" in text
    assert train(tiny.get_config(), tmp_path / "a")[1].count("going on from") == 1


def test_more_slots_or_fewer_change_nothing(tmp_path):
    c = tiny.get_config()
    train(c, tmp_path / "three")
    c.slots = 1
    train(c, tmp_path / "one")
    three, one = (read_metrics(tmp_path / name) for name in ("three", "one"))
    pd.testing.assert_frame_equal(three, one, check_exact=True)


def test_only_trains_runs_again_and_compares(finished):
    path, _ = finished
    status, text = train(tiny.get_config("paper"), path, only=[3, 1])
    assert status == 0
    assert f"all 22 rows equal those in {path}, bit for bit" in text
    again = read_metrics(path / "only_1.3")
    assert again["run"].unique().tolist() == [1, 3]
    assert grokjax.open(path / "only_1.3").steps(3) == [0, 100, 200]
    lines, whole = check.check(path)
    assert whole, lines
    assert len(read_metrics(path)) == 44


def test_columns_of_two_definitions_are_not_mixed(tmp_path, monkeypatch):
    """Neither in one table by resuming, nor beside one another by --only."""
    path, c = tmp_path / "sweep", tiny.get_config("paper")
    assert train(c, path, stop=StopAfter(4))[0] == 143
    newer = dataclasses.replace(registry.MEASURES["sum_sq_weights"], version=2)
    with monkeypatch.context() as later:
        later.setitem(registry.MEASURES, "sum_sq_weights", newer)
        with pytest.raises(InputError, match="'sum_sq_weights' as version 1 and as version 2"):
            train(c, path)
    assert train(c, path)[0] == 0
    monkeypatch.setitem(registry.MEASURES, "sum_sq_weights", newer)
    said = " ".join(train(c, path, only=[1])[1].split())
    assert "rows cannot be compared" in said
    assert "version 2 and as version 1 of its definition" in said


def test_a_diverged_run_keeps_its_rows_and_disturbs_no_one(tmp_path):
    c = tiny.get_config("hot")
    c.sweep.seed = (0,)
    c.sweep.weight_decay = (0.0,)
    status, text = train(c, tmp_path / "both")
    assert status == 0
    runs = read_runs(tmp_path / "both")
    assert runs["status"].tolist() == ["finished", "diverged"]
    assert "run 1 diverged" in text
    metrics = read_metrics(tmp_path / "both")
    hot = metrics[metrics["run"] == 1]
    assert hot["train_loss"].notna().tolist() == [True] * (len(hot) - 1) + [False]
    assert hot["step"].tolist() == list(range(0, 20 * len(hot), 20))
    assert hot.iloc[-1]["step"] == runs["last_step"][1]
    c.sweep.learning_rate = (1e-2,)
    train(c, tmp_path / "alone")
    alone = read_metrics(tmp_path / "alone")
    together = metrics[metrics["run"] == 0].reset_index(drop=True)
    # pandas reads an integer column with a null as floats.
    pd.testing.assert_frame_equal(alone, together, check_exact=True, check_dtype=False)
    assert (1, 200) not in find_snapshots(tmp_path / "both")


@pytest.mark.long
def test_groups_follow_one_another(tmp_path):
    c = tiny.get_config()
    c.sweep.p = (5, 7)
    c.sweep.seed = (0,)
    c.steps = 40
    stopped, _ = train(c, tmp_path / "a", stop=StopAfter(3))
    assert stopped == 143
    assert train(c, tmp_path / "a")[0] == 0
    metrics = read_metrics(tmp_path / "a")
    assert len(metrics) == 4 * 3
    assert metrics["p"].value_counts().to_dict() == {5: 6, 7: 6}
    assert [load_params(tmp_path / "a", run)["embed.W_E"].shape for run in (0, 2)] == [(6, 8), (8, 8)]


def test_runs_of_different_lengths_share_slots(tmp_path):
    c = tiny.get_config()
    c.slots = 2
    c.sweep.steps = (20, 100)
    c.sweep.seed = (0,)
    train(c, tmp_path / "a")
    metrics = read_metrics(tmp_path / "a")
    assert metrics.groupby("run")["step"].max().tolist() == metrics.groupby("run")["steps"].first().tolist()
    assert set(find_snapshots(tmp_path / "a")) >= {(0, 20), (1, 100), (2, 20), (3, 100)}


@pytest.mark.long
def test_an_experiments_own_task(tmp_path):
    @tasks.register(name="test_a_plus_2b")
    def a_plus_2b(a, b, p):
        return a + 2 * b

    c = tiny.get_config("paper")
    c.task = "test_a_plus_2b"
    c.steps = 20
    c.sweep.seed = (0,)
    try:
        train(c, tmp_path / "a")
    finally:
        del tasks.TASKS["test_a_plus_2b"]
    metrics = read_metrics(tmp_path / "a")
    assert metrics["train_loss"].notna().all()
    # Not a function of a ± b: the sum measures mean nothing and are null.
    assert metrics["restricted_loss_online"].isna().all()
    assert metrics["excluded_loss_per_freq"].isna().all()
    assert metrics["gini_W_E"].notna().all()


@pytest.mark.long
def test_two_layers_train(tmp_path):
    c = tiny.get_config()
    c.model.n_layers = 2
    c.model.act = "gelu"
    c.steps = 40
    c.sweep.seed = (0,)
    assert train(c, tmp_path / "a")[0] == 0
    losses = read_metrics(tmp_path / "a").pivot(index="step", columns="run", values="train_loss")
    assert (losses.loc[40] < losses.loc[0]).all()


@pytest.fixture(scope="module")
def long_sweep(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "whole"
    assert train(tiny.get_config("long"), path)[0] == 0
    return path


@pytest.fixture(scope="module")
def launched_sweep(tmp_path_factory):
    """The same by launch.py, which makes devices of a CPU's cores."""
    path = tmp_path_factory.mktemp("launched") / "whole"
    status, text = ended(launch(path))
    assert status == 0, text
    return path


@pytest.mark.long
def test_a_cpu_has_a_device_per_core_and_trains_the_same(launched_sweep, long_sweep):
    record = json.loads((launched_sweep / "config.json").read_text())
    assert record["n_devices"] == min(devices.n_cores(), 4) == record["groups"][0]["n_devices"]
    a, b = (read_metrics(path).query("step <= 100") for path in (launched_sweep, long_sweep))
    np.testing.assert_allclose(a["train_loss"], b["train_loss"], rtol=1e-3)


def test_killed_and_resumed_equals_uninterrupted(launched_sweep, tmp_path):
    workdir = tmp_path / "killed"
    process = launch(workdir)
    wait_for(lambda: (workdir / "checkpoints" / "000002").exists(), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "finished" not in set(read_runs(workdir)["status"]) or len(read_metrics(workdir)) < 804
    process = launch(workdir)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert "going on from" in text
    assert_equal_sweeps(workdir, launched_sweep)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number, launched_sweep, tmp_path):
    workdir = tmp_path / "stopped"
    process = launch(workdir)
    wait_for(lambda: (workdir / "checkpoints" / "000000").exists(), process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, text
    assert "To go on, give the same command again" in text
    process = launch(workdir)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert_equal_sweeps(workdir, launched_sweep)


def test_a_directory_in_use_is_refused_by_name(tmp_path):
    workdir = tmp_path / "busy"
    process = launch(workdir)
    try:
        wait_for(lambda: (workdir / "runs.parquet").exists(), process)
        with pytest.raises(InputError, match=f"is in use by process {process.pid}"):
            train(tiny.get_config("long"), workdir)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
def test_a_sweep_over_four_devices_goes_on_over_two_and_over_one(long_sweep, tmp_path):
    """Devices share a CPU's threads, so bits may differ from one device's; the first evaluations and phases do not."""
    workdir = tmp_path / "four"
    for n_devices, checkpoint in ((4, "000001"), (2, "000004")):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
        process = launch(workdir, env={"XLA_FLAGS": flags})
        wait_for(lambda checkpoint=checkpoint: (workdir / "checkpoints" / checkpoint).exists(), process)
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 143, text
        assert f"{n_devices} × cpu" in text
    assert "may differ in the last bits" in text
    status, text = train(tiny.get_config("long"), workdir)
    assert status == 0
    assert "may differ in the last bits" in text
    first, expected = (read_metrics(path) for path in (workdir, long_sweep))
    assert len(first) == len(expected)
    soon = expected["step"] <= 20
    np.testing.assert_allclose(first["train_loss"][soon], expected["train_loss"][soon], rtol=1e-5)
    found, wanted = (read_runs(path)[["memorised_step", "grokked_step"]] for path in (workdir, long_sweep))
    pd.testing.assert_frame_equal(found, wanted)


# --- the stop rule ----------------------------------------------------------------------------------------------------


def stopping_config():
    """Of eight runs on two slots some fulfil the rule early, some late, some not at all."""
    c = tiny.get_config("paper")
    c.slots = 2
    c.steps = 400
    c.snapshot_every = 200
    c.sweep.stop_loss = (0.0, 12.5)
    c.sweep.stop_evals = (2, 7)
    c.sweep.weight_decay = (1.0,)
    return c


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory):
    path = tmp_path_factory.mktemp("stop") / "sweep"
    train(stopping_config(), path)
    return path


def rule(rows):
    """The step at which a run's stop rule is fulfilled, by its definition; None if never."""
    n = rows["stop_evals"].iloc[0]
    below = (rows["test_loss"].astype("float32") < np.float32(rows["stop_loss"].iloc[0])).tolist()
    ends = [i for i in range(n, len(below) + 1) if all(below[i - n : i])]
    return int(rows["step"].iloc[ends[0] - 1]) if ends else None


def test_a_run_stops_where_its_rule_says_and_not_before(stopped_early, tmp_path):
    c = stopping_config()
    c.sweep.stop_loss = (0.0,)
    train(c, tmp_path / "whole")
    whole = read_metrics(tmp_path / "whole")
    metrics, runs = read_metrics(stopped_early), read_runs(stopped_early)
    for run in runs.itertuples():
        mine = metrics[metrics["run"] == run.run]
        twin = whole[(whole["seed"] == run.seed) & (whole["stop_evals"] == run.stop_evals)].assign(
            stop_loss=run.stop_loss
        )
        expected = rule(twin)
        assert run.status == ("finished" if expected in (None, 400) else "stopped")
        assert mine["step"].tolist() == list(range(0, (expected or 400) + 1, 20))
        online = ["train_loss", "test_loss", "restricted_loss_online", "sum_sq_weights"]
        np.testing.assert_array_equal(mine[online], twin[twin["step"] <= mine["step"].max()][online])
    assert runs["status"].value_counts().to_dict().keys() == {"finished", "stopped"}
    assert runs.loc[runs["status"] == "stopped", "last_step"].nunique() == 2


def test_a_stopped_run_has_its_last_model_and_final_keys(stopped_early):

    runs, metrics = read_runs(stopped_early), read_metrics(stopped_early).set_index(["run", "step"])
    for run in runs[runs["status"] == "stopped"].itertuples():
        steps = [step for number, step in find_snapshots(stopped_early) if number == run.run]
        assert max(steps) == run.last_step
        assert run.key_freqs is not None
        found = measure(f"{stopped_early}:{run.run}:{run.last_step}", groups=["losses"])
        row = metrics.loc[(run.run, run.last_step)]
        np.testing.assert_allclose(found["test_loss"], row["test_loss"], rtol=1e-6)
        assert row["restricted_loss"] == row["restricted_loss_online"]


@pytest.mark.long
def test_interrupted_runs_stop_where_uninterrupted_ones_do(stopped_early, tmp_path, monkeypatch):
    monkeypatch.setattr("grokjax.training.scheduler.Group._size", odd_sizes(0))
    status = None
    while status != 0:
        status, _ = train(stopping_config(), tmp_path / "a", stop=StopAfter(15))
    assert_equal_sweeps(tmp_path / "a", stopped_early)


def test_a_finished_sweep_with_stopped_runs_is_finished(stopped_early):
    assert "is finished: nothing to do" in train(stopping_config(), stopped_early)[1]


@pytest.mark.long
def test_lanes_stop_one_by_one(stopped_early):
    runs = [run for run in sweeps.expand(stopping_config()).runs if run.values["seed"] == 0]
    pop = Population(runs[0].problem(), Layout(len(runs), len(runs), 1, 1))
    pop.start({i: run.inputs() for i, run in enumerate(runs)})
    pop.advance(range(len(runs)), 1, 0)
    pop.advance(range(len(runs)), 10, 20)
    early, rest = pop.take(range(len(runs))), None
    pop.advance(range(len(runs)), 1, 20)
    rest = pop.take(range(len(runs)))
    for i in range(len(runs)):
        same = all(np.array_equal(early.params[key][i], rest.params[key][i]) for key in early.params)
        state = State(*(None,) * 2, jax.tree.map(lambda x, i=i: x[i], early.inputs), early.below[i])
        assert same == bool(one_run.stopped(state))
