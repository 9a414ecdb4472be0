"""Phases of whole runs, whatever they do."""

import itertools
import time

import numpy as np
import pandas as pd
from planted import CHANCE, ENDS, planted

from grokjax import phases
from grokjax.phases import Settings, find_phases


def test_a_run_that_only_memorises_stays_in_memorization():
    step = np.arange(0, 20_001, 100.0)
    train = np.exp(-np.minimum(step / 100, 20)) * 4.7 / (1 + step / 100)
    metrics = pd.DataFrame({"step": step, "train_loss": train, "test_loss": 4.7 + 30 * (1 - np.exp(-step / 5_000))})
    row = find_phases(metrics).iloc[0]
    assert row["memorised"]
    assert row["censored"]
    assert row["run_class"] == "memorization"
    assert row[ENDS].isna().all()
    assert phases.shade(row) == [("memorization", 0, 20_000)]


def test_a_run_that_learns_nothing():
    rng = np.random.default_rng(0)
    step = np.arange(0, 10_001, 100.0)
    loss = CHANCE * (1 + 0.02 * rng.standard_normal((2, step.size)))
    row = find_phases(pd.DataFrame({"step": step, "train_loss": loss[0], "test_loss": loss[1]})).iloc[0]
    assert row["never_memorised"]
    assert row["run_class"] == "confusion"
    assert row[ENDS].isna().all()
    assert phases.shade(row) == []


def test_comprehension_is_no_grokking():
    step = np.arange(0, 5_001, 100.0)
    loss = np.maximum(CHANCE * np.exp(-step / 200), 1e-6)
    metrics = pd.DataFrame({"step": step, "train_loss": loss, "test_loss": loss * 1.1})
    row = find_phases(metrics).iloc[0]
    assert row["run_class"] == "comprehension"
    assert row["grokked"]
    assert row["delay"] <= 100
    assert find_phases(metrics, Settings(class_gap=1)).iloc[0]["run_class"] in ("comprehension", "grokking")


def test_divergence_is_a_null_train_loss_to_the_end():
    metrics = planted(1_000, 5_000, 7_000, 12_000)
    lost = metrics["step"] >= 3_000
    row = find_phases(metrics.mask(lost & True, np.nan).assign(step=metrics["step"])).iloc[0]
    assert row["diverged"]
    assert row["diverged_step"] == 3_000
    assert row["last_step"] == 2_900
    assert row["censored"]
    assert row["memorization_end"] == 1_000
    infinite = metrics.assign(train_loss=metrics["train_loss"].mask(lost, np.inf))
    assert find_phases(infinite).iloc[0]["diverged_step"] == 3_000
    # Nulls with values after them were not recorded: another tool's table may log losses at different steps.
    sparse = metrics.assign(train_loss=metrics["train_loss"].mask(metrics["step"] % 200 > 0))
    row = find_phases(sparse).iloc[0]
    assert not row["diverged"]
    assert abs(row["memorization_end"] - 1_000) <= 200


def test_diverged_from_the_start():
    metrics = pd.DataFrame({"step": [0, 100], "train_loss": [np.nan] * 2, "test_loss": [np.nan] * 2})
    row = find_phases(metrics).iloc[0]
    assert row["diverged_step"] == 0
    assert row["evaluations"] == 0
    assert row["run_class"] == "confusion"


def test_ungrokking_is_told_from_a_slingshot():
    metrics = planted(1_000, 5_000, 7_000, 12_000)
    late = metrics.assign(test_acc=metrics["test_acc"].mask(metrics["step"] >= 9_000, 0.6))
    row = find_phases(late).iloc[0]
    assert row["grokked"]
    assert row["ungrokked"]
    assert (row["ungrokked_after"], row["ungrokked_by"]) == (8_900, 9_000)
    spike = metrics.assign(test_acc=metrics["test_acc"].mask(metrics["step"].isin([9_000, 9_100]), 0.3))
    assert not find_phases(spike).iloc[0]["ungrokked"]


