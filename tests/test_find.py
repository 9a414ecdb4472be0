"""Phases of whole runs, whatever they do."""

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from planted import CHANCE, ENDS, planted

from grokjax import phases
from grokjax.phases import Settings, find_phases, summarize
from grokjax.phases import text as phases_text
from grokjax.phases.text import group_sentence, run_sentences


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


def test_a_run_that_groks_without_memorising_comprehends():
    """As one that corrects its wrong training answers, by which the train accuracy is."""
    metrics = pd.DataFrame({"step": [0, 100, 200, 300], "train_loss": 1.0, "test_loss": 1.0})
    metrics = metrics.assign(train_acc=[0.1, 0.95, 0.9, 0.9], test_acc=[0.1, 0.2, 1.0, 1.0])
    row = find_phases(metrics).iloc[0]
    assert (row["run_class"], row["phases"]) == ("comprehension", "not memorised")
    assert row["phases_sentence"] == "not memorised by 300, but grokked by 200"
    assert phases_text.run_sentences(row.to_dict(), [])[0] == "the run: comprehension; not memorised, grokked by 200"
    assert find_phases(metrics.assign(test_acc=0.1)).iloc[0]["run_class"] == "confusion"


def test_another_loss_than_cross_entropy_is_told_of():
    metrics = planted(1_000, 5_000, 7_000, 12_000)
    said = "ends of phases are read from cross-entropy, though another loss was trained on"
    assert not any(said in note for note in find_phases(metrics).attrs["notes"])
    metrics = metrics.assign(train_objective=0.1, test_objective=metrics["test_loss"])
    assert any(said in note for note in find_phases(metrics).attrs["notes"])


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
    for event in ("lost_grokking", "ungrokked"):
        assert (row[f"{event}_after"], row[f"{event}_by"]) == (8_900, 9_000)
    assert "lost it again by 9,000, for good" in run_sentences(row.to_dict(), [])[0]
    spike = metrics.assign(test_acc=metrics["test_acc"].mask(metrics["step"].isin([9_000, 9_100]), 0.3))
    row = find_phases(spike).iloc[0]
    assert (row["lost_grokking"], row["lost_grokking_by"], row["ungrokked"]) == (True, 9_000, False)
    both = summarize(find_phases(pd.concat([late.assign(run=0), spike.assign(run=1)])), by=None)
    assert "2 lose it again (1 for good)." in group_sentence(both.groups.iloc[0], [])
    single = metrics.assign(test_acc=metrics["test_acc"].mask(metrics["step"] == 9_000, 0.3))
    assert not find_phases(single).iloc[0]["lost_grokking"]


def overlapping():
    """The train loss falls until step 5 000, the test loss drops between 1 500 and 3 000."""
    metrics = planted(5_000, 1_500, 3_000, 12_000)
    step = metrics["step"].to_numpy()
    metrics["test_loss"] = np.exp(np.interp(step, [0, 500, 1_500, 3_000, 12_000], np.log([CHANCE, 9, 8, 1e-6, 1e-6])))
    metrics["train_loss"] = np.exp(np.interp(step, [0, 5_000, 12_000], np.log([CHANCE, 1e-7, 1e-7])))
    return metrics[["step", "train_loss", "test_loss"]]


def test_overlapping_phases_have_no_ends():
    row = find_phases(overlapping()).iloc[0]
    assert (row["phases"], row["overlap"], row["overlap_phases"]) == (
        "not separate",
        True,
        "memorization, circuit formation",
    )
    assert row[ENDS].isna().all()
    read = phases.readings(overlapping()).set_index("rule")["at"]
    assert row["overlap_steps"] == read["losses_flat"] - read["test_drop"]
    assert row["phases_sentence"] == (
        f"no separate phases: circuit formation ends at {read['test_drop']:,.0f}, "
        f"memorization {row['overlap_steps']:,.0f} steps later"
    )
    assert phases.shade(row) == []
    assert row["circuit_formation_end_earliest"] <= read["test_drop"] <= row["circuit_formation_end_latest"]
    cut = find_phases(overlapping().query("step <= 3_000")).iloc[0]
    assert cut["phases_sentence"].endswith("memorization not by 3,000")
    assert cut["overlap_steps"] == 3_000 - read["test_drop"]
    named = find_phases(overlapping(), Settings(rules={"memorization": "test_peak"})).iloc[0]
    assert (named["memorization_end_rule"], named["phases"]) == ("test_peak", "separate")
    assert [name for name, _, _ in phases.shade(named)] == ["memorization", "circuit formation", "cleanup"]


