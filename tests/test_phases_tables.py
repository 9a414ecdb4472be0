"""Tables that other tools wrote: what is carried over, what is refused in a sentence, and what must not crash."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from planted import ENDS, planted, sweep_of_planted

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases import find_phases
from grokjax.phases.curves import COLUMNS, Settings


def test_swept_fields_are_carried_and_measures_are_not():
    metrics, _ = sweep_of_planted(n=3)
    metrics["p"] = 113
    metrics["optimizer"] = "adamw"
    metrics["norms"] = [np.zeros(3)] * len(metrics)
    metrics["restricted_loss_test"] = np.nan
    metrics["grokked"] = 5
    found = find_phases(metrics)
    carried = [name for name in found if name not in phases.DESCRIPTIONS]
    assert sorted(carried) == ["optimizer", "p", "run", "seed", "weight_decay"]
    assert found["p"].dtype == metrics["p"].dtype
    assert found["grokked"].dtype == bool


@pytest.mark.parametrize(
    "names", [["b", "a"], [7, 3], [2.5, 1.5], [pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-01")]]
)
def test_runs_may_be_named_anything(names):
    metrics = pd.concat([planted(1_000, 5_000, 7_000, 9_000).assign(run=name) for name in names])
    assert list(find_phases(metrics)["run"]) == sorted(names)
    indexed = metrics.set_index(["run", "step"])
    pd.testing.assert_frame_equal(find_phases(indexed), find_phases(metrics))


def test_repeated_rows():
    metrics = planted(1_000, 5_000, 7_000, 9_000)
    pd.testing.assert_frame_equal(find_phases(pd.concat([metrics, metrics.iloc[5:20]])), find_phases(metrics))
    other = metrics.assign(test_loss=metrics["test_loss"] * 1.01)
    with pytest.raises(InputError, match=r"step 0 of one run has two different values of 'test_loss'.*column 'run'"):
        find_phases(pd.concat([metrics, other]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.drop(columns="test_loss"), r"no column 'test_loss': phases need step, train_loss and test_loss"),
        (lambda m: m.drop(columns="step"), r"no column 'step'"),
        (lambda m: m.assign(step="x"), r"column 'step' must hold numbers"),
        (lambda m: m.assign(step=-1), r"column 'step' must hold a step"),
        (lambda m: m.assign(step=np.nan), r"column 'step' must hold a step"),
        (lambda m: m.assign(train_loss="high"), r"column 'train_loss' must hold numbers"),
        (lambda m: m.assign(test_acc=98.0), r"column 'test_acc' must hold shares"),
        (lambda m: m.assign(run=None), r"column 'run' must name a run"),
        (lambda m: pd.concat([m, m[["train_loss"]]], axis=1), r"column 'train_loss' appears twice"),
        (lambda m: m.to_dict(), r"must be a pandas DataFrame, not dict"),
    ],
)
def test_bad_tables(change, message):
    with pytest.raises(InputError, match=message):
        find_phases(change(planted(1_000, 5_000, 7_000, 9_000)))


def test_empty_table():
    empty = find_phases(pd.DataFrame({"run": [], "step": [], "train_loss": [], "test_loss": []}))
    assert empty.empty
    assert list(empty.columns) == ["run", *phases.DESCRIPTIONS]
    summary = phases.summarize(empty, by=None)
    assert summary.groups["runs"].tolist() == [0]


numbers = st.one_of(st.none(), st.floats(allow_subnormal=True), st.floats(0, 20), st.just(0.0), st.just(-1e-9))
shares = st.one_of(st.none(), st.floats(0, 1))


@st.composite
def odd_tables(draw):
    n = draw(st.integers(0, 30))
    run = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    step = draw(st.lists(st.one_of(st.integers(0, 40), st.floats(0, 1e12)), min_size=n, max_size=n))
    frame = pd.DataFrame({"run": run, "step": np.array(step, float)}).drop_duplicates(ignore_index=True)
    for name in COLUMNS:
        if name in ("train_loss", "test_loss") or draw(st.booleans()):
            values = shares if name.endswith("acc") else numbers
            frame[name] = pd.Series(draw(st.lists(values, min_size=len(frame), max_size=len(frame))), dtype=object)
    if draw(st.booleans()):
        frame["weight_decay"] = frame["run"] * draw(st.sampled_from([0.0, 0.5, 1.0]))
    return frame if draw(st.booleans()) else frame.drop_duplicates("step", ignore_index=True).drop(columns="run")


@given(metrics=odd_tables(), smooth=st.sampled_from([1, 3, 5, 9]))
@hypothesis_settings(max_examples=40, deadline=None)
def test_odd_tables_do_not_crash(metrics, smooth):
    settings = Settings(smooth=smooth)
    found, readings = find_phases(metrics, settings), phases.readings(metrics, settings)
    assert list(found.columns[-len(phases.DESCRIPTIONS) :]) == list(phases.DESCRIPTIONS)
    assert len(found) == (metrics["run"].nunique() if "run" in metrics else min(len(metrics), 1))
    assert set(found["run_class"]) <= set(phases.CLASSES)
    for name in [*ENDS, "memorised", "grokked", "ungrokked"]:
        after, by = found[f"{name}_after"], found[f"{name}_by"]
        assert (after.isna() == by.isna()).all()
        assert (by.isna() | ((after <= by) & (by <= found["last_step"]))).all()
    assert (found["censored"] == ~found["grokked"].astype(bool)).all()
    for _, row in found.iterrows():
        assert all(start < end for _, start, end in phases.shade(row))
    phases.agreement(readings)
    phases.describe_rules(readings)
    by = "weight_decay" if "weight_decay" in found else None
    summary = phases.summarize(found, by, resamples=50)
    assert summary.groups["runs"].sum() == len(found)
    # The order of rows says nothing.
    pd.testing.assert_frame_equal(find_phases(metrics.iloc[::-1], settings), found)
