"""Phases of whole runs, whatever they do, and of groups of runs."""

import doctest
import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from planted import CHANCE, ENDS, planted

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases import find_phases
from grokjax.phases.rules import Settings

# What runs do other than grok.


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


# The module.


def test_a_thousand_runs_take_seconds():
    one = planted(1_000, 5_000, 7_000, 40_000, noise=0.01, spike_every=15)
    metrics = pd.concat([one.assign(run=run) for run in range(1_000)], ignore_index=True)
    assert len(metrics) == 401_000
    start = time.process_time()
    assert len(find_phases(metrics)) == 1_000
    assert time.process_time() - start < 15  # about 2 where nothing else runs


def test_docstring_example():
    assert doctest.testmod(phases).failed == 0
    assert doctest.testmod(phases).attempted > 0


def test_analysis_knows_no_jax():
    program = "import sys, grokjax.phases, grokjax.phase_display; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Groups.


def phases_of(weight_decays, grokked_by, budget=10_000):
    """A table as `find_phases` gives it, for runs that grok at given steps (NaN: not)."""
    frames = []
    for run, (value, at) in enumerate(zip(weight_decays, grokked_by, strict=True)):
        step = np.arange(0, budget + 1, 100.0)
        grokked = step >= (np.inf if np.isnan(at) else at)
        losses = {"train_loss": np.where(step < 300, CHANCE, 1e-6), "test_loss": np.where(grokked, 1e-6, 12.0)}
        frames.append(pd.DataFrame({"run": run, "step": step, "weight_decay": value, "seed": run, **losses}))
    return find_phases(pd.concat(frames), Settings(chance_loss=CHANCE))


def test_summary_keeps_censored_runs():
    found = phases_of([1.0] * 7 + [0.0] * 6, [2_000, 3_000, 4_000, 5_000, np.nan, np.nan, np.nan] + [np.nan] * 6)
    groups, fits = phases.summarize(found, seed=1)
    never, some = groups.to_dict("records")
    assert (never["weight_decay"], never["runs"], never["grokked"], never["censored"]) == (0, 6, 0, 6)
    assert np.isinf(never["grokked_median"])
    assert never["memorised_median"] == 300
    assert some["fraction_grokked"] == pytest.approx(4 / 7)
    assert (some["fraction_low"], some["fraction_high"]) == pytest.approx((0.2505, 0.8418), abs=1e-4)
    assert some["grokked_median"] == 5_000  # not 3 500, the median of those that grokked
    assert some["grokked_low"] < 5_000
    assert np.isinf(some["grokked_high"])
    assert some["delay_median"] == 4_700
    assert (some["grokked_runs"], some["grokked_seen"]) == (7, 4)
    assert some["warning"] == never["warning"] == ""
    assert set(fits["quantity"]) == {"critical_weight_decay", "slope", "exponent", "prefactor", "r_squared"}
    assert fits["estimate"].isna().all()  # one weight decay above 0 has no critical value
    assert "6 runs at 0 or below, of which 0 grokked" in fits["warning"].iloc[0]
    again = phases.summarize(found, seed=1)
    pd.testing.assert_frame_equal(groups, again.groups)


def test_a_delay_is_censored_from_memorising_on():
    found = pd.concat([phases_of([1.0] * 2, [4_900, 6_300]), phases_of([1.0], [np.nan], budget=4_800)])
    # Memorised by 300: delays 4 600, 6 000, and longer than 4 500, so that half are over at 4 600.
    assert phases.summarize(found).groups.loc[0, "delay_median"] == 4_600


def test_summary_warns():
    found = phases_of([0.1, 0.1, 1.0, 1.0], [np.nan, np.nan, 2_000, 3_000]).assign(learning_rate=[1, 2, 1, 1])
    groups, fits = phases.summarize(found)
    assert "2 runs, where an interval for a median needs 6" in groups["warning"].iloc[0]
    assert "runs also differ in learning_rate" in groups["warning"].iloc[0]
    critical = fits.set_index("quantity").loc["critical_weight_decay"]
    assert critical["estimate"] == pytest.approx(math.sqrt(0.1))
    assert (critical["low"], critical["high"]) == pytest.approx((0.1, 1.0))
    assert "no run up to 0.1 and every run from 1 grokked" in critical["warning"]
    found["circuit_formation_end_rule"] = ["test_drop", "test_half", "test_drop", "test_drop"]
    warning = phases.summarize(found).groups["warning"]
    assert "ends of circuit formation by different rules: test_drop, test_half" in warning[0]
    assert "different rules" not in warning[1]
    with pytest.raises(InputError, match="column 'weight_decy' is unknown: did you mean 'weight_decay'"):
        phases.summarize(found, by="weight_decy")


def test_summary_by_several_columns_fits_each_apart():
    found = pd.concat(
        [
            phases_of([0.1] * 6 + [1.0] * 6, [np.nan] * 6 + [2_000] * 6).assign(p=53),
            phases_of([0.1] * 6 + [1.0] * 6, [2_000] * 12).assign(p=113),
        ]
    )
    groups, fits = phases.summarize(found, by=["p", "weight_decay"])
    assert groups[["p", "weight_decay", "grokked"]].to_numpy().tolist() == [
        [53, 0.1, 0],
        [53, 1, 6],
        [113, 0.1, 6],
        [113, 1, 6],
    ]
    critical = fits[fits["quantity"] == "critical_weight_decay"].set_index("p")
    assert critical.loc[53, "estimate"] == pytest.approx(math.sqrt(0.1))
    assert "every run grokked" in critical.loc[113, "warning"]


# Exactly at thresholds.


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


def test_readings_number_the_evaluations():
    found = phases.readings(planted(1_000, 5_000, 7_000, 12_000))
    assert found["available"].all()
    assert found[found["default"]]["rule"].tolist() == ["losses_flat", "test_drop", "test_level"]
    assert found["at"].notna().all()
    for side in ("after", "at", "by"):
        assert (found[f"{side}_index"] * 100 == found[side]).all()


def test_agreement_by_hand():
    def rows(run, rule, by_index, default=False, available=True):
        sides = {"after": by_index - 1, "at": by_index, "by": by_index}
        row = {"run": run, "phase": "cleanup", "rule": rule, "default": default, "available": available}
        row |= {"lacks": "", "columns": ""} | {f"{side}_index": i for side, i in sides.items()}
        return row | {side: 100.0 * i for side, i in sides.items()}

    # By run: the evaluation of the default and of another rule; intervals are 2, 3 and 2 apart in the first three.
    pairs = [(4, 7), (4, 8), (10, 7), (np.nan, 5), (5, np.nan), (5, None)]
    table = [rows(run, "default", a, default=True) for run, (a, _) in enumerate(pairs)]
    table += [
        rows(run, "other", np.nan if b is None else b, available=b is not None) for run, (_, b) in enumerate(pairs)
    ]
    found = phases.agreement(pd.DataFrame(table)).set_index("rule").loc["other"]
    assert found.drop("within_two").to_dict() == {
        "phase": "cleanup",
        "runs": 5,
        "seen": 4,
        "both": 3,
        "only_rule": 1,
        "only_default": 1,
        "difference": 300.0,
    }
    assert found["within_two"] == pytest.approx(2 / 3)
