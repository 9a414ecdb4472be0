"""The curves of a run as rules ask for them, and the numbers that their readings depend on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax.errors import InputError
from grokjax.phases.curves import (
    SMALLEST,
    Curves,
    Reading,
    Series,
    Settings,
    burst,
    crossing,
    first_level,
    levelled,
    noise,
    reading_at,
    running_median,
    turn,
)


@given(st.lists(st.floats(-10, 10), max_size=30), st.sampled_from([1, 3, 5, 7]))
def test_running_median_leaves_monotone_curves_alone(values, width):
    monotone = np.sort(np.array(values, float))
    np.testing.assert_array_equal(running_median(monotone, width), monotone)


def test_running_median_by_hand():
    value = np.array([9.0, 1, 8, 2, 7, 3, 0])
    assert running_median(value, 3).tolist() == [9, 8, 2, 7, 3, 3, 0]
    assert running_median(value, 5).tolist() == [9, 8, 7, 3, 3, 3, 0]  # the second of each end over three
    assert running_median(value, 1).tolist() == value.tolist()
    assert running_median(value[:2], 5).tolist() == [9, 1]
    assert running_median(value[:3], 99).tolist() == [9, 8, 8]


# --- settings -------------------------------------------------------------------------------------------------------

SHARES = ("train_accuracy", "test_accuracy", "ungrok_accuracy", "turn", "drop", "burst", "class_accuracy")
ABOVE_0 = ("level_exponent", "level_window", "rate_window", "class_ratio", "class_gap", "class_budget")


@pytest.mark.parametrize(
    ("names", "refused", "expected"),
    [
        (SHARES, (-0.1, 0, 1, 99), "between 0 and 1"),
        (ABOVE_0, (-1, 0, math.inf), "above 0"),
        (("smooth",), (-1, 0, 2, 4), "an odd number, such as 5"),
        (("noise",), (-0.001,), "0 or more"),
        (("gap", "level_depth", "settled"), (0.5, 1), "above 1"),
        (("chance_loss",), (-1.0, 0.0), "above 0, such as ln P"),
    ],
)
def test_settings_out_of_range(names, refused, expected):
    for name in names:
        for value in (*refused, *([] if name == "smooth" else [math.nan])):
            with pytest.raises(InputError) as caught:
                Settings(**{name: value})
            assert str(caught.value) == f"setting {name} = {value} must be {expected}."


def test_class_rules_have_names():
    with pytest.raises(InputError, match="class_rule 'relativ' is unknown: did you mean 'relative'"):
        Settings(class_rule="relativ")


def test_ungrokking_is_below_grokking():
    with pytest.raises(InputError) as caught:
        Settings(test_accuracy=0.9, ungrok_accuracy=0.91)
    assert str(caught.value) == "setting ungrok_accuracy = 0.91 must be at most test_accuracy."
    assert Settings(test_accuracy=0.9, ungrok_accuracy=0.9).ungrok_accuracy == 0.9


@pytest.mark.parametrize(
    ("names", "accepted"),
    [
        (SHARES, (1e-9, 1 - 1e-9)),
        (ABOVE_0, (1e-9, 1e300)),
        (("smooth",), (1, 3)),
        (("noise",), (0,)),
        (("gap", "level_depth", "settled"), (1.001, math.inf)),
        (("chance_loss",), (None, 1e-9)),
    ],
)
def test_settings_just_in_range(names, accepted):
    for name in names:
        for value in accepted:
            given = {"test_accuracy": 1 - 1e-9, "ungrok_accuracy": 1e-9} | {name: value}
            assert getattr(Settings(**given), name) == value


# --- series ---------------------------------------------------------------------------------------------------------


def series(*raw, value=None, every=10, noise=0.0):
    raw = np.array(raw, float)
    return Series(
        every * np.arange(raw.size, dtype=float), raw, raw if value is None else np.array(value, float), noise
    )


def test_noise_by_hand():
    zigzag = np.arange(10) % 2.0  # its third differences are 4 in size
    assert noise(zigzag) == pytest.approx(4 / (math.sqrt(20) * 0.3186))
    assert noise(zigzag[:9]) == 0
    rising = np.cumsum(np.cumsum(np.cumsum([0, 0, 0, *range(1, 9)]))).astype(float)  # third differences 1 … 8
    assert noise(rising) == pytest.approx(3 / (math.sqrt(20) * 0.3186))


def test_the_first_column_with_five_values_is_read():
    step, held = np.arange(8.0), np.array([0, 2.0, 3, 4, 5, 6, 7, 8])
    four, five = np.where(step < 4, held, np.nan), np.where(step < 5, held, np.nan)

    def curves(**columns):
        return Curves(step, columns, Settings(smooth=1), None)

    assert curves(excluded_loss=four, excluded_loss_max=five).column("excluded_loss") == "excluded_loss_max"
    assert curves(excluded_loss=five, excluded_loss_max=held).column("excluded_loss") == "excluded_loss"
    assert curves(excluded_loss=four, excluded_loss_max=four).column("excluded_loss") == "excluded_loss"
    assert curves(excluded_loss=step * np.nan, excluded_loss_max=four).column("excluded_loss") == "excluded_loss_max"
    one = np.where(step == 3, 1.0, np.nan)
    assert (
        curves(excluded_loss=step * np.nan, excluded_loss_online=one).column("excluded_loss") == "excluded_loss_online"
    )
    assert curves(excluded_loss=step * np.nan).column("excluded_loss") is None
    read = curves(test_loss=five, gini_W_L=five)
    assert read.series("test_loss").step.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(read.series("test_loss").raw, np.log([SMALLEST, 2, 3, 4, 5]))
    assert read.series("gini").raw.tolist() == [0, 2, 3, 4, 5]


def test_a_threshold_is_reached_at_equality():
    step = 100.0 * np.arange(4)
    loss = np.array([1, -math.log(0.97), -math.log(0.98) * (1 - 1e-12), 0.01])
    settings = Settings(smooth=1, train_accuracy=0.98, test_accuracy=0.98, ungrok_accuracy=0.97)
    by_loss = Curves(step, {"train_loss": loss, "test_loss": loss}, settings, None)
    assert by_loss.memorised == by_loss.grokked == Reading(100, 200, 200)
    step = 100.0 * np.arange(5)
    accuracy = np.array([0.97, 0.97, 0.98, 0.98, 0.969])
    by_accuracy = Curves(step, {"test_loss": step * 0, "test_acc": accuracy}, settings, None)
    assert by_accuracy.grokked == Reading(100, 200, 200)
    assert by_accuracy.ungrokked == by_accuracy.lost_grokking == Reading(300, 400, 400)
    accuracy[4] = 0.97
    assert Curves(step, {"test_acc": accuracy}, settings, None).ungrokked is None


@pytest.mark.parametrize(
    ("accuracy", "grokked", "ungrokked"),
    [
        ([0, 1, 0, 1, 1], (200, 300, 300), None),  # one evaluation is a spike
        ([0, 1, 0, 0, 1], (300, 400, 400), None),  # the last one counts as it stands
        ([0, 1, 0, 1, 0], None, None),
        ([0, 1, 1, 0, 1], (0, 100, 100), None),
        ([0, 1, 1, 0, 0], (0, 100, 100), (200, 300, 300)),
        ([1, 1, 0, 1, 0], (0, 0, 0), (100, 200, 200)),
        ([0, 1, np.nan, 1, 0], (0, 100, 100), (300, 400, 400)),  # one that was not recorded says nothing
        ([0, 0, 0, 1, np.nan], (200, 300, 300), None),
    ],
)
def test_an_accuracy_counts_where_the_next_evaluation_keeps_it(accuracy, grokked, ungrokked):
    step = 100.0 * np.arange(5)
    found = Curves(step, {"test_acc": np.array(accuracy, float)}, Settings(), None)
    assert (found.grokked, found.ungrokked) == (grokked, ungrokked)
    diverged = Curves(step, {"test_acc": np.array(accuracy, float)}, Settings(), None, diverged=True)
    only_last = grokked is not None and np.nansum(accuracy[int(grokked[1]) // 100 :]) == 1
    assert diverged.grokked == (None if only_last else grokked)


@pytest.mark.parametrize(
    ("accuracy", "lost", "ungrokked"),
    [
        ([0, 1, 1, 0, 0, 1, 1], (200, 300, 300), None),  # it comes back
        ([0, 1, 1, 0, 1, 0, 1], None, None),  # slingshots
        ([0, 1, 1, 0, 1, 0, 0], (400, 500, 500), (200, 300, 300)),  # after its last two in a row
        ([0, 1, 1, 1, 1, 1, 0], (500, 600, 600), (500, 600, 600)),  # the last one counts as it stands
        ([0, 0, 0, 1, 0, 0, 1], (None), None),  # the last one has grokked, none before it has
        ([0, 1, 1, 0.96, 0.96, 0.96, 0.96], None, None),  # between the thresholds
        ([0, 1, 1, 0, np.nan, 0, 1], (200, 300, 300), None),
        ([0, 0, 0, 0, 0, 0, 0], None, None),
    ],
)
def test_grokking_is_lost_where_two_evaluations_in_a_row_are_below(accuracy, lost, ungrokked):
    step = 100.0 * np.arange(7)
    found = Curves(step, {"test_acc": np.array(accuracy, float)}, Settings(), None)
    assert (found.lost_grokking, found.ungrokked) == (lost, ungrokked)
    by_loss = Curves(step, {"test_loss": -np.log(np.maximum(accuracy, 1e-9))}, Settings(), None)
    assert (by_loss.lost_grokking, by_loss.ungrokked) == (lost, ungrokked)


def test_one_below_before_a_divergence_is_a_loss():
    accuracy = {"test_acc": np.array([0, 1, 1, 0], float)}
    found = Curves(100.0 * np.arange(4), accuracy, Settings(), None, diverged=True)
    assert found.lost_grokking == Reading(200, 300, 300)


def test_a_reading_lies_between_two_evaluations():
    s = Series(np.array([50.0, 60, 90]), *[np.zeros(3)] * 2, 0.0)
    assert reading_at(s, 0) == (0, 50, 50)
    assert reading_at(s, 2) == (60, 90, 90)
    there = np.array([True, False, True])
    assert crossing(s, there) == (0, 50, 50)
    assert crossing(s, there, 50) == (0, 50, 50)
    assert crossing(s, there, 51) == (60, 90, 90)
    assert crossing(s, there, 91) is None


# --- turns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "back"), [(1, -math.log(0.95)), (-1, math.log(1.05))])
def test_a_turn_is_confirmed_by_five_percent(sign, back):
    found = [turn(series(-sign, 0, -sign * by), sign, Settings()) for by in (0.999 * back, 1.001 * back)]
    assert found == [None, (0, 10, 20)]


def test_a_turn_reaches_beyond_a_spike_beside_it():
    value = [0, 1, 2, 3, 4, 3, 2, 1, 0]
    s = series(9, 1, 6, 3, 4, 3, 7, 1, 9, value=value)
    assert turn(s, 1, Settings()) == (20, 40, 60)
    assert turn(s, 1, Settings(smooth=1)) == (30, 40, 50)
    lower = s._replace(raw=-s.raw, value=-s.value)
    assert turn(lower, -1, Settings()) == (20, 40, 60)
    assert turn(series(3, 8, 1, 9, 0, value=[3, 4, 5, 4, 0]), 1, Settings()) == (10, 20, 30)  # fewer than 3 before


def test_a_turn_is_as_wide_as_the_noise():
    s = series(0, 1.79, 1.81, 2, 1.81, 1.79, 1, noise=0.1)
    assert turn(s, 1, Settings(noise=2)) == (10, 20, 50)
    assert turn(s, 1, Settings(noise=0)) == (20, 30, 40)
    assert turn(s, 1, Settings(noise=2.2)) == (0, 10, 60)
    assert turn(series(0, 1, 2, 1.9, noise=0.1), 1, Settings()) == (10, 20, 30)  # nothing after it
    assert turn(series(2, 1, 0), 1, Settings()) == (0, 0, 10)


def test_a_turn_between_two_steps():
    s = series(0, 5, 0, 3, 0)
    assert turn(s, 1, Settings(), start=10).at == turn(s, 1, Settings(), stop=10).at == 10
    assert turn(s, 1, Settings(), start=11).at == 30
    assert turn(s, 1, Settings(), stop=9) is None
    assert turn(s, 1, Settings(), start=41) is None


def test_of_equal_medians_the_raw_curve_decides():
    assert turn(series(0, 2, 2.5, 3, 0, value=[0, 2, 2, 2, 0]), 1, Settings(smooth=1)) == (20, 30, 40)


# --- levels ---------------------------------------------------------------------------------------------------------


def test_a_loss_is_level_where_twice_the_steps_no_longer_halve_it():
    fall = -2 * np.log([1, 100, 200, 300, 300, 300])
    s = series(*fall, every=100)
    assert levelled(s, Settings(), 0).tolist() == [3, 4]
    assert levelled(s, Settings(), 400).tolist() == [4]
    assert levelled(s, Settings(), 401).tolist() == []
    assert levelled(s, Settings(level_window=1), 0).tolist() == []  # of 100 and 200 it is not level, of 300 not known
    assert levelled(s, Settings(level_exponent=2.1), 0).tolist() == [1, 2, 3, 4]
    assert levelled(s, Settings(level_exponent=1.9), 0).tolist() == [3, 4]
    halving = series(*-np.log([1, 100, 200, 300, 400]), every=100)  # as fast as the exponent says: not yet level
    assert levelled(halving, Settings(), 0).tolist() == []
    spike = series(0, -10, -4, -10, -10, every=100)
    assert levelled(spike, Settings(), 0).tolist() == [1, 2, 3]


def test_a_level_starts_before_a_spike():
    s = series(0, 0, 1, 3, 3, 9, 9)
    assert first_level(s, np.array([5, 6]), Settings()) == (20, 50, 50)
    assert first_level(s, np.array([5]), Settings(smooth=1)) == (40, 50, 50)
    assert first_level(series(1, 1, 1, 1), np.array([3]), Settings()) == (20, 30, 30)
    assert first_level(s, np.array([1]), Settings()) == (0, 10, 10)
    assert first_level(s._replace(step=s.step + 7), np.array([0]), Settings()) == (0, 7, 7)
    assert first_level(s, np.array([], int), Settings()) is None


# --- bursts ---------------------------------------------------------------------------------------------------------

RISE = (0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2)  # at steps 0, 100, …, 1000: the speed is 0 but for 1, 2, 1 from 500 to 700


@pytest.mark.parametrize(
    ("options", "onset", "end"),
    [
        ({"burst": 0.5}, (300, 500, 600), (600, 700, 900)),  # at one half it is still fast
        ({"burst": 0.51}, (400, 600, 700), (500, 600, 800)),
        ({"rate_window": 0.5}, (300, 500, 700), (600, 900, 1000)),  # 600: from 400 to 800; 900: from 600 to 1000
    ],
)
def test_a_burst_by_hand(options, onset, end):
    s = series(*RISE, every=100)
    assert burst(s, 1, Settings(**options), 0) == (onset, end)
    assert burst(s._replace(value=-s.value), -1, Settings(**options), 0) == (onset, end)
    assert burst(s, -1, Settings(**options), 0) is None


def test_a_burst_counts_from_a_slow_start_to_its_end():
    s = series(*RISE, every=100)
    assert burst(s, 1, Settings(), 400) is not None
    assert burst(s, 1, Settings(), 401) is None  # fast from the start
    assert burst(s, 1, Settings(), 1_001) is None
    assert burst(series(*RISE[:8], every=100), 1, Settings(), 0) is None  # not over
    assert burst(series(0, 0, 1, 1, 1), 1, Settings(), 0) == ((0, 10, 20), (10, 20, 40))
    assert burst(series(0, 1, 1, 1), 1, Settings(), 0) is None  # four evaluations
