"""Measures with final keys, filled in when a run ends and replayed later; an independent way to the same numbers."""

import json

import numpy as np
import oracle
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tiny
from tiny import train

from grokjax import tasks
from grokjax.core import fourier
from grokjax.errors import InputError
from grokjax.interp import replay
from grokjax.interp.replay import Replay
from grokjax.measures import registry
from grokjax.measures.registry import measure
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.snapshots import load_params
from grokjax.store.sweep import load_sweep


def test_final_keys_are_those_of_the_last_model(finished):
    path, _ = finished
    metrics, runs = read_metrics(path), read_runs(path)
    for run, rows in metrics.groupby("run"):
        last = rows.iloc[-1]
        keys = np.flatnonzero(last["key_freqs_online"]) + 1
        assert runs["key_freqs"][run].tolist() == keys.tolist()
        at = rows[rows["step"].isin([0, 100, 200])]
        for mask in at["key_freqs"]:
            np.testing.assert_array_equal(np.flatnonzero(mask) + 1, keys)
        np.testing.assert_allclose(last["restricted_loss"], last["restricted_loss_online"], rtol=1e-5)
        np.testing.assert_allclose(last["excluded_loss"], last["excluded_loss_online"], rtol=1e-5)


def has_heldout_pairs_of_every_sum(seed, P=7):
    held = np.array(oracle.heldout_pairs(tasks.train_pairs(P, 0.6, seed), P))
    return len(set((held // P + held % P) % P)) == P


def test_final_columns_are_filled_at_snapshots_and_null_elsewhere(finished):
    metrics = read_metrics(finished[0])
    at_snapshots = metrics["step"].isin([0, 100, 200])
    for name in registry.final(("paper",)):
        for seed, rows in metrics.groupby("seed"):
            defined = not name.startswith("heldout_") or has_heldout_pairs_of_every_sum(seed)
            assert (rows[name].notna() == (at_snapshots[rows.index] & defined)).all(), name
    schema = pq.read_schema(next((finished[0] / "metrics").glob("*.parquet")))
    assert b"Keys: those of the run's final model." in schema.field("restricted_loss").metadata[b"description"]


def test_the_sum_spectrum_gives_the_same_restricted_loss(finished):
    """Restricted loss from float64 NumPy: transform the snapshot's averaged logits, keep keys, take cross-entropy."""
    path, _ = finished
    run = load_sweep(path).runs[3]
    p = run.problem().model.p
    row = read_metrics(path).query("run == 3 and step == 100").iloc[0]
    logits = oracle.all_logits(load_params(path, 3, 100)).reshape(p * p, p)
    a, b = np.divmod(np.arange(p * p), p)
    mean = np.stack([logits[(a + b) % p == s].mean(0) for s in range(p)])
    spectrum = fourier.basis(p) @ mean
    keep = np.r_[True, np.repeat(row["key_freqs"], 2)]
    restricted = fourier.basis(p).T @ (keep[:, None] * spectrum)
    loss = np.log(np.exp(restricted).sum(1)) - np.diag(restricted)
    np.testing.assert_allclose(loss.mean(), row["restricted_loss"], rtol=1e-5)


def test_replaying_again_changes_nothing(finished):
    path, _ = finished
    before = read_metrics(path)
    assert replay.replay(path, Replay()) == path / "metrics"
    pd.testing.assert_frame_equal(before, read_metrics(path), check_exact=True)


def test_other_keys_go_into_a_table_of_their_own(finished):
    path, _ = finished
    folder = replay.replay(path, Replay(keys=(1, 3)))
    table = pd.read_parquet(folder)
    assert sorted(zip(table["run"], table["step"], strict=True)) == [(r, s) for r in range(4) for s in (0, 100, 200)]
    assert all(mask.tolist() == [True, False, True] for mask in table["key_freqs"])
    assert {"weight_decay", "seed", "restricted_loss", "excluded_loss"} <= set(table.columns)
    request = json.loads(pq.read_schema(next(folder.glob("*.parquet"))).metadata[b"request"])
    assert request["keys"] == [1, 3]
    stamp = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    replay.replay(path, Replay(keys=(1, 3)))
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == stamp


def test_another_rule_and_threshold(finished):
    path, _ = finished
    table = pd.read_parquet(replay.replay(path, Replay(rule="W_E", threshold=0.9, runs=(0,))))
    norms = read_metrics(path).query("run == 0").iloc[-1]["freq_norm_W_E"]
    assert table["run"].unique().tolist() == [0]
    assert all((mask == (norms > 0.9 * norms.max())).all() for mask in table["key_freqs"])


def test_a_measure_that_did_not_exist_when_the_sweep_ran(finished):
    @measure("test_mine", unit="1", description="Sum of the logits' squares.", source="this test", range="[0, ∞)")
    def logits_squared(s):
        return (s.logits_NxP**2).sum()

    path, _ = finished
    try:
        table = pd.read_parquet(replay.replay(path, Replay(measures=("test_mine",))))
    finally:
        del registry.MEASURES["logits_squared"]
    assert table["logits_squared"].gt(0).all()
    losses = read_metrics(path).query("step in (0, 100, 200)")[["run", "step", "train_loss"]]
    both = table.merge(losses, on=["run", "step"], suffixes=("", "_trained"))
    np.testing.assert_allclose(both["train_loss"], both["train_loss_trained"], rtol=1e-5)


def test_mistakes_are_sentences(finished, tmp_path):
    path, _ = finished

    def refused(where, **request):
        with pytest.raises(InputError) as error:
            replay.replay(where, Replay(**request))
        return str(error.value)

    assert refused(tmp_path) == f"{tmp_path} holds no sweep: config.json is missing."
    assert refused(path, keys=(4,)) == "--keys has 4, but for P = 7 frequencies are 1 to 3."
    assert refused(path, runs=(9,)) == "--runs names run 9, but this sweep's runs are 0 to 3."
    assert "group 'clok' is unknown: did you mean 'clock'?" in refused(path, measures=("clok",))
    assert refused(path, rule="W_Q") == "config.key_rule is 'W_Q', but it must be one of W_L, W_E, neurons, logits."


def test_slow_measures_have_their_own_cadence(tmp_path):
    @measure("test_slow", unit="1", description="One.", source="this test", range="[1, 1]", slow=True)
    def one(s):
        return 0 * s.loss_N[0] + 1

    c = tiny.get_config()
    c.measures = ("test_slow",)
    c.slow_every = 60
    c.steps = 120
    c.sweep.seed = (0,)
    try:
        train(c, tmp_path / "a")
    finally:
        del registry.MEASURES["one"]
    metrics = read_metrics(tmp_path / "a")
    assert metrics[metrics["one"].notna()]["step"].tolist() == [0, 60, 120] * 2
    assert set(metrics["one"].dropna()) == {1.0}
