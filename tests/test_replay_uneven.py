"""Whose keys and whose models: runs that end at different steps, stop, diverge or are not done, in several folders."""

import shutil

import known
import numpy as np
import pandas as pd
import pytest
from known import ENDED, RUNS, P, key, number, snapshot_steps

from grokjax import config, sweeps
from grokjax.core.hosts import Hosts
from grokjax.errors import InputError
from grokjax.interp import replay
from grokjax.interp.circuit import registry as registry_lib
from grokjax.interp.circuit.registry import NUMBERS
from grokjax.interp.circuit.runs import circuits_of, listed
from grokjax.interp.replay import Replay
from grokjax.measures import registry
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import read_metrics
from grokjax.store.snapshots import find_snapshots
from grokjax.training import final_keys
from grokjax.training.final_keys import finalise, replay_runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    known.register()
    yield known.make(tmp_path_factory.mktemp("known") / "sweep")
    known.unregister()


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def mask(*keys):
    return [k in keys for k in range(1, 1 + P // 2)]


def last(run):
    return RUNS[run][2]


# --- final keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 3])
def test_final_keys_are_in_the_order_of_the_runs(lanes, made):
    sweep = known.sweep()
    order = [4, 1, 6, 0, 2]
    found = find_snapshots(made)
    keys = final_keys.final_keys(made, found, sweep.runs[0].problem(), [sweep.runs[n] for n in order], lanes)
    assert keys.tolist() == [mask(key(run, last(run))) for run in order]


@pytest.mark.parametrize("lanes", [1, 3])
def test_each_snapshot_is_measured_with_the_keys_of_its_run(lanes, made):
    sweep = known.sweep()
    order = [4, 1, 0]
    found = find_snapshots(made)
    problem = sweep.runs[0].problem()
    keys = np.array([mask(2, run % 5 + 1) for run in order])
    columns = registry.final(("test_known",))
    frame = replay_runs(found, [sweep.runs[n] for n in order], columns, problem, keys, lanes)
    where = list(zip(frame["run"], frame["step"], strict=True))
    assert sorted(where) == [(run, step) for run in sorted(order) for step in snapshot_steps(run)]
    for (run, step), some, one in zip(where, frame["known_keys"], frame["known_number"], strict=True):
        assert some.tolist() == mask(2, run % 5 + 1)
        assert one == number(run, step)


def assert_filled(path, runs):
    """The final columns of these runs are filled at their snapshots, and nothing else is."""
    frame = read_metrics(path).set_index(["run", "step"])
    there = {(run, step) for run in runs for step in snapshot_steps(run)}
    pairs_of = [run.inputs().train_pairs.sum() for run in known.sweep().runs]
    assert len(set(pairs_of)) == len(RUNS)
    for name in ("known_keys", "known_number", "known_pairs"):
        assert set(frame.index[frame[name].notna()]) == there
    for run, step in there:
        assert frame.loc[(run, step), "known_keys"].tolist() == mask(key(run, last(run)))
        assert frame.loc[(run, step), "known_number"] == number(run, step)
        assert frame.loc[(run, step), "known_pairs"] == pairs_of[run]
    assert len(frame) == sum(last // 20 + 1 for _, _, last, _ in RUNS)
    assert frame["seed"].tolist() == [RUNS[run][0] for run, _ in frame.index]


@pytest.mark.parametrize(("runs", "lanes"), [([4, 1, 6, 0, 2], 1), ([2, 0], 3), ([6], 1)])
def test_settling_fills_in_each_runs_own(runs, lanes, path):
    sweep, ledger = known.sweep(), Ledger(known.sweep().runs)
    finalise(path, [sweep.runs[n] for n in runs], ledger, lanes)
    found = {run: record["key_freqs"] for run, record in ledger.records.items()}
    assert found == {run: [key(run, last(run))] if run in runs else None for run in range(len(RUNS))}
    assert_filled(path, runs)


class Told(Exception):
    """What a process has told the others."""


class Second(Hosts):
    """The second of two processes, which ends once it has told its part."""

    def all_gather(self, mine):
        raise Told(mine)


def test_processes_share_the_runs(path):
    sweep, ledger = known.sweep(), Ledger(known.sweep().runs)
    runs = [sweep.runs[n] for n in (4, 1, 6, 0, 2)]
    with pytest.raises(Told) as told:
        finalise(path, runs, ledger, hosts=Second(1, 2))
    (theirs,) = told.value.args
    assert set(theirs["run"]) == {1, 0}

    class First(Hosts):
        def all_gather(self, mine):
            return [mine, theirs]

        def barrier(self):
            pass

    finalise(path, runs, ledger, hosts=First(0, 2))
    assert_filled(path, ENDED)
    assert [ledger.records[run]["key_freqs"] for run in ENDED] == [[key(run, last(run))] for run in ENDED]


# --- the command ------------------------------------------------------------------------------------------------------


def test_replay_takes_the_runs_that_have_ended(path):
    assert replay.replay(path, Replay()) == path / "metrics"
    assert_filled(path, ENDED)


def test_a_table_of_its_own_has_the_same(path):
    folder = replay.replay(path, Replay(threshold=0.5))
    assert [file.name for file in folder.glob("*.parquet")] == ["runs_0-2.4.6.parquet"]
    table = pd.read_parquet(folder)
    assert sorted(zip(table["run"], table["step"], strict=True)) == [(r, s) for r in ENDED for s in snapshot_steps(r)]
    for row in table.itertuples():
        assert row.known_keys.tolist() == mask(key(row.run, last(row.run)))
        assert row.known_number == number(row.run, row.step)
        assert (row.seed, row.steps) == RUNS[row.run][:2]


def test_some_runs_alone(path):
    folder = replay.replay(path, Replay(keys=(2, 5), runs=(6, 2, 3)))
    table = pd.read_parquet(folder)
    assert sorted(zip(table["run"], table["step"], strict=True)) == [(r, s) for r in (2, 6) for s in snapshot_steps(r)]
    assert all(some.tolist() == mask(2, 5) for some in table["known_keys"])
    with pytest.raises(InputError) as error:
        replay.replay(path, Replay(runs=(3, 5)))
    assert str(error.value) == f"{path} has no finished run to replay among those asked for."


def test_batches_are_of_one_problem_and_no_longer_than_a_folder():
    c = config.default()
    c.sweep.p, c.sweep.seed = (5, 7), tuple(range(130))
    runs = sweeps.expand(c, lambda c: [{"p": 5 + 2 * (i % 3 == 0), "seed": i} for i in range(100)]).runs
    batches = [[run.run for run in some] for some in replay._batches(runs)]
    fives = [i for i in range(100) if i % 3]
    assert batches == [list(range(0, 100, 3)), fives[:64], fives[64:]]


# --- the circuit ------------------------------------------------------------------------------------------------------


def test_the_circuit_of_every_run_that_has_ended(path, monkeypatch):
    monkeypatch.setattr(registry_lib, "NUMBERS", {"key_freqs": NUMBERS["key_freqs"]})
    file, missed = circuits_of(path)
    assert missed == {3: "diverged at step 40", 5: "still training"}
    assert listed(missed) == "run 3: diverged at step 40; run 5: still training"
    table = pd.read_parquet(file)
    assert table["run"].tolist() == ENDED
    assert table["step"].tolist() == [last(run) for run in ENDED]
    assert [keys.tolist() for keys in table["key_freqs"]] == [[key(run, last(run))] for run in ENDED]
    assert table["seed"].tolist() == [RUNS[run][0] for run in ENDED]
    assert table["steps"].tolist() == [RUNS[run][1] for run in ENDED]