# A run at P = 113 with half of the pairs to train on or more: a + b = b + a takes the test loss below chance at once.
NEVER = [(0, 4.76, 4.767), (20, 4.15, 5.83), (40, 0.0049, 1.18), (60, 5e-5, 1.296), (80, 1e-5, 1.277)]
NEVER += [(200, 2e-6, 1.24), (1_000, 4.7e-9, 1.05), (2_000, 6e-10, 0.996), (2_980, 3.5e-10, 0.98)]


@pytest.mark.parametrize("every", [None, 20])
def test_a_run_that_never_groks_forms_no_circuit(every):
    metrics = pd.DataFrame(NEVER, columns=["step", "train_loss", "test_loss"]).astype(float)
    if every:
        step = np.arange(0, 2_981.0, every)
        losses = {name: np.exp(np.interp(step, metrics["step"], np.log(metrics[name]))) for name in metrics.columns[1:]}
        metrics = pd.DataFrame({"step": step} | losses)
    row = find_phases(metrics).iloc[0]
    assert row["phases"] == "not grokked"
    assert row["phases_sentence"].startswith("not grokked by 2,980")
    assert row["memorised"]
    for boundary in ("circuit_formation", "cleanup"):
        assert row[[f"{boundary}_end", f"{boundary}_end_earliest", f"{boundary}_end_latest"]].isna().all()
        assert row[f"{boundary}_end_seen"] == 0
    assert [name for name, _, _ in phases.shade(row)] == ["memorization"]


def test_a_run_trained_on_half_of_the_pairs_forms_its_circuit_when_it_groks():
    metrics = planted(1_000, 5_000, 7_000, 12_000)
    easy = metrics["step"] >= 300
    metrics["test_loss"] = metrics["test_loss"].mask(easy, np.minimum(metrics["test_loss"], 1.2))
    row = find_phases(metrics[["step", "train_loss", "test_loss"]]).iloc[0]
    assert row["phases"] == "separate"
    assert 5_000 <= row["circuit_formation_end"] <= 5_500


def test_a_circuit_without_grokking_is_told():
    metrics = planted(1_000, 5_000, 7_000, 12_000).assign(test_acc=0.4)
    heldout = np.where(metrics["step"] < 6_000, CHANCE, 0.1)
    row = find_phases(metrics.assign(heldout_restricted_loss=heldout)).iloc[0]
    assert (row["phases"], row["grokked"]) == ("not grokked", False)
    assert row["circuit_formation_end"] == 5_200
    assert np.isnan(row["cleanup_end"])
    assert row["phases_sentence"] == (
        "not grokked by 12,000; memorization ends at 1,000; circuit formation ends at 5,200; "
        "the held-out restricted loss shows a circuit from 6,000"
    )
    assert [name for name, _, _ in phases.shade(row)] == ["memorization", "circuit formation"]
    assert np.isnan(find_phases(metrics).iloc[0]["circuit_formation_end"])


def test_one_verdict_in_the_table_the_shading_and_the_sentence():
    cuts = [
        planted(1_000, 5_000, 7_000, 12_000).query(f"step <= {end}").assign(run=end) for end in range(0, 12_001, 400)
    ]
    cuts += [overlapping().query(f"step <= {end}").assign(run=20_000 + end) for end in range(0, 12_001, 400)]
    found = find_phases(pd.concat(cuts))
    assert set(found["phases"]) == set(phases.VERDICTS)
    for row in found.to_dict("records"):
        check_verdict(row)


