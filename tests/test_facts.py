"""The numbers of a page of hand-made runs: head, tables, sentences, groups, strips."""

import dataclasses
import datetime
import re

import made_up
import numpy as np
import pandas as pd
import pytest
from pages import hand_made, row_of_run, rows_of

from grokjax import config, phases
from grokjax.report import document, facts, tables
from grokjax.report.results import first_run, groups, label, read, sentence, shown_value
from grokjax.store import locks

NAN = np.nan
NOW = datetime.datetime(2025, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return hand_made(tmp_path_factory.mktemp("made") / "sweep")


def test_the_head_of_the_page(held):
    text = str(facts.header(held, NOW))
    assert '<p class="axes">Swept: weight_decay 0, 1, 2 × seed 0, 1.</p>' in text
    assert re.findall("<li>(.*?)</li>", text) == [
        "weight_decay = 0: 1 of 2 grok, median 3,900 steps.",
        "weight_decay = 1: 2 of 2 grok, median 1,000 steps.",
        "weight_decay = 2: 0 of 1 grok within 2,100 steps.",
    ]
    assert "This sweep was interrupted" in text
    lock = locks.take(held.path)
    assert "This sweep was still being trained at 2025-01-02 03:04 UTC" in str(facts.header(held, NOW))
    lock.close()
    over = dataclasses.replace(held, runs=held.runs[2:3], axes=[], by=[])
    text = str(facts.header(over, NOW))
    assert "<li>1 of 1 grok, at step 1,000.</li>" in text
    assert "still being trained" not in text
    assert "Nothing was swept: every run has the same settings." in text
    nothing = str(facts.header(dataclasses.replace(held, runs=held.runs[5:]), NOW))
    assert "<li>No run has begun.</li>" in nothing


def test_later_fields_are_told_where_they_are_not_the_mainline_s(tmp_path):
    results = read(made_up.make_sweep(tmp_path / "sweep", 10, 3, 7))
    assert "init_scale 1</dd>" in str(facts.header(results, NOW))
    runs = results.runs.assign(norm_constraint="init", l1=0.5)
    text = str(facts.header(dataclasses.replace(results, runs=runs), NOW))
    assert "init_scale 1, l1 0.5, norm_constraint init</dd>" in text


def test_a_table_of_checkpoints_says_its_last_one_s_key_frequencies(held):
    about = {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_mlp": 16, "act": "relu", "task": "add", "p": 7, "n_train": 9}
    about |= {"model": "x.npz", "layout": "grokjax", "notes": [], "split": "seed 0", "keys": {"rule": "W_L"}}
    runs = pd.DataFrame({"run": [0], "p": [7], "key_freqs": [[1, 3]]})
    said = facts._measured(dataclasses.replace(held, runs=runs, record=about))
    assert said["key frequencies"] == "1, 3, by rule W_L"
    runs = runs.drop(columns="key_freqs")
    said = facts._measured(dataclasses.replace(held, runs=runs, record=about | {"keys": {"given": [1]}}))
    assert said["key frequencies"] == "none, given"


@pytest.mark.parametrize(("n", "text"), [(7, "0, 1, 2, 3, 4, 5, 6"), (8, "0, …, 7 (8 values)")])
def test_many_values_of_an_axis_are_abridged(held, n, text):
    runs = pd.DataFrame({"p": range(n), "task": "add"})
    assert facts.title(dataclasses.replace(held, runs=runs)) == f"{n} runs of add mod {text}"
    assert facts.title(dataclasses.replace(held, runs=runs[:1])) == "1 run of add mod 0"


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ({"task": "group", "group": ["S_4", "A_5"], "p": [24, 60]}, "2 runs of group S_4, A_5"),
        ({"task": "group S_4", "p": [24]}, "1 run of group S_4"),  # as a table of checkpoints has it
    ],
)
def test_groups_are_named_without_a_modulus(held, runs, text):
    assert facts.title(dataclasses.replace(held, runs=pd.DataFrame(runs))) == text


