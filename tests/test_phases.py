import doctest
import itertools
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from grokjax import phase_display, phases
from grokjax.errors import InputError
from grokjax.phase_rules import COLUMNS, RULES, running_median
from grokjax.phases import Settings, find_phases

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
ENDS = [f"{boundary}_end" for boundary in RULES]
CHANCE = math.log(113)


def reference(name):
    path = REFERENCE / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"needs ../shared/reference/{name}.csv")
    return pd.read_csv(path)


def planted(memorization, circuit, cleanup, budget, every=100, noise=0.0, spike_every=0, seed=0):
    """Curves with the paper's signs and known boundaries, straight between them on the scale they are read on.

    `noise` is that of the losses' logarithms; weights and Gini coefficients, sums over many numbers, have a twentieth.
    Slingshots come every `spike_every` evaluations, with jitter, and last one or two.
    """
    rng = np.random.default_rng(seed)
    step = np.arange(0, budget + 1, every, dtype=float)

    def line(*values, size=1.0):
        value = np.interp(step, [0, memorization, circuit, cleanup, budget], values)
        return value + noise * size * rng.standard_normal(step.size) * (step > 0)

    def curve(*values, size=1.0):
        return line(*np.log(values), size=size)

    curves = {
        "train_loss": curve(CHANCE, 3e-7, 2.5e-7, 1e-7, 0.95e-7),
        "test_loss": curve(CHANCE, 16, 8, 2.5e-7, 2.2e-7),
        "excluded_loss_max": curve(CHANCE, 0.5, 15, 7, 7.5),
        "sum_sq_weights": curve(3_300, 3_100, 2_200, 950, 845, size=0.05),
    }
    gini = line(0.1, 0.2, 0.35, 0.84, 0.86, size=0.02)
    for i in range(8, step.size - 4, spike_every) if spike_every else ():
        if step[i] > memorization:
            hit = slice(i + rng.integers(3), i + 2 + rng.integers(3))
            hit = slice(hit.start, min(hit.stop, hit.start + 2))
            curves["train_loss"][hit] += rng.uniform(3, 9)
            low = np.log(rng.uniform(1e-3, 2))
            test = curves["test_loss"]
            test[hit] = np.where(step[hit] < circuit, test[hit] - 0.7, np.maximum(test[hit], low))
    frame = pd.DataFrame({"step": step, **{name: np.exp(value) for name, value in curves.items()}})
    frame["gini_W_L"] = gini
    frame["train_acc"] = np.exp(-frame["train_loss"])
    frame["test_acc"] = 0.2 + 0.8 * np.exp(-frame["test_loss"])
    return frame


def sweep_of_planted(n=40, **options):
    """Runs with different boundaries and cadences, and a table of those boundaries."""
    rng = np.random.default_rng(7)
    frames, truth = [], []
    for run in range(n):
        every = int(rng.choice([20, 100, 250]))
        ends = every * np.cumsum([rng.uniform(6, 15), rng.uniform(15, 50), rng.uniform(6, 20)])
        budget = int(every * (np.ceil(ends[-1] / every * 1.25) + rng.integers(20, 200)))
        frames.append(planted(*ends, budget, every, seed=run, **options).assign(run=run, weight_decay=1.0, seed=run))
        truth.append([every, *ends])
    return pd.concat(frames, ignore_index=True), np.array(truth)


# What published curves say; the readings by eye and their reasons are in docs/phases.md.


def test_reference_trajectory():
    row = find_phases(reference("mod113_trajectory")).iloc[0]
    assert (row["memorised_after"], row["memorised_by"]) == (0, 200)
    assert (row["grokked_after"], row["grokked_by"]) == (4000, 4400)
    assert row["run_class"] == "grokking"
    assert not row[["censored", "never_memorised", "diverged", "ungrokked", "overlap"]].any()
    # Train loss stops at 1 400; test loss is 6.1, 1.4, 0.03 at 3 600, 4 000, 4 400 and level from about 5 600.
    for name, (after, end, by) in {
        "memorization": (1200, 1400, 1600),
        "circuit_formation": (3600, 4000, 4000),
        "cleanup": (5600, 6000, 6000),
    }.items():
        assert tuple(row[[f"{name}_end_after", f"{name}_end", f"{name}_end_by"]]) == (after, end, by)
    assert (row["circuit_formation_end_earliest"], row["circuit_formation_end_latest"]) == (4000, 4400)
    assert (row["cleanup_end_earliest"], row["cleanup_end_latest"]) == (5200, 6000)
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
    assert 10_200 <= row["cleanup_end"] <= 12_000
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


# What runs do other than grok.


def test_a_pause_after_memorising_is_no_floor():
    metrics = planted(1_400, 5_000, 7_000, 12_000, every=20)
    pause = (metrics["step"] >= 600) & (metrics["step"] <= 800)
    metrics["train_loss"] = metrics["train_loss"].mask(pause, metrics["train_loss"][metrics["step"] == 600].item())
    early = metrics[metrics["step"] <= 1_200]
    for table in (metrics, metrics[metrics["step"] <= 2_000]):
        reading = phases.readings(table).set_index("rule").loc["train_level"]
        assert reading["at"] == 1_400
    assert np.isnan(phases.readings(early).set_index("rule").loc["train_level", "at"])


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


