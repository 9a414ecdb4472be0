"""Tables that other tools wrote: what is carried over, what is refused in a sentence, and what must not crash."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from planted import ENDS, planted, sweep_of_planted
from test_find import check_verdict

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases import find_phases
from grokjax.phases.curves import COLUMNS, Settings
from grokjax.phases.tables import Table


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


@pytest.mark.parametrize("value", [-0.001, 1.001])
def test_one_accuracy_out_of_range(value):
    metrics = planted(1_000, 5_000, 7_000, 9_000)
    accuracies = np.linspace(0, 1, len(metrics))
    accuracies[3] = np.nan
    assert len(find_phases(metrics.assign(train_acc=accuracies))) == 1
    accuracies[7] = value
    with pytest.raises(InputError) as caught:
        find_phases(metrics.assign(train_acc=accuracies))
    assert str(caught.value) == "column 'train_acc' must hold shares between 0 and 1: divide percentages by 100."


def test_a_run_with_two_values_at_one_step():
    metrics = pd.DataFrame({"run": [1, 1, 2, 2], "step": [0, 5, 0, 5], "train_loss": 1.0, "test_loss": [1.0, 2, 3, 4]})
    for names, hint in ((["run"], ""), ([], " (without a column 'run' the table must be one run)")):
        table = pd.concat([metrics[metrics["run"] == 1], metrics.iloc[[1]].assign(test_loss=np.nan)])
        with pytest.raises(InputError) as caught:
            Table(table[[*names, "step", "train_loss", "test_loss"]], Settings())
        assert str(caught.value) == f"step 5 of one run has two different values of 'test_loss'{hint}."
    nothing = metrics.assign(test_loss=np.nan)
    assert len(Table(pd.concat([nothing, nothing]), Settings())) == 2


def runs_of(*first_losses, **columns):
    """Runs of three evaluations with these test losses at step 0; None starts at step 10."""
    rows = []
    for run, loss in enumerate(first_losses):
        steps = [0, 10, 20] if loss is not None else [10, 20, 30]
        rows += [{"run": run, "step": s, "train_loss": 0.5, "test_loss": loss if s == 0 else 0.7} for s in steps]
    return pd.DataFrame(rows).assign(**columns)


def chances(metrics, **settings):
    return [run.curves.chance_loss for run in Table(metrics, Settings(**settings)).runs()]


def test_chance_losses_by_hand():
    assert chances(runs_of(3.0, 5.0)) == [3, 5]
    assert chances(runs_of(3.0, 4.0, 9.0, None)) == [3, 4, 9, 4]
    assert chances(runs_of(3.0, 0.0, -1.0)) == [3, 3, 3]
    assert chances(runs_of(None, None)) == [None, None]
    assert chances(runs_of(3.0, None), chance_loss=2.5) == [2.5, 2.5]
    assert chances(runs_of(3.0, None, p=[7] * 3 + [11] * 3)) == [3, np.log(11)]
    assert chances(runs_of(None, p=2)) == [np.log(2)]
    assert chances(runs_of(None, p=1)) == [None]
    assert chances(runs_of(None, p=[7, 7, 11])) == [None]  # no constant of the run


def test_constants_are_the_same_in_every_row():
    metrics = runs_of(3.0, 5.0).assign(
        alike=[1, 1, 1, 2, 2, 2],
        middle=[1, 9, 1, 2, 2, 2],
        last=[1, 1, 9, 2, 2, 2],
        gone=[1, None, 1, 2, 2, 2],
        never=None,
        once=[None] * 3 + ["a"] * 3,
        listed=[[1]] * 6,
    )
    assert Table(metrics.iloc[::-1], Settings()).constant == ["alike", "once"]
    assert Table(metrics, Settings(), frozenset({"alike"})).constant == ["once"]
    fixed = Table(metrics, Settings()).fixed()
    assert fixed["run"].tolist() == [0, 1]
    assert fixed["alike"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("finite", "usable", "diverged"),
    [
        ([1, 1, 1], 3, None),
        ([1, 1, 0], 2, 20),
        ([1, 0, 0], 1, 10),
        ([0, 0, 0], 0, 0),
        ([0, 1, 0], 2, 20),
        ([0, 0, 1], 3, None),
    ],
)
def test_a_run_ends_with_its_last_finite_train_loss(finite, usable, diverged):
    metrics = runs_of(3.0, 5.0)
    metrics.loc[3:, "train_loss"] = np.where(finite, 0.5, np.nan)
    before, run = Table(metrics, Settings()).runs()
    assert (before.curves.step.tolist(), before.diverged_step) == ([0, 10, 20], None)
    assert run.curves.step.tolist() == [0, 10, 20][:usable]
    assert run.diverged_step == diverged
    assert {len(values) for values in run.curves.columns.values()} == {usable}


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
    for name in [*ENDS, "memorised", "grokked", "lost_grokking", "ungrokked"]:
        after, by = found[f"{name}_after"], found[f"{name}_by"]
        assert (after.isna() == by.isna()).all()
        assert (by.isna() | ((after <= by) & (by <= found["last_step"]))).all()
    assert (found["censored"] == ~found["grokked"].astype(bool)).all()
    for row in found.to_dict("records"):
        assert all(start < end for _, start, end in phases.shade(row))
        check_verdict(row)
    phases.agreement(readings)
    phases.describe_rules(readings)
    by = "weight_decay" if "weight_decay" in found else None
    summary = phases.summarize(found, by, resamples=50)
    assert summary.groups["runs"].sum() == len(found)
    # The order of rows says nothing.
    pd.testing.assert_frame_equal(find_phases(metrics.iloc[::-1], settings), found)
