"""Figures for papers: what they say, which files they make, and what cannot be drawn."""

import dataclasses
import re

import made_up
import numpy as np
import pytest
from pages import rewritten

from grokjax import phases
from grokjax.cli import figure as figure_command
from grokjax.errors import InputError
from grokjax.report import figures
from grokjax.report.results import read


@pytest.fixture(scope="module")
def one_field(tmp_path_factory):
    """Ten weight decays, two seeds."""
    return made_up.make_sweep(tmp_path_factory.mktemp("one") / "sweep", 20, 40, 11)


@pytest.fixture(scope="module")
def two_fields(one_field, tmp_path_factory):
    def settings(frame):
        setting = frame["run"] // 2
        return frame.assign(weight_decay=setting // 2 / 4, learning_rate=[(1e-3, 1e-2)[i % 2] for i in setting])

    return rewritten(one_field, tmp_path_factory.mktemp("two") / "sweep", settings, settings)


def texts(drawn):
    return [text.get_text() for ax in drawn.axes for text in (*ax.texts, ax.title)] + [drawn.get_suptitle()]


@pytest.mark.parametrize("kind", sorted(set(figures.KINDS) - {"phase-diagram", "column"}))
def test_each_says_what_was_trained_and_when_a_run_has_grokked(one_field, kind):
    said = figures.figure(read(one_field), kind).get_suptitle()
    assert said.startswith("add mod 11, 0.3 of all pairs to train on\n")
    assert "grokked: test accuracy ≥ 0.99, kept by the next evaluation" in said


def test_checkpoints_of_a_group_are_named_by_it(one_field):
    results = read(one_field)
    runs = results.runs.drop(columns="group", errors="ignore").assign(task="group S_4", p=24)
    assert figures.title(dataclasses.replace(results, runs=runs), []).startswith("group S_4, 0.3 of all pairs")


def test_losses_of_two_fields_are_a_grid(two_fields):
    drawn = figures.figure(read(two_fields), "losses")
    rows = {ax.get_subplotspec().rowspan.start for ax in drawn.axes}
    columns = {ax.get_subplotspec().colspan.start for ax in drawn.axes}
    assert (len(rows), len(columns)) == (2, 5)
    assert any(text.endswith("0 of 2 grokked") for text in texts(drawn))


def test_times_say_k_of_n_and_mark_censored_runs(one_field):
    results = read(one_field)
    ax = figures.figure(results, "time-to-grok").axes[0]
    shares = [text.get_text() for text in ax.texts]
    grokked = results.runs.groupby("weight_decay")["grokked"].sum()
    assert shares == [f"{k:.0f}/2" for k in grokked]
    triangles = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "^")
    assert triangles == int((~results.runs["grokked"].astype(bool)).sum())


def test_runs_stand_beside_one_another_about_their_settings_place_and_the_median_spans_them(one_field):
    results = read(one_field)
    ax = figures.figure(results, "time-to-grok").axes[0]
    place = ax.get_xticks()
    x = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() in ("o", "^")])
    gap = np.diff(np.sort(place)).min()
    assert np.isclose(np.abs(x[:, None] - place).min(1), 0.7 * 0.7 / 4 * gap).all()  # two runs, a quarter of the width
    ends = np.array([segment for lines in ax.collections for segment in lines.get_segments() if len(segment) == 2])
    medians = ends[ends[:, 0, 1] == ends[:, 1, 1]][:, :, 0]
    assert len(medians) == np.isfinite(phases.time_to_grok(results.runs, "weight_decay")["median"]).sum() > 0
    assert np.isclose(np.abs(medians.mean(1)[:, None] - place).min(1), 0).all()
    assert np.allclose(np.ptp(medians, axis=1), 0.8 * 0.7 * gap)


def test_a_run_that_diverged_has_a_sign_of_its_own_and_signs_that_are_there_are_explained(one_field):
    results = read(one_field)

    def signs(runs):
        drawn = figures.figure(dataclasses.replace(results, runs=runs), "time-to-grok")
        counts = {m: sum(len(ln.get_xdata()) for ln in drawn.axes[0].lines if ln.get_marker() == m) for m in "^x"}
        told = [text.get_text() for text in drawn.legends[0].get_texts()]
        return counts, "not grokked by its last evaluation" in told, "diverged" in told

    runs, grokked = results.runs, results.runs["grokked"].astype(bool)
    n = int((~grokked).sum())
    assert n > 1
    assert signs(runs) == ({"^": n, "x": 0}, True, False)
    assert signs(runs[grokked]) == ({"^": 0, "x": 0}, False, False)
    first = runs.index == runs.index[~grokked][0]
    diverged = runs.assign(diverged_step=runs["diverged_step"].where(~first, 20.0))
    assert signs(diverged) == ({"^": n - 1, "x": 1}, True, True)


def test_an_interval_is_explained_where_there_is_one(one_field):
    def explained(by):
        legend = figures.figure(read(one_field), "time-to-grok", by).legends[0]
        return [text.get_text() for text in legend.get_texts() if text.get_text().startswith("median")]

    assert explained(["weight_decay"]) == ["median (Kaplan–Meier)"]  # of two runs each
    assert explained(["seed"]) == ["median (Kaplan–Meier), 95 % interval"]  # of ten


