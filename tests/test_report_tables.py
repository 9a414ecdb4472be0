"""Cells of a page's tables: what they show, what they are sorted by; and the table of fits."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from pages import hand_made, rows_of

from grokjax.phases.summary import Summary
from grokjax.report import tables, verdict

NAN = np.nan


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return hand_made(tmp_path_factory.mktemp("made") / "sweep")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("a",), '<td class="number">a</td>'),
        (("0.1", 0.1), '<td data-value="0.10000000000000001" class="number">0.1</td>'),
        ((7, 7), '<td data-value="7" class="number">7</td>'),
        (("–", NAN), '<td data-value="" class="number">–</td>'),
        (("–", ""), '<td data-value="" class="number">–</td>'),
        (("unset", pd.NA), '<td data-value="" class="number">unset</td>'),
        (("x", "x", False), '<td data-value="x">x</td>'),
        (("x", None, False, "why"), '<td title="why">x</td>'),
        (("0", 0.0), '<td data-value="0" class="number">0</td>'),
    ],
)
def test_a_cell_and_what_it_is_sorted_by(args, text):
    assert str(tables.cell(*args)) == text


def test_a_heading():
    assert str(tables.heading("runs")) == '<th scope="col" class="number"><button type="button">runs</button></th>'
    expected = '<th scope="col"><button type="button" title="in steps">delay</button></th>'
    assert str(tables.heading("delay", "in steps", False)) == expected


def test_fits(held):
    names = ("critical_weight_decay", "slope", "exponent")
    found = pd.DataFrame({"quantity": names, "estimate": [0.0714985, 3.75, NAN], "low": [0.02, 2.0, NAN]})
    found = found.assign(high=[0.14, np.inf, NAN], unit=["weight_decay", "log-odds per decade", ""], runs=[18, 18, 2])
    found["warning"] = ["few; odd", "few", "few"]
    groups = pd.DataFrame({"weight_decay": [0.0, 1.0]})

    def fits(found, groups=groups, by=("weight_decay",)):
        return tables.fits(dataclasses.replace(held, by=list(by), summary=Summary(groups, found)))

    text = str(fits(found))
    assert "<summary>Critical values and power laws</summary>" in text
    assert rows_of(text) == [
        ["critical_weight_decay", "0.0715", "[0.02, 0.14]", "weight_decay", "18"],
        ["slope", "3.75", "[2, inf]", "log-odds per decade", "18"],
    ]  # and no exponent, of which there is no estimate
    doubts = re.search(r'<ul class="doubts">(.*)</ul>', text)[1]
    assert re.findall(r"<li>(.*?)</li>", doubts) == ["few", "odd (critical_weight_decay)"]
    assert fits(found[:0]) is None
    assert fits(found, groups[:1]) is None
    why = '<p class="axes">No critical value is fitted: few; odd.</p>'
    assert str(fits(found.assign(estimate=NAN))) == why
    apart = str(fits(found.assign(p=[7, 7, 7]), by=("weight_decay", "p")))
    assert "<summary>Critical values and power laws</summary>" in apart
    assert rows_of(apart)[0] == ["7", "critical_weight_decay", "0.0715", "[0.02, 0.14]", "weight_decay", "18"]


def test_a_run_in_training_has_its_status_a_finished_sweep_has_none(held):
    def heads(results):
        head = str(tables.runs(results)).split("<thead>")[1].split("</thead>")[0]
        return re.findall(r"<button[^>]*>(.*?)</button>", head)

    assert heads(held)[:5] == ["run", "weight_decay", "seed", "status", "phases"]
    assert heads(dataclasses.replace(held, runs=held.runs[:4]))[:4] == ["run", "weight_decay", "seed", "phases"]
    assert len(rows_of(tables.runs(dataclasses.replace(held, runs=held.runs[:4])))[0]) == 14


def test_marks_of_a_run(held):
    runs = held.runs[2:4].assign(lost_grokking=[True, False], lost_grokking_by=[1_500.0, NAN])
    runs = runs.assign(ungrokked=[True, False], overlap=[True, False], n_key_freqs=[NAN, 2.0])
    rows = rows_of(tables.runs(dataclasses.replace(held, runs=runs.assign(test_loss=[NAN, 1.0]))))
    marked = ["–", "–", "grokking, lost it by 1,500, ungrokked, overlap"]
    assert [row[-3:] for row in rows] == [marked, ["1.00e+00", "2", "grokking"]]


def test_the_verdict_says_which_runs_lose_it(held):
    assert not any("lose" in said for said in verdict.sentences(held.runs, ["weight_decay"]))
    runs = held.runs.assign(lost_grokking=held.runs["run"].isin([1, 3]), ungrokked=held.runs["run"] == 3)
    assert verdict.sentences(runs, ["weight_decay"])[-1] == "Of 3 that grok, 2 lose it again (1 for good): runs 1, 3."
    one = held.runs.assign(lost_grokking=held.runs["run"] == 2)
    assert verdict.sentences(one, ["weight_decay"], most=1)[-1] == "Of 3 that grok, 1 loses it again: run 2."
