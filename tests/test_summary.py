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