def test_pooled_fields_are_said(two_fields):
    said = figures.figure(read(two_fields), "time-to-grok", ["learning_rate"]).get_suptitle()
    assert said.endswith("pooled over weight_decay")


@pytest.mark.parametrize("at_most", [0.75, 1.0])
def test_a_phase_diagram_draws_where_half_of_the_runs_grok(two_fields, at_most):
    """Between λ 0.25 and 0.5, the second and third of its rows, whether or not runs fail at the strongest."""
    results = read(two_fields)
    grokked = results.runs["weight_decay"].between(0.5, at_most) & (results.runs["learning_rate"] == 1e-3)
    runs = results.runs.assign(grokked_by=grokked.map({True: 20.0, False: float("nan")}))
    drawn = figures.figure(dataclasses.replace(results, runs=runs), "phase-diagram", ["learning_rate", "weight_decay"])
    lines = [line.get_xydata().tolist() for line in drawn.axes[0].lines if line.get_color() == figures.BORDER]
    assert lines == [
        [pytest.approx([-0.5, 1.5]), pytest.approx([0.5, 1.5])],
        [pytest.approx([0.42, 1]), pytest.approx([0.42, 2])],
    ]
    assert "lines: half of the runs grok" in drawn.get_suptitle()
    whole = runs.assign(weight_decay=(4 * runs["weight_decay"]).astype(int))  # a field of whole numbers has one as well
    drawn = figures.figure(dataclasses.replace(results, runs=whole), "phase-diagram", ["learning_rate", "weight_decay"])
    assert [line.get_xydata().tolist() for line in drawn.axes[0].lines] == lines
    none = dataclasses.replace(results, runs=runs.assign(grokked_by=float("nan")))
    drawn = figures.figure(none, "phase-diagram", ["learning_rate", "weight_decay"])
    assert not drawn.axes[0].lines
    assert "lines:" not in drawn.get_suptitle()


@pytest.mark.parametrize(
    ("kind", "by", "sentence"),
    [
        ("phase-diagram", (), "fields besides seeds, and this sweep has 1 .weight_decay.: time-to-grok shows one"),
        ("column", (), "the figure needs a column, but kind column and the name of a column go together"),
        ("losse", (), "figure 'losse' is unknown: did you mean 'losses'"),
        ("losses", ("learning_rate",), "swept field 'learning_rate' is unknown"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(one_field, kind, by, sentence):
    with pytest.raises(InputError, match=sentence):
        figures.figure(read(one_field), kind, by)


def test_no_keys_no_frequencies(one_field, tmp_path):
    path = rewritten(one_field, tmp_path / "a", runs=lambda runs: runs.assign(key_freqs=None))
    with pytest.raises(InputError, match="no run has final key frequencies: they are found when a run ends that has"):
        figures.figure(read(path), "frequencies")
    path = rewritten(one_field, tmp_path / "b", runs=lambda runs: runs.assign(key_freqs=None, status="training"))
    with pytest.raises(InputError, match="no run has final key frequencies yet"):
        figures.figure(read(path), "frequencies")


def test_any_column_of_numbers_is_drawn(one_field):
    drawn = figures.figure(read(one_field, ["gini_W_L"]), "column", column="gini_W_L")
    assert len(drawn.axes) == 12  # ten settings in rows of four
    assert drawn.get_supylabel() == "gini_W_L"
    assert drawn.axes[0].get_yscale() == "linear"
    assert len(drawn.axes[0].lines) == 2
    assert "Gini coefficient" in drawn.legends[0].get_texts()[0].get_text()
    assert figures.figure(read(one_field, ["excluded_loss"]), "column", column="excluded_loss").get_supylabel() == (
        "excluded_loss (nats)"
    )


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("gini", "column 'gini' is unknown: did you mean 'gini_W_"),
        ("run", "column 'run' is unknown"),
        ("freq_norm_W_E", "column 'freq_norm_W_E' holds a list in each row, .freq.: a figure is of numbers"),
        ("efficiency_nowhere", "column 'efficiency_nowhere' is unknown"),
    ],
)
def test_a_column_that_cannot_be_drawn_is_told(one_field, column, sentence):
    with pytest.raises(InputError, match=sentence):
        figures.figure(read(one_field, [column]), "column", column=column)


def test_the_command_draws_a_column(one_field, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    figure_command.main([str(one_field), "--column=gini_W_E"])
    assert "written: gini_W_E.pdf" in capsys.readouterr().out
    with pytest.raises(InputError, match="the figure is of kind losses, but kind column and the name of a column go"):
        figure_command.main([str(one_field), "--column=gini_W_E", "--kind=losses"])


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_the_command_writes_the_same_bytes_again(two_fields, tmp_path, capsys, suffix):
    for name in "ab":
        figure_command.main([str(two_fields), "--kind=phase-diagram", f"--out={tmp_path / name}{suffix}"])
    a, b = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert a == b
    assert a.startswith({".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG"}[suffix])
    assert f"written: {tmp_path / 'b'}{suffix}" in capsys.readouterr().out


def test_another_suffix_is_refused_and_nothing_written(one_field, tmp_path):
    with pytest.raises(InputError, match=r"a figure is written as \.pdf, \.svg, \.png"):
        figure_command.main([str(one_field), f"--out={tmp_path / 'x.jpg'}"])
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_kind():
    assert re.findall(r"^  ([a-z-]+)  ", figure_command.__doc__, re.M) == list(figures.KINDS)