def test_what_the_figures_leave_out(held):
    spectra = [{"low": 1.0, "high": 1.0**254}, {"low": 1.0, "high": 1.05**254}]
    text = str(facts.notes(held, {"curve_limit": 1_234, "image_limit": 5_678, "spectra": spectra, "figures": []}))
    assert "Curves were thinned to 1,234 points" in text
    assert "Images were thinned to 5,678 columns" in text
    assert "one of 255 levels, 5.0 % apart; those below 1e-5 of the sweep&#x27;s largest have the lowest." in text
    assert "1 run diverged; counted as censored where they did." in text
    text = str(
        facts.notes(
            dataclasses.replace(held, runs=held.runs[:4]),
            {"curve_limit": None, "image_limit": None, "spectra": [], "figures": []},
        )
    )
    assert text.count("<li>") == 3
    assert "products_loss." in text  # of what no figure shows
    assert "Curves are not thinned" in text
    of_mse = dataclasses.replace(held, columns={**held.columns, "test_objective": {}})
    none = {"curve_limit": None, "image_limit": None, "spectra": [], "figures": []}
    said = "<li>Ends of phases are read from cross-entropy, though another loss was trained on: with mse"
    assert said in str(facts.notes(of_mse, none))
    assert said not in text


def test_the_table_of_runs(held):
    rows = rows_of(tables.runs(held))
    losses = ["2.34e-07", "1.23e-02", "2", "grokking"]
    assert rows[0] == ["0", "0", "0", "finished", "", "0–100", "> 4,000", "–", "> 4,000", "> 4,000", "> 4,000", *losses]
    ends = ["200–400", "2,900–3,100", "> 4,000"]
    assert rows[1] == ["1", "0", "1", "finished", "", "0–100", "3,800–3,900", "3,800", *ends, *losses]
    assert rows[4][:7] == ["4", "2", "0", "diverged at 2,100", "", "> 2,000", "> 2,000"]
    assert rows[5] == ["5", "2", "1", "waiting", *["–"] * 11]
    assert {len(row) for row in rows} == {15}
    text = str(tables.runs(held))
    assert 'title="frequencies 3, 5"' in text


def test_a_strip_is_drawn_to_the_scale_of_the_longest_run(held):
    row = held.runs.iloc[2].to_dict() | {"last_step": 2_000.0}
    text = str(tables.strip(row, 4_000.0))  # 140 units for 4 000 steps
    assert re.findall(r'width="([\d.]+)" height="10" class="track"', text) == ["70.0"]
    boxes = re.findall(r'x="([\d.]+)" width="([\d.]+)"', text)
    assert boxes == [("0.0", "7.0"), ("7.0", "21.0"), ("28.0", "28.0")]
    assert "cleanup: 800–1,600" in text
    assert 'd="M35.0 0V18"' in text
    assert 'aria-label="memorization 0 to 200; circuit formation 200 to 800; cleanup 800 to 1,600"' in text
    assert "grokked" not in str(tables.strip(held.runs.iloc[0].to_dict(), 4_000.0))


def test_groups_count_k_of_n(held):
    data = {label: (members.tolist()) for label, members in groups(held)}
    assert data == {
        "all 6 runs": [0, 1, 2, 3, 4, 5],
        **{f"weight_decay = {i} (2 runs)": [2 * i, 2 * i + 1] for i in range(3)},
        **{f"seed = {i} (3 runs)": [i, i + 2, i + 4] for i in range(2)},
    }
    found = {group["label"]: group for group in document.document(held)["groups"]}
    assert found["all 6 runs"]["text"] == (
        "weight_decay = 0: 1 of 2 grok, median 3,900 steps. weight_decay = 1: 2 of 2 grok, median 1,000 steps. "
        "weight_decay = 2: 0 of 1 grok within 2,100 steps."
    )
    assert found["weight_decay = 2 (2 runs)"]["text"] == "0 of 1 grok within 2,100 steps."
    assert found["weight_decay = 1 (2 runs)"]["shades"] == [
        *[("memorization", 0, 200, 1), ("memorization", 200, 400, 0.5)],
        *[("circuit formation", 200, 400, 0.5), ("circuit formation", 400, 800, 1)],
        *[("cleanup", 800, 1_200, 1), ("cleanup", 1_200, 1_600, 0.5)],
    ]