# Tables that other tools wrote.


def test_rules_without_their_columns_are_named():
    metrics = planted(1_000, 5_000, 7_000, 12_000)[["step", "train_loss", "test_loss"]]
    rules = phases.describe_rules(phases.readings(metrics)).set_index("rule")
    assert set(rules.index[rules["runs"] == 0]) == {
        "excluded_turn",
        "excluded_peak",
        "weights_drop",
        "weights_settled",
        "gini_jump",
        "gini_settled",
    }
    assert "sum_sq_weights" in rules.loc["weights_drop", "lacks"]
    with pytest.raises(InputError, match=r"rule 'weights_drop' needs the column sum_sq_weights, which .* lack"):
        find_phases(metrics, Settings(rules={"circuit_formation": "weights_drop"}))
    agreed = phases.agreement(phases.readings(metrics))
    assert set(agreed["rule"]) == set(rules.index[rules["runs"] > 0])


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


def test_final_keys_come_before_keys_of_the_step():
    metrics = planted(1_000, 5_000, 7_000, 12_000).rename(columns={"excluded_loss_max": "excluded_loss_online"})
    columns = phases.readings(metrics).set_index("rule")["columns"]
    assert columns["excluded_turn"] == "train_loss, excluded_loss_online"
    metrics["excluded_loss"] = metrics["excluded_loss_online"].where(metrics["step"] % 500 == 0)
    columns = phases.readings(metrics).set_index("rule")["columns"]
    assert columns["excluded_turn"] == "train_loss, excluded_loss"
    metrics["excluded_loss"] = np.nan  # the run has not ended
    columns = phases.readings(metrics).set_index("rule")["columns"]
    assert columns["excluded_turn"] == "train_loss, excluded_loss_online"


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_accuracy": 99}, "train_accuracy = 99 must be between 0 and 1"),
        ({"smooth": 4}, "smooth = 4 must be an odd number"),
        ({"gap": 1}, "gap = 1 must be above 1"),
        ({"ungrok_accuracy": 0.999}, "ungrok_accuracy = 0.999 must be at most test_accuracy"),
        ({"chance_loss": 0.0}, "chance_loss = 0.0 must be above 0"),
        ({"rules": {"memorisation": "test_peak"}}, "phase 'memorisation' is unknown: did you mean 'memorization'"),
        ({"rules": {"cleanup": "test_leveled"}}, "did you mean 'test_level'"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        Settings(**options)


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


@given(st.lists(st.floats(-10, 10), max_size=30), st.sampled_from([1, 3, 5, 7]))
def test_running_median_leaves_monotone_curves_alone(values, width):
    monotone = np.sort(np.array(values, float))
    np.testing.assert_array_equal(running_median(monotone, width), monotone)


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


# The command line.


def test_command_line_prints_and_writes(tmp_path, capsys):
    metrics, _ = sweep_of_planted(n=3)
    (tmp_path / "metrics").mkdir()
    metrics["weight_decay"] = metrics["run"].map({0: 0.1, 1: 1.0, 2: 1.0})
    metrics.to_parquet(tmp_path / "metrics" / "part-000000.parquet")
    assert phase_display.main([str(tmp_path), "--csv", str(tmp_path / "phases.csv")]) == 0
    shown = capsys.readouterr().out
    assert "circuit formation" in shown
    assert "median − default" in shown
    assert "critical_weight_decay" in shown
    written = pd.read_csv(tmp_path / "phases.csv")
    pd.testing.assert_frame_equal(written, find_phases(metrics), check_dtype=False)
    metrics[metrics["run"] == 0].to_csv(tmp_path / "one.csv", index=False)
    assert phase_display.main([str(tmp_path / "one.csv")]) == 0


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "the following arguments are required: DIR"),
        (["nowhere"], "nowhere does not exist"),
        ([str(Path(__file__).parent)], "holds no metrics"),
        ([__file__], "is no table that can be read"),
        (["{table}", "--by", "lr"], "column 'lr' is unknown"),
        (["{table}", "--chance-loss", "0"], "chance_loss = 0.0 must be above 0"),
        (["{table}", "--csv", "/nowhere/phases.csv"], "cannot be written"),
        (["{bad}"], "has no column 'test_loss'"),
        (["{empty}"], "cannot be read as csv"),
    ],
)
def test_bad_command_lines(argv, sentence, tmp_path, capsys):
    table = planted(1_000, 5_000, 7_000, 9_000).assign(run=0)
    table.to_csv(tmp_path / "table.csv")
    table.drop(columns="test_loss").to_csv(tmp_path / "bad.csv")
    (tmp_path / "empty.csv").touch()
    names = {name: tmp_path / f"{name}.csv" for name in ("table", "bad", "empty")}
    assert phase_display.main([arg.format(**names) for arg in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err.replace("the metrics have", "has")