def check_verdict(row):
    """That the columns of a row say one thing: the order of ends, the shading, the sentence."""
    ends = [row[name] for name in ENDS]
    seen = [end for end in ends if not np.isnan(end)]
    assert all(a < b for a, b in itertools.pairwise(seen))
    assert (row["phases"] == "separate") == (len(seen) == 3 and row["grokked"])
    assert row["overlap"] == (row["phases"] == "not separate") == (not np.isnan(row["overlap_steps"]))
    if row["phases"] in ("not separate", "not memorised"):
        assert not seen
    shaded = phases.shade(row)
    assert [end for _, _, end in shaded if end < row["last_step"]] == [end for end in seen if end < row["last_step"]]
    for name, _, end in shaded:
        assert name in row["phases_sentence"] or end == row["last_step"]
    for end in seen:
        assert f"{end:,.0f}" in row["phases_sentence"]


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
    absolute, low = {"class_rule": "absolute"}, {"test_accuracy": 0.9, "ungrok_accuracy": 0.5}
    for options, name in [
        ({}, "confusion"),  # by the thresholds of milestones
        ({"train_accuracy": 0.9, **low}, "comprehension"),  # as long again as it took to memorise
        ({"train_accuracy": 0.9, "class_ratio": 0.999, **low}, "grokking"),
        ({"train_accuracy": 0.9}, "memorization"),
        (absolute, "grokking"),
        (absolute | {"class_gap": 1_001}, "comprehension"),
        (absolute | {"class_budget": 2_000}, "grokking"),
        (absolute | {"class_budget": 1_999}, "memorization"),
        (absolute | {"class_budget": 1_000}, "memorization"),
        (absolute | {"class_budget": 999}, "confusion"),
        ({"train_accuracy": 0.9, "class_budget": 999, **low}, "comprehension"),
        (absolute | {"class_accuracy": 0.901}, "memorization"),
        (absolute | {"class_accuracy": 0.951}, "confusion"),
    ]:
        assert find_phases(metrics, Settings(**options)).iloc[0]["run_class"] == name, options
    row = find_phases(metrics, Settings(train_accuracy=0.9, test_accuracy=0.9, ungrok_accuracy=0.5)).iloc[0]
    assert (row["delay"], row["delay_min"], row["delay_max"]) == (1_000, 0, 2_000)
    assert (row["memorised_rule"], row["grokked_rule"], row["eval_every"]) == ("accuracy", "accuracy", 1_000)
    row = find_phases(metrics.drop(columns="train_acc")).iloc[0]
    assert (row["memorised_rule"], row["grokked_rule"]) == ("loss", "accuracy")


def test_shading_by_hand():
    def shaded(verdict, *ends, last_step=100):
        return phases.shade(dict(zip(ENDS, ends, strict=True), last_step=last_step, phases=verdict))

    first, second, third = "memorization", "circuit formation", "cleanup"
    assert shaded("separate", 10, 50, 80) == [(first, 0, 10), (second, 10, 50), (third, 50, 80)]
    assert shaded("unfinished", 10, 50, np.nan) == [(first, 0, 10), (second, 10, 50), (third, 50, 100)]
    assert shaded("unfinished", 10, np.nan, np.nan) == [(first, 0, 10), (second, 10, 100)]
    assert shaded("unfinished", np.nan, np.nan, np.nan) == [(first, 0, 100)]
    assert shaded("unfinished", 10, 50, np.nan, last_step=50) == [(first, 0, 10), (second, 10, 50)]
    assert shaded("not grokked", 10, np.nan, np.nan) == [(first, 0, 10)]
    assert shaded("not grokked", np.nan, np.nan, np.nan) == [(first, 0, 100)]
    assert shaded("not separate", *[np.nan] * 3) == shaded("not memorised", *[np.nan] * 3) == []
