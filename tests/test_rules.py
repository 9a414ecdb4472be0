"""The rules that end phases: what they read off published curves and off curves with planted boundaries."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from planted import CHANCE, ENDS, planted, reference, sweep_of_planted

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases import find_phases
from grokjax.phases.curves import Curves, Settings
from grokjax.phases.rules import RULES, read

# What published curves say; the readings by eye and their reasons are in docs/phases.md.


def test_reference_trajectory():
    row = find_phases(reference("mod113_trajectory")).iloc[0]
    assert (row["memorised_after"], row["memorised_by"]) == (0, 200)
    assert (row["grokked_after"], row["grokked_by"]) == (4000, 4400)
    assert row["run_class"] == "grokking"
    assert not row[["censored", "never_memorised", "diverged", "ungrokked", "overlap"]].any()
    # Train loss stops at 1 400; test loss is 6.1, 1.4, 0.03 at 3 600, 4 000, 4 400 and not halved again from 5 600 on.
    for name, (after, end, by) in {
        "memorization": (1200, 1400, 1600),
        "circuit_formation": (3600, 4000, 4000),
        "cleanup": (5200, 5600, 5600),
    }.items():
        assert tuple(row[[f"{name}_end_after", f"{name}_end", f"{name}_end_by"]]) == (after, end, by)
    assert (row["circuit_formation_end_earliest"], row["circuit_formation_end_latest"]) == (4000, 4400)
    assert (row["cleanup_end_earliest"], row["cleanup_end_latest"]) == (5200, 5600)
    # The final circuit's excluded loss turns at the first evaluation: formation overlaps memorization.
    assert row["memorization_end_earliest"] == 200


def test_released_curve_at_small_weight_decay():
    row = find_phases(reference("released_wd0.1_loss_curve")).iloc[0]
    assert row["memorised_rule"] == row["grokked_rule"] == "loss"
    assert (row["memorised_by"], row["grokked_by"]) == (180, 99_000)
    assert 1_400 <= row["memorization_end"] <= 1_600
    assert 85_000 <= row["circuit_formation_end"] <= 90_000
    assert np.isnan(row["cleanup_end"])
    assert row["cleanup_end_rule"] == "test_level"  # looked, and test loss still fell by a factor 8 in 2 500 steps


def test_released_curve_with_slingshots():
    row = find_phases(reference("released_wd1_float32_loss_curve")).iloc[0]
    assert 1_300 <= row["memorization_end"] <= 1_500  # not the slingshots from 2 280 on
    assert 8_000 <= row["circuit_formation_end"] <= 9_000
    assert row["cleanup_end"] == 11_800  # 2e-6 between two slingshots, and twice that at no time later
    assert not row["ungrokked"]


@pytest.mark.parametrize("thin", [2, 3])
@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("mod113_trajectory", ENDS),
        ("released_wd0.1_loss_curve", ENDS),
        # After grokking this one dives and jumps over four decades every 1 300 steps: no end of cleanup to hold on to.
        ("released_wd1_float32_loss_curve", ENDS[:2]),
    ],
)
def test_thinned_reference(name, ends, thin):
    metrics = reference(name)
    full, thinned = find_phases(metrics).iloc[0], find_phases(metrics.iloc[::thin]).iloc[0]
    gaps = metrics["step"].iloc[::thin]
    for end in [*ends, "memorised_by", "grokked_by"]:
        if np.isnan(full[end]):
            assert np.isnan(thinned[end])
            continue
        around = gaps[(gaps >= full[end]).cumsum() <= 2]  # the thinned evaluations up to the second from there on
        assert abs(thinned[end] - full[end]) <= np.diff(around)[-2:].max()


# Planted boundaries.


def test_every_rule_reads_a_trajectory_like_the_reference():
    """The readings of a curve whose ends are planted: 1 400, 4 000 and 5 600, evaluated every 200 steps."""
    found = phases.readings(planted(1_400, 4_000, 5_600, 10_000, every=200)).set_index("rule")
    turns = (1_200, 1_400, 1_600)
    drop = (4_000, 4_200, 4_200)  # test loss is 8 at 4 000 and 0.92, an accuracy of 0.52, at 4 200
    onset, end = (3_600, 4_000, 4_200), (5_200, 5_600, 6_200)  # weights and Gini: speeds over two evaluations
    expected = {
        **{"losses_flat": turns, "train_level": (1_200, 1_400, 1_400), "test_peak": turns, "excluded_turn": turns},
        **{"test_drop": drop, "test_half": drop, "excluded_peak": (3_800, 4_000, 4_200)},
        **{"weights_drop": onset, "gini_jump": onset, "weights_settled": end, "gini_settled": end},
        **{"test_level": (5_400, 5_600, 5_600), "gap_closed": (5_400, 5_600, 5_600)},
    }
    assert {name: tuple(row) for name, row in found[["after", "at", "by"]].iterrows()} == expected
    row = find_phases(planted(1_400, 4_000, 5_600, 10_000, every=200)).iloc[0]
    assert (row["memorised_after"], row["memorised_by"]) == (400, 600)
    assert (row["grokked_after"], row["grokked_by"]) == (4_400, 4_600)
    assert (row["delay"], row["delay_min"], row["delay_max"]) == (4_000, 3_800, 4_200)
    assert (row["circuit_formation_end_earliest"], row["circuit_formation_end_latest"]) == (4_000, 4_200)
    assert row["run_class"] == "grokking"


def test_a_loss_curve_that_still_falls_has_no_end_of_cleanup():
    """Like the released curve at small weight decay: losses alone, and test loss falls to the last evaluation."""
    metrics = planted(1_400, 4_000, 5_600, 10_000, every=200)[["step", "train_loss", "test_loss"]]
    row = find_phases(metrics[metrics["step"] <= 5_400]).iloc[0]
    assert row["memorised_rule"] == row["grokked_rule"] == "loss"
    assert (row["memorised_by"], row["grokked_by"]) == (600, 4_800)  # losses of 0.01
    assert (row["memorization_end"], row["circuit_formation_end"]) == (1_400, 4_200)
    assert np.isnan(row["cleanup_end"])
    assert row["cleanup_end_rule"] == "test_level"  # looked, and not found
    assert not row[["censored", "never_memorised", "diverged", "ungrokked", "overlap"]].any()


def curves(chance=4.0, settings=None, **columns):
    """Evaluations every 100 steps, read without smoothing."""
    columns = {name: np.array(values, float) for name, values in columns.items()}
    step = 100.0 * np.arange(len(columns["train_loss"]))
    return Curves(step, columns, settings or Settings(smooth=1), chance)


@pytest.mark.parametrize(
    ("test_loss", "reading"),
    [
        ([4, 9, 2.0], (100, 200, 200)),  # half of chance
        ([4, 9, 2.001], None),
        ([4, 4, 1.9, 1, 1], (100, 200, 200)),
        ([4, 1.2, 1.3, 0.66, 0.66], None),  # memorised below chance: half of where it was a quarter of the steps ago
        ([4, 1.2, 1.3, 0.65, 0.65], (200, 300, 300)),
        ([4, 1.2, 0.7, 0.6, 0.29], (300, 400, 400)),
        ([4, 3.2, 2.9, 2.6, 2.3, 2.1, 1.8, 1.5, 1.2, 0.9, 0.59, 0.4], (900, 1_000, 1_000)),
        ([4, 3.9, 4, 2.1, 1.9], (300, 400, 400)),  # back at chance
    ],
)
def test_the_test_loss_has_dropped_at_half_of_chance_and_of_its_level(test_loss, reading):
    n = len(test_loss)
    c = curves(train_loss=[4, *[1e-3] * (n - 1)], test_loss=test_loss, test_acc=[0] * (n - 1) + [1])
    assert read(c, "circuit_formation", "test_drop") == reading


GROKKED = [0.1, 0.2, 0.499, 0.5, 0.5, 1.0]
NOTHING = [0.1, 0.2, 0.499, 0.5, 0.5, 0.5]


def test_half_of_the_test_pairs():
    c = curves(train_loss=[4, *[1e-3] * 5], test_loss=[4] * 6, test_acc=GROKKED)
    assert read(c, "circuit_formation", "test_half") == (200, 300, 300)


def test_no_circuit_forms_in_a_run_that_never_groks_unless_it_is_shown():
    columns = {"train_loss": [4, *[1e-3] * 5], "test_loss": [4, 6, 6, 1, 0.1, 0.1]}
    columns["excluded_loss"] = [4, 1, 2, 3, 2, 1]
    for accuracy, heldout, circuit, cleanup in (
        (GROKKED, [4.0] * 6, True, True),
        (NOTHING, [4.0] * 6, False, False),
        (NOTHING, [4.0, 4, 1.9, 4, 2.1, 2.1], False, False),  # one evaluation is a spike
        (NOTHING, [4.0, 4, 1.9, 2.0, 9, 9], True, False),
    ):
        c = curves(**columns, test_acc=accuracy, heldout_restricted_loss=heldout)
        rules = ("test_drop", "test_half", "excluded_peak")
        assert [read(c, "circuit_formation", rule) is not None for rule in rules] == [circuit] * 3
        assert (c.circuit is not None) == (heldout[2:4] == [1.9, 2.0])
        if not cleanup:
            assert not any(read(c, "cleanup", rule) for rule in ("test_level", "gap_closed"))
        assert read(c, "memorization", "test_peak") == (0, 100, 300)


@pytest.mark.parametrize(
    ("fall", "at_300", "test_loss", "at"),
    [(9.9, False, 9, 100), (10.1, False, 9, 400), (10.1, True, 9, 300), (100, True, 1, 100), (100, False, 1, 100)],
)
def test_a_pause_is_no_level_where_the_train_loss_falls_tenfold_before_the_drop(fall, at_300, test_loss, at):
    after = 1e-3 / fall
    train = [4, 1e-3, 1e-3, after if at_300 else 1e-3, after, after, after]
    c = curves(train_loss=train, test_loss=[4, 5, 6, test_loss, test_loss, test_loss, test_loss])
    assert read(c, "memorization", "train_level").at == at


@pytest.mark.parametrize("drop", [2, 3])
def test_a_pause_at_or_after_the_drop_is_compared_with_all_that_follows(drop):
    train = [4, 1e-3, 1e-4, 1e-5, 1e-5, 1e-7, 1e-7, 1e-7]  # it pauses at 300
    c = curves(train_loss=train, test_loss=[4, *[5] * (drop - 1), *[1] * (8 - drop)])
    assert read(c, "memorization", "train_level") == (400, 500, 500)


def test_losses_are_flat_when_both_are():
    train, late = [4, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3], [4, 1e-1, 1e-2, 1e-3, 1e-4, 1e-4, 1e-4]
    for c, flat in (
        (curves(train_loss=train, test_loss=[4, 5, 6, 7, 6, 6]), (200, 300, 400)),
        (curves(train_loss=late, test_loss=[4, 5, 4.5, 4.4, 4.3, 4.3, 4.3]), (300, 400, 400)),
    ):
        assert read(c, "memorization", "losses_flat") == flat
        assert {read(c, "memorization", rule).at for rule in ("train_level", "test_peak")} == {100, flat[1]}
    assert read(curves(train_loss=train, test_loss=[4, 5, 6, 7, 8, 9]), "memorization", "losses_flat") is None
    unlearned = curves(train_loss=[4] * 6, test_loss=[4, 5, 6, 7, 6, 6])
    assert read(unlearned, "memorization", "test_peak") is None


def test_turns_before_the_drop_alone():
    c = curves(train_loss=[4, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3], test_loss=[4, 6, 5, 1, 9, 1], test_acc=[0, 0, 0, 0, 0, 1])
    assert read(c, "memorization", "test_peak") == (0, 100, 200)
    c.columns["excluded_loss"] = np.array([4, 1, 7, 6, 0.1, 3])
    assert read(c, "memorization", "excluded_turn") == (0, 100, 200)
    assert read(c, "circuit_formation", "excluded_peak") == (100, 200, 300)
    c = curves(train_loss=[4] + [1e-3] * 4, test_loss=[4] * 5, test_acc=[0, 0, 0, 0, 1], excluded_loss=[9, 1, 7, 6, 5])
    assert read(c, "circuit_formation", "excluded_peak").at == 200  # not the 9 before the loss turned


def test_the_gap_closes_at_a_factor_of_ten_once_grokked():
    test = [4, 5, 9e-3, 10.01e-6, 9.99e-6, 1e-6]
    c = curves(train_loss=[4, *[1e-6] * 5], test_loss=test)
    assert read(c, "cleanup", "gap_closed") == (300, 400, 400)
    c = curves(train_loss=[4, *[1e-6] * 5], test_loss=test, test_acc=[0.1] * 6)
    assert read(c, "cleanup", "gap_closed") is None
    assert read(c, "cleanup", "test_level") is None


@pytest.mark.parametrize(("last", "at"), [(8.5e-4, 1_200), (9.5e-4, 1_100)])
def test_the_level_of_the_test_loss_is_the_lowest_of_a_quarter_of_the_steps_and_settled_within_twice_that(last, at):
    test_loss = [4] * 9 + [0.5, 0.1, 1.8e-3, 1e-3, 1e-3, 1e-3, *[last] * 5]  # level at 1,200, known by 1,500
    c = curves(train_loss=[4, *[1e-5] * 19], test_loss=test_loss, test_acc=[0] * 9 + [1] * 11)
    assert read(c, "cleanup", "test_level") == (at - 100, at, at)


@pytest.mark.parametrize(
    "options", [{}, {"noise": 0.03}, {"spike_every": 12}, {"noise": 0.03, "spike_every": 12}], ids=str
)
def test_planted_boundaries_within_two_evaluations(options):
    metrics, truth = sweep_of_planted(**options)
    found = find_phases(metrics.sample(frac=1, random_state=0))
    assert list(found["run"]) == list(range(len(truth)))
    for i, boundary in enumerate(RULES):
        after, by = found[f"{boundary}_end_after"], found[f"{boundary}_end_by"]
        error = np.maximum(after - truth[:, i + 1], truth[:, i + 1] - by).clip(lower=0) / truth[:, 0]
        assert error.notna().all()
        assert error.max() <= 2, (boundary, error.idxmax())
    assert not found[["censored", "overlap", "diverged", "ungrokked"]].any(axis=None)
    assert set(found["run_class"]) <= {"grokking", "comprehension"}


# The rules on progress measures measure something else than the default, so they get their own tolerance.
@pytest.mark.parametrize(
    ("rule", "evaluations"),
    [(rule, 1.5) for rule in ("train_level", "test_peak", "excluded_turn", "excluded_peak")]
    + [(rule, 1.5) for rule in ("weights_drop", "gini_jump", "weights_settled", "gini_settled")]
    + [("gap_closed", 2), ("test_half", 4)],
)
def test_other_rules_find_what_was_planted(rule, evaluations):
    metrics, truth = sweep_of_planted(noise=0.01)
    readings = phases.readings(metrics)
    readings = readings[readings["rule"] == rule]
    planted_end = truth[:, 1 + list(RULES).index(readings["phase"].iloc[0])]
    error = (readings["at"].to_numpy() - planted_end) / truth[:, 0]
    assert np.abs(error).max() <= evaluations


@pytest.mark.parametrize(("noise", "moves"), [(0, 0), (0.02, 200)])
def test_truncated_tables_say_the_same_or_nothing(noise, moves):
    full = planted(1_000, 5_000, 7_000, 12_000, noise=noise, seed=3)
    whole = find_phases(full).iloc[0]
    cut = pd.concat([full.iloc[:n].assign(run=n) for n in range(1, len(full))])
    found = find_phases(cut)
    for end in ENDS:
        assert (found[end].dropna() - whole[end]).abs().max() <= moves, end
        assert found[end].iloc[-1] == whole[end]
        assert found.loc[found["last_step"] < whole[f"{end}_after"], end].isna().all()
    before = found["last_step"] < whole["grokked_by"]
    assert (found["censored"] == before).all()
    assert (found["never_memorised"] == (found["last_step"] < whole["memorised_by"])).all()


@given(seed=st.integers(0, 10_000), keep=st.floats(0.3, 0.9))
@hypothesis_settings(max_examples=25, deadline=None)
def test_missing_rows_move_answers_by_no_more_than_the_gap(seed, keep):
    metrics = planted(1_500, 6_000, 8_000, 12_000, noise=0.01, seed=seed)
    rng = np.random.default_rng(seed)
    kept = metrics[(rng.random(len(metrics)) < keep) | (metrics["step"] == 0)]
    full, part = find_phases(metrics).iloc[0], find_phases(kept.sample(frac=1, random_state=seed)).iloc[0]
    for end in ENDS:
        gap = kept["step"][(kept["step"] >= full[end]).shift(-2, fill_value=True)].head(4).diff().max()
        assert abs(part[end] - full[end]) <= 2 * gap + 200, end


def test_a_pause_after_memorising_is_no_floor():
    metrics = planted(1_400, 5_000, 7_000, 12_000, every=20)
    pause = (metrics["step"] >= 600) & (metrics["step"] <= 800)
    metrics["train_loss"] = metrics["train_loss"].mask(pause, metrics["train_loss"][metrics["step"] == 600].item())
    early = metrics[metrics["step"] <= 1_200]
    for table in (metrics, metrics[metrics["step"] <= 2_000]):
        reading = phases.readings(table).set_index("rule").loc["train_level"]
        assert reading["at"] == 1_400
    assert np.isnan(phases.readings(early).set_index("rule").loc["train_level", "at"])


def test_chance_loss_without_step_0():
    metrics = planted(1_000, 5_000, 7_000, 12_000)
    whole = find_phases(metrics).iloc[0]
    late = metrics[metrics["step"] > 0]
    row = find_phases(late).iloc[0]
    assert row["circuit_formation_end_rule"] == "test_half"
    assert abs(row["circuit_formation_end"] - whole["circuit_formation_end"]) <= 300
    for given_ in (
        find_phases(late, Settings(chance_loss=CHANCE)).iloc[0],
        find_phases(late.assign(p=113)).iloc[0],
        find_phases(pd.concat([late.assign(run=0), metrics.assign(run=1)])).iloc[0],
    ):
        assert given_["circuit_formation_end_rule"] == "test_drop"
        assert given_["circuit_formation_end"] == whole["circuit_formation_end"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"memorisation": "test_peak"}, "phase 'memorisation' is unknown: did you mean 'memorization'"),
        ({"cleanup": "test_leveled"}, "did you mean 'test_level'"),
    ],
)
def test_rules_of_other_names(rules, message):
    with pytest.raises(InputError, match=message):
        find_phases(planted(1_000, 5_000, 7_000, 9_000), Settings(rules=rules))
