"""Final keys: every run that has ended is settled, with those of its group, in batches."""

import pytest
from pretended import MANY, config, ending, rows, scheduler_of, train

from grokjax import sweeps
from grokjax.measures import registry
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import read_runs
from grokjax.training import final_keys, scheduler
from grokjax.training.layouts import Layout


class Told(list):
    """Runs settled together; as `kept` the snapshots there are."""


@pytest.fixture
def settled(monkeypatch):
    """Which runs are settled together, while nothing is evaluated."""
    told = Told()
    told.kept = {}

    def settle(path, runs, ledger, lanes=1, hosts=None, in_native=False):
        told.append([run.run for run in runs])
        for run in runs:
            assert (run.run, ledger.records[run.run]["last_step"]) in rows(path)
            assert (run.run, ledger.records[run.run]["last_step"]) in told.kept
            ledger.settle(run.run, [True, False, True])

    monkeypatch.setattr(final_keys, "finalise", settle)
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    return told


@pytest.mark.parametrize("n_runs", [1, 2, 3])
def test_every_run_gets_its_final_keys_however_few_there_are(n_runs, settled, tmp_path, monkeypatch):
    _, ledger = train(monkeypatch, config(n_runs, measures=("paper",)), tmp_path / "a", 1, kept=settled.kept)
    assert [record["key_freqs"] for record in ledger.records.values()] == [[1, 3]] * n_runs
    assert settled == [list(range(n_runs))]
    assert [keys.tolist() for keys in read_runs(tmp_path / "a")["key_freqs"]] == [[1, 3]] * n_runs


def test_runs_are_settled_in_batches_as_soon_as_there_are_enough(settled, tmp_path, monkeypatch):
    """Of 200 steps with snapshots every 100 there are at most 2 + 2, of which 20 make 5 runs."""
    monkeypatch.setattr(scheduler, "FINALISED_MODELS", 20)
    _, ledger = train(
        monkeypatch, config(12, measures=("paper",), snapshot_every=100), tmp_path / "a", 2, kept=settled.kept
    )
    assert [run for some in settled for run in some] == list(range(12))
    assert [len(some) for some in settled] == [5, 5, 2]
    assert not ledger.unsettled(registry.metrics_columns(("paper",)))


def test_a_batch_has_a_run_for_every_slot(settled, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "FINALISED_MODELS", 8)
    train(monkeypatch, config(12, measures=("paper",)), tmp_path / "a", 6, kept=settled.kept)
    assert [len(some) for some in settled] == [6, 6]


def test_each_group_is_settled_apart_and_diverged_runs_are_not(settled, tmp_path, monkeypatch):
    c = ending(monkeypatch, measures=("paper",))
    c.sweep.model.d_mlp = (16, 32)  # seeds vary fastest: runs 5 to 9 are those of 32
    _, ledger = train(monkeypatch, c, tmp_path / "a", 3, kept=settled.kept)
    assert [sorted(some) for some in settled] == [[1, 2, 4], [6, 7, 9]]
    assert [ledger.records[run]["key_freqs"] for run in (0, 3, 5, 8)] == [None] * 4


def test_what_another_group_has_left_unsettled_waits_for_it(tmp_path):
    c = config(2, measures=("paper",))
    c.sweep.model.d_mlp = (16, 32)
    sweep = sweeps.expand(c)
    one = scheduler_of(sweep, tmp_path / "a", [Layout(1, 1, 1, 1)] * 2)
    one.ledger.update({"run": [2, 0, 3], "step": [200] * 3} | {name: [1.0] * 3 for name in Ledger.FINAL})
    one.columns = registry.metrics_columns(("paper",))
    for group, runs in ((0, [0]), (1, [2, 3])):
        one.problem = sweep.groups()[group][0].problem()
        assert [run.run for run in one._unsettled()] == runs
