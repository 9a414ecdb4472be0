"""Summaries of groups of runs."""

import math

import numpy as np
import pandas as pd
import pytest
from planted import CHANCE

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases import Settings, find_phases


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
    # These losses jump from one plateau to the next, and have no peak before the drop.
    assert some["warning"] == "no separate phases in 4 of 7 runs"
    assert never["warning"] == ""
    assert (some["phases_not_separate"], some["phases_not_grokked"], never["phases_not_grokked"]) == (4, 3, 6)
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


def test_a_critical_value_is_looked_for_where_there_are_values_enough():
    """Of decays 0 and 1 there is none; of the scales beside them there is."""
    found = phases_of([0.0, 1.0] * 12, [np.nan] * 12 + [2_000] * 12).assign(init_scale=[0.5] * 12 + [2.0] * 12)
    fits = phases.summarize(found, by=["init_scale", "weight_decay"]).fits
    assert fits[["weight_decay", "quantity"]].drop_duplicates().weight_decay.value_counts().to_dict() == {0: 5, 1: 5}
    critical = fits[fits["quantity"] == "critical_init_scale"]
    assert critical["estimate"].tolist() == pytest.approx([1.0, 1.0])
    told = phases.summarize(found.assign(init_scale=1.0), by=["init_scale", "weight_decay"]).fits
    assert "critical_weight_decay" in set(told["quantity"])


def test_settings_that_differ_in_something_else_have_no_fit():
    found = phases_of([1.0] * 6 + [0.0] * 6, [2_000] * 12).assign(layers=[1] * 6 + [2] * 6)
    assert phases.summarize(found, by=["layers", "weight_decay"]).fits.empty


def runs_table(steps, last, **columns):
    """A runs.parquet: the step to grok by run, and the last step."""
    grokked = pd.array([None if np.isnan(step) else int(step) for step in steps], "Int64")
    return pd.DataFrame({"grokked_step": grokked, "last_step": pd.array(last, "Int64")} | columns)


def test_time_to_grok_by_hand():
    runs = runs_table(
        [100, 300, np.nan, np.nan, 500, np.nan, np.nan],
        [900, 900, 900, 400, 900, 900, None],
        weight_decay=[1.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0],
    )
    found = phases.time_to_grok(runs, "weight_decay")
    assert found[["weight_decay", "grokked", "runs", "median", "last_step", "text"]].to_numpy().tolist() == [
        [0.0, 0, 1, np.inf, 900, "> 900"],  # a run that has not begun says nothing
        [1.0, 2, 3, 300, 900, "300"],
        [2.0, 1, 2, 500, 500, "500"],  # censored at 400, before the other grokked
    ]
    assert found[["low", "high"]].isna().all(axis=None)  # of fewer than six runs
    # 5/6, 4/6 and, of the three that are left at step 500, 4/9 have not grokked: not 300, the median of those that did.
    assert phases.time_to_grok(runs)["text"].tolist() == ["500 [100, > 900]"]
    with pytest.raises(InputError, match="column 'weight_decy' is unknown"):
        phases.time_to_grok(runs, "weight_decy")


def test_time_to_grok_is_one_number_wherever_it_is_read():
    found = phases_of([1.0] * 7 + [0.0] * 6, [2_000, 3_000, 4_000, 5_000, np.nan, np.nan, np.nan] + [np.nan] * 6)
    runs = runs_table(found["grokked_by"], [10_000] * 13, weight_decay=found["weight_decay"])
    of_runs, of_phases = phases.time_to_grok(runs, "weight_decay"), phases.time_to_grok(found, "weight_decay")
    pd.testing.assert_frame_equal(of_runs, of_phases)
    groups = phases.summarize(found).groups
    for name in ("median", "low", "high", "runs", "last"):
        np.testing.assert_array_equal(groups[f"grokked_{name}"], of_runs[{"last": "last_step"}.get(name, name)])
    assert of_runs["text"].tolist() == ["> 10,000", "5,000 [3,000, > 10,000]"]


def test_a_diverged_run_is_censored_where_it_diverged_in_both_tables():
    metrics = pd.DataFrame({"run": [0, 0, 0, 1, 1, 1], "step": [0, 10, 20] * 2, "test_loss": 1.0, "train_acc": 1.0})
    metrics["train_loss"] = [1, 1, np.nan, 1, 1, 1]
    metrics["test_acc"] = [0, 0, np.nan, 0, 0, 1]
    found = phases.time_to_grok(find_phases(metrics))
    pd.testing.assert_frame_equal(found, phases.time_to_grok(runs_table([np.nan, 20], [20, 20])))
    assert found.loc[0, "median"] == 20