def test_a_run_in_words(held):
    rows = held.runs.to_dict("records")
    losses = "train loss 2.34e-07, test loss 0.0123 at step"
    assert sentence(rows[2]) == (
        "Memorised by step 100, grokked by step 1,000, "
        f"memorization 0–200, circuit formation 200–800, cleanup 800–1,600; {losses} 4,000."
    )
    assert sentence(rows[0]) == f"Memorised by step 100, not grokked, memorization 0–4,000; {losses} 4,000."
    assert sentence(rows[4]) == f"Diverged; not memorised, not grokked; {losses} 2,000."
    assert sentence(rows[5]) == "Not trained yet."
    assert label(rows[3], held.axes) == "run 3: weight_decay = 1, seed = 1"
    assert label(rows[3], []) == "run 3"
    assert [shown_value(v) for v in (None, NAN, pd.NA, 0.1234567, 7, True)] == ["unset"] * 3 + ["0.123457", "7", "True"]


def test_the_run_shown_first_has_the_median_time(held):
    assert first_run(held.runs) == 3  # of those with all phases, at 1 000 and 1 100
    assert first_run(held.runs[:2]) == 1
    assert first_run(held.runs[:1]) == 0
    assert first_run(held.runs[4:].reset_index(drop=True)) == 0
    assert first_run(held.runs[5:]) == 0
    three = [row_of_run(i, 0.0, i, 1.0, 2.0, 3.0, grokked_by=t) for i, t in enumerate((900.0, 100.0, 500.0))]
    assert first_run(pd.DataFrame(three)) == 2


def test_medians_and_shares_of_settings(held):
    found = held.runs[:4].assign(run=range(4))
    columns = {name: found.get(name, False) for name in ("run", *phases.DESCRIPTIONS)}
    summary = phases.summarize(pd.DataFrame(columns).assign(weight_decay=found["weight_decay"]), ["weight_decay"])
    shown = dataclasses.replace(held, summary=summary, by=["weight_decay"])
    rows = rows_of(tables.groups(shown))
    assert [row[:5] for row in rows] == [["0", "2", "2", "1", "50 % [9, 91]"], ["1", "2", "2", "2", "100 % [34, 100]"]]
    assert [row[5] for row in rows] == ["3,900", "1,000"]  # two runs bound no median
    assert document.document(shown)["medians"] == [
        {"axes": {"weight_decay": str(i)}, "median": median, "low": None, "high": None, "runs": 2, "grokked": 1 + i}
        for i, median in enumerate((3_900, 1_000))
    ]


def test_numbers_for_json():
    assert [document.finite(x) for x in (None, NAN, np.inf, -np.inf, 0, np.float32(0.5))] == [None] * 4 + [0, 0.5]


MLP = {"model.architecture": "mlp"}
MAINLINE = {name: field.default for name, field in config.FIELDS.items() if field.kind != config.SETTING}


@pytest.mark.parametrize(
    ("change", "model"),
    [
        ({}, "transformer: n_layers 1, d_model 128, n_heads 4, d_mlp 512, act relu, n_ctx 3"),
        (MLP, "mlp: inputs concatenated, n_layers 1, d_model 128, d_mlp 512, act relu, dropout 0"),
        (
            MLP | {"model.inputs": "one_hot", "model.act": "quadratic"},
            "mlp: inputs one_hot, n_layers 1, d_mlp 512, act quadratic, dropout 0",
        ),
    ],
)
def test_a_model_is_told_by_the_fields_that_it_has(held, change, model):
    told = MAINLINE | change
    text = facts.header(dataclasses.replace(held, runs=held.runs.assign(**told)), NOW)
    (found,) = re.findall("<dt>model</dt><dd>(.*?)</dd>", str(text))
    assert found.startswith(model) if not change else found == model


def test_fields_as_in_the_mainline_are_not_told(held):
    text = str(facts.header(dataclasses.replace(held, runs=held.runs.assign(**(MAINLINE | {"l1": 1e-5}))), NOW))
    (found,) = re.findall("<dt>optimizer</dt><dd>(.*?)</dd>", text)
    assert found.endswith("init_scale 1, l1 1e-05")


def test_fields_that_an_earlier_version_did_not_have_are_as_their_defaults(held):
    older = {name: value for name, value in MAINLINE.items() if name not in (*facts.LATER, *MLP, "model.n_ctx")}
    runs = held.runs.drop(columns=[name for name in MAINLINE if name in held.runs]).assign(**older)
    text = str(facts.header(dataclasses.replace(held, runs=runs), NOW))
    assert facts.UNKNOWN not in text.partition("<dt>model</dt>")[2].partition("<dt>steps</dt>")[0]
    assert "<dd>transformer: n_layers 1, d_model 128, n_heads 4, d_mlp 512, act relu, n_ctx 3," in text
    assert "init_scale 1</dd>" in text