def test_overlapping_phases_are_flagged_and_shaded_in_order():
    metrics = planted(5_000, 1_500, 3_000, 12_000)
    step = metrics["step"].to_numpy()
    metrics["test_loss"] = np.exp(np.interp(step, [0, 500, 1_500, 3_000, 12_000], np.log([CHANCE, 9, 8, 1e-6, 1e-6])))
    metrics["train_loss"] = np.exp(np.interp(step, [0, 5_000, 12_000], np.log([CHANCE, 1e-7, 1e-7])))
    metrics = metrics[["step", "train_loss", "test_loss"]]
    row = find_phases(metrics).iloc[0]
    assert row["overlap"]
    assert row["memorization_end"] > row["circuit_formation_end"]
    drop, floor = row["circuit_formation_end"], row["cleanup_end"]
    assert phases.shade(row) == [("memorization", 0, drop), ("cleanup", drop, floor)]
    named = find_phases(metrics, Settings(rules={"memorization": "test_peak"})).iloc[0]
    assert named["memorization_end_rule"] == "test_peak"
    assert [name for name, _, _ in phases.shade(named)] == ["memorization", "circuit formation", "cleanup"]


def test_shading():
    row = find_phases(planted(1_000, 5_000, 7_000, 12_000)).iloc[0]
    shaded = phases.shade(row)
    assert [name for name, _, _ in shaded] == ["memorization", "circuit formation", "cleanup"]
    assert shaded[0][1] == 0
    assert all(a[2] == b[1] for a, b in itertools.pairwise(shaded))
    assert phases.shade(row.to_dict()) == shaded
    cut = find_phases(planted(1_000, 5_000, 7_000, 12_000).query("step <= 6_000")).iloc[0]
    assert phases.shade(cut)[-1] == ("cleanup", cut["circuit_formation_end"], 6_000)


def test_a_thousand_runs_take_seconds():
    one = planted(1_000, 5_000, 7_000, 40_000, noise=0.01, spike_every=15)
    metrics = pd.concat([one.assign(run=run) for run in range(1_000)], ignore_index=True)
    assert len(metrics) == 401_000
    start = time.process_time()
    assert len(find_phases(metrics)) == 1_000
    assert time.process_time() - start < 15  # about 2 where nothing else runs


def test_classes_at_their_thresholds():
    metrics = pd.DataFrame({"step": [0, 1_000, 2_000], "train_loss": 1.0, "test_loss": 1.0})
    metrics = metrics.assign(train_acc=[0.1, 0.9, 0.95], test_acc=[0.1, 0.2, 0.9])
    for options, name in [
        ({}, "grokking"),
        ({"class_gap": 1_001}, "comprehension"),
        ({"class_budget": 2_000}, "grokking"),
        ({"class_budget": 1_999}, "memorization"),
        ({"class_budget": 1_000}, "memorization"),
        ({"class_budget": 999}, "confusion"),
        ({"class_accuracy": 0.901}, "memorization"),
        ({"class_accuracy": 0.951}, "confusion"),
    ]:
        assert find_phases(metrics, Settings(**options)).iloc[0]["run_class"] == name, options
    row = find_phases(metrics, Settings(train_accuracy=0.9, test_accuracy=0.9, ungrok_accuracy=0.5)).iloc[0]
    assert (row["delay"], row["delay_min"], row["delay_max"]) == (1_000, 0, 2_000)
    assert (row["memorised_rule"], row["grokked_rule"], row["eval_every"]) == ("accuracy", "accuracy", 1_000)
    row = find_phases(metrics.drop(columns="train_acc")).iloc[0]
    assert (row["memorised_rule"], row["grokked_rule"]) == ("loss", "accuracy")


def test_shading_cuts_what_overlaps():
    def shaded(*ends, last_step=100, memorised=True):
        names = ("memorization_end", "circuit_formation_end", "cleanup_end")
        return phases.shade(dict(zip(names, ends, strict=True), last_step=last_step, memorised=memorised))

    first, second, third = "memorization", "circuit formation", "cleanup"
    assert shaded(10, 50, 80) == [(first, 0, 10), (second, 10, 50), (third, 50, 80)]
    assert shaded(60, 50, 80) == [(first, 0, 50), (third, 50, 80)]
    assert shaded(90, 50, 40) == [(first, 0, 40)]
    assert shaded(10, 50, np.nan) == [(first, 0, 10), (second, 10, 50), (third, 50, 100)]
    assert shaded(np.nan, 50, 80) == [(first, 0, 50), (third, 50, 80)]
    assert shaded(10, 50, 80, last_step=50) == [(first, 0, 10), (second, 10, 50)]
    assert shaded(10, 50, 80, memorised=False) == []
