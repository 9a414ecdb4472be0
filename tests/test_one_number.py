"""One number for each statistic: terminal, runs.parquet, phases, page and figure of a sweep with censored runs."""

import io
import itertools
import os
import re

import browser
import made_up
import numpy as np
import pandas as pd
import pytest
from pages import rewritten
from rich.console import Console

from grokjax.cli import phases as phases_command
from grokjax.phases import survival
from grokjax.report import figures, page
from grokjax.report.results import read
from grokjax.report.write import page_path
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.training.progress import summary

LACKS = browser.missing()
BY = ["learning_rate", "weight_decay"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two learning rates by five weight decays by four seeds; some settings never grok, some in part."""
    place = tmp_path_factory.mktemp("one")
    decays, rates = (0.0, 0.1, 0.5, 1.0, 2.0), (1e-3, 1e-2)

    def settings(frame):
        setting, seed = frame["run"] // 4, frame["run"] % 4
        return frame.assign(
            weight_decay=[decays[i // 2] for i in setting], learning_rate=[rates[i % 2] for i in setting], seed=seed
        )

    def late(frame):
        """Some seeds as if training had ended before they grokked."""
        cut = (frame["run"] % 4 == 3) & (frame["run"] >= 12)
        return settings(frame.assign(test_acc=frame["test_acc"].where(~cut, frame["test_acc"].clip(upper=0.5))))

    def told(runs):
        cut = (runs["run"] % 4 == 3) & (runs["run"] >= 12)
        return settings(runs.assign(grokked_step=runs["grokked_step"].where(~cut)))

    return rewritten(made_up.make_sweep(place / "made", 40, 40, 11), place / "sweep", late, told)


@pytest.fixture(scope="module")
def expected(sweep):
    """By setting: k of n, and the median by Kaplan and Meier's product, from the accuracies alone."""
    metrics = read_metrics(sweep)
    found = {}
    for setting, group in metrics.groupby(BY):
        times = []
        for _, rows in group.groupby("run"):
            there = (rows.sort_values("step")["test_acc"] >= 0.99).tolist()
            steps = rows.sort_values("step")["step"].tolist()
            kept = [s for s, a, b in zip(steps, there, [*there[1:], there[-1]], strict=True) if a and b]
            times.append((kept[0], True) if kept else (steps[-1], False))
        left, median = 1.0, np.inf
        for step in sorted({step for step, grokked in times if grokked}):
            at_risk = sum(t >= step for t, _ in times)
            left *= 1 - sum(t == step and grokked for t, grokked in times) / at_risk
            median = min(median, step) if left <= 0.5 + 1e-9 else median
        found[setting] = (sum(g for _, g in times), len(times), median, max(t for t, _ in times))
    return found


def shown(k, n, median, last):
    return f"> {last:,}" if np.isinf(median) else f"{median:,}"


def test_the_sweep_has_censored_runs_of_every_kind(expected):
    shares = {(k, n) for k, n, _, _ in expected.values()}
    assert {0, 2, 3} <= {k for k, _ in shares}
    assert {np.isinf(median) for _, _, median, _ in expected.values()} == {True, False}


def test_runs_and_terminal(sweep, expected):
    runs = read_runs(sweep)
    for setting, group in runs.groupby(BY):
        assert group["grokked_step"].notna().sum() == expected[setting][0]
    out = io.StringIO()
    Console(file=out, width=200).print(summary(runs, [*BY, "seed"]))
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.getvalue().splitlines()[1:]]
    assert {(float(line[0]), float(line[1])): tuple(line[-2:]) for line in lines if line[0]} == {
        setting: (f"{k} of {n}", shown(k, n, *rest)) for setting, (k, n, *rest) in expected.items()
    }


def test_phases(sweep, expected, tmp_path, capsys):
    phases_command.main([str(sweep), f"--by={','.join(BY)}", f"--csv={tmp_path / 'phases.csv'}"])
    printed = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    table = pd.read_csv(tmp_path / "phases.csv").merge(read_runs(sweep)[["run", "grokked_step"]], on="run")
    pd.testing.assert_series_equal(table["grokked_by"], table["grokked_step"].astype(float), check_names=False)
    for setting, group in table.groupby(BY):
        times, observed = group["grokked_by"].fillna(group["last_step"]), group["grokked_by"].notna()
        assert survival.median_time(times, observed).value == expected[setting][2]
    for k, n, *rest in expected.values():
        assert f"{k} of {n}" in printed
        assert shown(k, n, *rest) in printed


def test_the_figure(sweep, expected):
    drawn = figures.picture(figures.figure(read(sweep), "phase-diagram", BY), "svg").decode()
    texts = re.findall(r">([^<>\n]+)</text>", drawn.replace("\N{NO-BREAK SPACE}", " "))
    texts = [text.replace("&gt;", ">") for text in texts]
    cells = list(itertools.pairwise(texts))
    for k, n, *rest in expected.values():
        assert cells.count((shown(k, n, *rest), f"{k}/{n}")) == sum(v == (k, n, *rest) for v in expected.values())


@pytest.mark.long
@pytest.mark.skipif(bool(LACKS) and not os.environ.get("CI"), reason=f"{LACKS} is not installed")
def test_the_page(sweep, expected):
    file = page_path(sweep)
    file.parent.mkdir(exist_ok=True)
    file.write_text(page.html(read(sweep)), encoding="utf-8")
    with browser.chromium() as driver:
        browser.open_page(driver, file)
        said = [item.text for item in driver.find_elements("css selector", "#verdict li")]
        rows = driver.execute_script(
            "return [...document.querySelectorAll('#settings tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
        )
        heat = driver.execute_script("const d = document.getElementById('heat').data[0]; return [d.x, d.y, d.text]")
    for (rate, decay), (k, n, *rest) in expected.items():
        named = f"learning_rate = {rate:g}, weight_decay = {decay:g}: "
        median = shown(k, n, *rest)
        outcome = f"median {median} steps." if k else f"within {rest[1]:,} steps."
        assert f"{named}{k} of {n} grok{', ' if k else ' '}{outcome}" in [
            s.replace("\N{NO-BREAK SPACE}", " ") for s in said
        ]
        row = next(r for r in rows if r[:2] == [f"{rate:g}", f"{decay:g}"])
        assert (row[2], row[4], row[6].replace("\N{NO-BREAK SPACE}", " ")) == (str(n), str(k), median)
        cell = heat[2][heat[1].index(f"{decay:g}")][heat[0].index(f"{rate:g}")]
        assert cell == f"{median}<br>{k}/{n}"
