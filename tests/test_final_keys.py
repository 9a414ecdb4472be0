"""Final keys: the keys of every run that has ended are finalised, with those of its group, in batches."""

import known
import pytest
import tiny
from pretended import MANY, config, ending, recorder_of, rows, train

from grokjax import sweeps
from grokjax.columns import FINAL
from grokjax.measures import registry
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.training import final_keys, scheduler


class Told(list):
    """Runs finalised together; as `kept` the snapshots there are."""


@pytest.fixture
def finalised(monkeypatch):
    """Which runs are finalised together, while nothing is evaluated."""
    told = Told()
    told.kept = {}

    def finalise(path, runs, ledger, width, hosts, backend):
        told.append([run.run for run in runs])
        for run in runs:
            assert (run.run, ledger.records[run.run]["last_step"]) in rows(path)
            assert (run.run, ledger.records[run.run]["last_step"]) in told.kept
            ledger.set_keys(run.run, [True, False, True])

    monkeypatch.setattr(final_keys, "finalise", finalise)
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    return told


@pytest.mark.parametrize("n_runs", [1, 2, 3])
def test_every_run_gets_its_final_keys_however_few_there_are(n_runs, finalised, tmp_path, monkeypatch):
    _, ledger = train(monkeypatch, config(n_runs, measures=("paper",)), tmp_path / "a", 1, kept=finalised.kept)
    assert [record["key_freqs"] for record in ledger.records.values()] == [[1, 3]] * n_runs
    assert finalised == [list(range(n_runs))]
    assert [keys.tolist() for keys in read_runs(tmp_path / "a")["key_freqs"]] == [[1, 3]] * n_runs


def test_runs_are_finalised_in_batches_as_soon_as_there_are_enough(finalised, tmp_path, monkeypatch):
    """Of 200 steps with snapshots every 100 there are at most 2 + 2, of which 20 make 5 runs."""
    monkeypatch.setattr(scheduler, "FINALISED_MODELS", 20)
    _, ledger = train(
        monkeypatch, config(12, measures=("paper",), snapshot_every=100), tmp_path / "a", 2, kept=finalised.kept
    )
    assert [run for some in finalised for run in some] == list(range(12))
    assert [len(some) for some in finalised] == [5, 5, 2]
    assert not ledger.without_keys(registry.metrics_columns(("paper",)))


def test_a_batch_has_a_run_for_every_slot(finalised, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "FINALISED_MODELS", 8)
    train(monkeypatch, config(12, measures=("paper",)), tmp_path / "a", 6, kept=finalised.kept)
    assert [len(some) for some in finalised] == [6, 6]


def test_each_group_is_finalised_apart_and_diverged_runs_are_not(finalised, tmp_path, monkeypatch):
    c = ending(monkeypatch, measures=("paper",))
    c.sweep.model.d_mlp = (16, 32)  # seeds vary fastest: runs 5 to 9 are those of 32
    _, ledger = train(monkeypatch, c, tmp_path / "a", 3, kept=finalised.kept)
    assert [sorted(some) for some in finalised] == [[1, 2, 4], [6, 7, 9]]
    assert [ledger.records[run]["key_freqs"] for run in (0, 3, 5, 8)] == [None] * 4


def test_what_another_group_has_left_unfinished_waits_for_it(tmp_path):
    c = config(2, measures=("paper",))
    c.sweep.model.d_mlp = (16, 32)
    sweep = sweeps.expand(c)
    one = recorder_of(sweep, tmp_path / "a")
    one.ledger.update({"run": [2, 0, 3], "step": [200] * 3} | {name: [1.0] * 3 for name in FINAL})
    for group, runs in ((0, [0]), (1, [2, 3])):
        assert [run.run for run in one.unfinished(sweep.groups()[group][0].problem())] == runs


def test_a_sweep_of_keyed_measures_of_ones_own_ends(tmp_path):
    known.register()
    try:
        c = tiny.get_config()
        c.measures = ("test_known",)
        assert tiny.train(c, tmp_path / "out")[0] == 0
        before = read_runs(tmp_path / "out")["key_freqs"]
        assert "is finished: nothing to do" in tiny.train(c, tmp_path / "out")[1]
    finally:
        known.unregister()
    metrics = read_metrics(tmp_path / "out", columns=["run", "step", "key_freqs", "known_keys"])
    last = metrics[metrics["step"] == metrics["step"].max()]
    assert list(map(list, last["key_freqs"])) == list(map(list, last["known_keys"]))
    assert before.notna().all()
