"""The ledger: what it makes of rows, one by one; every expected value follows from the rule that a docstring states."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from grokjax import sweeps
from grokjax.columns import FINAL, SUMMARY
from grokjax.measures import registry
from grokjax.phases import find_phases
from grokjax.store.ledger import Ledger

KEYED = registry.metrics_columns(("paper",))


def ledger(n_runs=4, steps=200, stop_loss=0.0, stop_evals=3):
    c = tiny.get_config()
    c.steps, c.stop_loss, c.stop_evals = steps, stop_loss, stop_evals
    c.sweep.weight_decay, c.sweep.seed = None, tuple(range(n_runs))
    return Ledger(sweeps.expand(c).runs)


def row(one, run, step, test_loss=1.0, train_loss=1.0, train_acc=0.0, test_acc=0.0, **more):
    values = {"train_loss": train_loss, "test_loss": test_loss, "train_acc": train_acc, "test_acc": test_acc}
    one.update({"run": [run], "step": [step]} | {name: [value] for name, value in (values | more).items()})
    return one.records[run]["status"]


def mask(*keys):
    return np.isin([1, 2, 3], keys)


# --- statuses ---------------------------------------------------------------------------------------------------------


def counts(one):
    return [one.count(name) for name in ("waiting", "training", "finished", "stopped", "diverged")]


def test_a_run_waits_trains_and_ends():
    one = ledger()
    assert counts(one) == [4, 0, 0, 0, 0]
    assert [row(one, 1, step) for step in (0, 20, 180, 200)] == ["training", "training", "training", "finished"]
    assert counts(one) == [3, 0, 1, 0, 0]
    assert row(one, 2, 0) == "training"
    assert row(one, 3, 0, train_loss=math.nan) == "diverged"
    assert counts(one) == [1, 1, 1, 0, 1]
    assert [one.over(run) for run in range(4)] == [False, True, False, True]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_diverged_run_keeps_the_last_finite_numbers(loss):
    one = ledger()
    row(one, 0, 0, test_loss=5.0, train_loss=4.0, train_acc=0.25, test_acc=0.5)
    assert row(one, 0, 20, train_loss=loss, test_loss=9.0, train_acc=1.0, test_acc=1.0) == "diverged"
    assert row(one, 0, 40, test_loss=2.0) == "diverged"  # passed over
    found = one.records[0]
    assert [found[name] for name in ("last_step", *FINAL)] == [20, 4.0, 5.0, 0.25, 0.5]
    assert found["memorised_step"] is found["grokked_step"] is None


def test_a_test_loss_that_is_not_finite_is_no_divergence():
    one = ledger(stop_loss=1.0, stop_evals=1)
    assert row(one, 0, 0, test_loss=math.nan) == "training"
    assert row(one, 0, 20, test_loss=math.inf) == "training"


def test_numbers_are_those_of_the_last_row():
    one = ledger()
    row(one, 2, 0, test_loss=5.0, train_loss=4.0, train_acc=0.25, test_acc=0.5)
    row(one, 2, 20, test_loss=3.0, train_loss=2.0, train_acc=0.5, test_acc=0.125)
    assert {name: one.records[2][name] for name in ("last_step", *FINAL)} == {
        "last_step": 20,
        "train_loss": 2.0,
        "test_loss": 3.0,
        "train_acc": 0.5,
        "test_acc": 0.125,
    }
    assert one.records[1] == dict.fromkeys(SUMMARY) | {"status": "waiting"}


# --- milestones -------------------------------------------------------------------------------------------------------


def milestones(one, run=0):
    return [one.records[run][name] for name in ("memorised_step", "grokked_step")]


def test_milestones_are_the_first_steps_at_99_percent_that_are_kept_and_are_counted_once():
    one = ledger()
    row(one, 0, 0, train_acc=0.98999, test_acc=0.5)
    assert (one.count("memorised_step"), one.count("grokked_step")) == (0, 0)
    row(one, 0, 20, train_acc=0.99, test_acc=0.98)
    assert milestones(one) == [20, None]  # as it stands
    row(one, 0, 40, train_acc=0.5, test_acc=0.99)
    assert milestones(one) == [None, 40]  # the spike of step 20 is taken back
    assert (one.count("memorised_step"), one.count("grokked_step")) == (0, 1)
    row(one, 0, 60, train_acc=1.0, test_acc=math.nan)
    row(one, 0, 80, train_acc=1.0, test_acc=1.0)
    row(one, 0, 100, train_acc=0.0, test_acc=0.0)
    row(one, 1, 0, train_acc=1.0, test_acc=0.0)
    assert milestones(one) == [60, 40]
    assert milestones(one, 1) == [0, None]
    assert (one.count("memorised_step"), one.count("grokked_step")) == (2, 1)


def test_a_run_that_diverges_keeps_no_milestone_of_its_last_evaluation():
    one = ledger()
    row(one, 0, 0, train_acc=1.0, test_acc=0.0)
    row(one, 0, 20, train_acc=1.0, test_acc=1.0)
    assert row(one, 0, 40, train_loss=math.nan, train_acc=1.0, test_acc=1.0) == "diverged"
    assert milestones(one) == [0, None]
    assert (one.count("memorised_step"), one.count("grokked_step")) == (1, 0)


def test_the_last_evaluation_of_a_stopped_run_counts():
    one = ledger(stop_loss=0.5, stop_evals=1)
    row(one, 0, 0)
    assert row(one, 0, 20, train_acc=1.0, test_acc=1.0, test_loss=0.1) == "stopped"
    assert milestones(one) == [20, 20]


accuracies = st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.5, 0.98, 0.99, 1.0]))


@given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=12), st.booleans())
def test_a_stream_says_what_the_table_says(rows, diverges):
    """The ledger, evaluation by evaluation, and phases, off the table so far, give one number."""
    one = ledger(1, steps=10_000)
    table = []
    for i, (train_acc, test_acc) in enumerate(rows):
        lost = diverges and i == len(rows) - 1
        values = {"train_acc": train_acc, "test_acc": test_acc, "train_loss": math.nan if lost else 1.0}
        row(one, 0, 20 * i, **values)
        table.append({"step": 20 * i, "test_loss": 1.0} | (dict.fromkeys(values, math.nan) if lost else values))
        frame = pd.DataFrame(table)
        if frame[["train_acc", "test_acc"]].notna().any().all():  # without any accuracy, a loss would stand in
            found = find_phases(frame).iloc[0]
            read = [None if math.isnan(found[name]) else found[name] for name in ("memorised_by", "grokked_by")]
            assert milestones(one) == read
        assert one.count("grokked_step") == (milestones(one)[1] is not None)


# --- the stop rule ----------------------------------------------------------------------------------------------------


def statuses(losses, **rule):
    one = ledger(**rule)
    return [row(one, 0, 20 * i, test_loss=loss) for i, loss in enumerate(losses)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_run_stops_at_the_nth_evaluation_below(n):
    assert statuses([0.1] * n, stop_loss=0.5, stop_evals=n) == ["training"] * (n - 1) + ["stopped"]


def test_evaluations_count_in_a_row():
    losses = [0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    assert statuses(losses, stop_loss=0.5, stop_evals=3) == ["training"] * 5 + ["stopped"]


def test_the_limit_itself_is_not_below_it():
    assert statuses([0.5] * 5, stop_loss=0.5, stop_evals=2) == ["training"] * 5
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert statuses([below] * 2, stop_loss=0.5, stop_evals=2) == ["training", "stopped"]


def test_losses_are_compared_in_float32_as_on_the_device():
    """0.1 in float32 is 0.100000001…, and so is what the device compares it with."""
    assert statuses([float(np.float32(0.1))] * 3, stop_loss=0.1, stop_evals=1) == ["training"] * 3
    assert statuses([0.1 - 1e-12] * 3, stop_loss=0.1, stop_evals=1) == ["training"] * 3


def test_without_the_rule_a_loss_of_nothing_stops_nothing():
    for loss in (0.0, -0.0, -1e-9):
        assert statuses([loss] * 5, stop_loss=0.0, stop_evals=1) == ["training"] * 5


def test_a_run_that_reaches_its_last_step_is_finished_even_if_the_rule_is_fulfilled_there():
    assert statuses([0.1] * 3, stop_loss=0.5, stop_evals=3, steps=40) == ["training", "training", "finished"]


def test_rows_after_a_stop_are_passed_over():
    one = ledger(stop_loss=0.5, stop_evals=1)
    assert row(one, 0, 20, test_loss=0.25) == "stopped"
    assert row(one, 0, 40, test_loss=0.125, train_acc=1.0) == "stopped"
    assert (one.records[0]["last_step"], one.records[0]["test_loss"]) == (20, 0.25)
    assert one.records[0]["memorised_step"] is None


def test_runs_are_counted_apart():
    one = ledger(stop_loss=0.5, stop_evals=2)
    assert [row(one, run, step, test_loss=0.1) for step in (0, 20) for run in (0, 1)] == ["training"] * 2 + [
        "stopped"
    ] * 2


# --- final keys -------------------------------------------------------------------------------------------------------


def test_keys_are_frequencies_from_1():
    one = ledger()
    one.set_keys(2, np.array([True, False, True]))
    assert one.records[2]["key_freqs"] == [1, 3]
    one.set_keys(1, np.zeros(3, bool))
    assert one.records[1]["key_freqs"] == []
    assert one.records[0]["key_freqs"] is None


def test_ended_runs_are_unsettled_in_the_order_in_which_they_ended_until_they_are_settled():
    one = ledger(stop_loss=0.5, stop_evals=1)
    for run, step, loss in [(0, 20, 1.0), (3, 200, 1.0), (1, 20, 0.1), (2, 20, 1.0)]:
        row(one, run, step, test_loss=loss)
    row(one, 2, 40, train_loss=math.nan)  # a diverged run has no final keys
    row(one, 0, 200)
    assert [run.run for run in one.without_keys(KEYED)] == [3, 1, 0]
    assert one.without_keys(registry.metrics_columns(())) == []
    one.set_keys(1, mask(2))
    assert [run.run for run in one.without_keys(KEYED)] == [3, 0]


def test_keys_on_disk_settle_a_run_at_its_last_step_alone():
    one = ledger()
    row(one, 0, 100, key_freqs=mask(1))
    assert one.records[0]["key_freqs"] is None  # still training
    row(one, 0, 200, key_freqs=None)
    assert [run.run for run in one.without_keys(KEYED)] == [0]
    frame = {"run": [1, 1], "step": [180, 200], **{name: [1.0, 1.0] for name in FINAL}}
    one.update(frame | {"key_freqs": [mask(1, 2), None]})
    assert one.records[1]["key_freqs"] is None  # an earlier row does not tell
    one.update(
        {"run": [2, 3], "step": [200, 200], **{name: [1.0, 1.0] for name in FINAL}} | {"key_freqs": [mask(2), mask(3)]}
    )
    assert [one.records[run]["key_freqs"] for run in (2, 3)] == [[2], [3]]
    assert [run.run for run in one.without_keys(KEYED)] == [0, 1]


def test_keys_on_disk_settle_a_stopped_run():
    one = ledger(stop_loss=0.5, stop_evals=1)
    assert row(one, 0, 100, test_loss=0.1, key_freqs=mask(1, 3)) == "stopped"
    assert one.records[0]["key_freqs"] == [1, 3]
    assert row(one, 1, 100, train_loss=math.nan, key_freqs=mask(1)) == "diverged"
    assert one.records[1]["key_freqs"] is None


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_run_that_is_told_as_waiting_is_as_if_it_had_never_begun():
    one, other = ledger(stop_loss=0.5, stop_evals=2), ledger(stop_loss=0.5, stop_evals=2)
    for some, run in ((one, 0), (one, 1), (other, 1), (one, 2)):
        row(some, run, 0, train_acc=1.0, test_acc=1.0)
        row(some, run, 20, test_loss=0.1)
        row(some, run, 200)
        some.set_keys(run, mask(1))
    before = one.table()
    assert one.table(waiting=[0, 2, 3]).equals(other.table())
    assert one.table().equals(before)
    assert not before.equals(other.table())


def test_the_table_has_a_row_per_run_in_the_types_that_it_promises():
    one = ledger(3)
    row(one, 1, 200, test_loss=0.5, train_acc=1.0)
    one.set_keys(1, mask(2, 3))
    table = one.table()
    assert table["run"].to_pylist() == [0, 1, 2]
    assert table["status"].to_pylist() == ["waiting", "finished", "waiting"]
    assert table["last_step"].to_pylist() == [None, 200, None]
    assert table["memorised_step"].to_pylist() == [None, 200, None]
    assert table["key_freqs"].to_pylist() == [None, [2, 3], None]
    assert table["test_loss"].to_pylist() == [None, 0.5, None]
    assert table["seed"].to_pylist() == [0, 1, 2]
    assert table["measures"].to_pylist() == [[]] * 3
    assert table.schema.field("key_freqs").type == pa.list_(pa.int64())
    assert table.schema.field("run").type == pa.int32()
