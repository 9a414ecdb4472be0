"""The report's data: what is read, what is left out, and that nothing of a config becomes markup."""

import contextlib
import html
import re
import subprocess
import sys

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import HOSTILE, data_of, decoded, hostile, page_of, rewritten, with_circuit

from grokjax.errors import InputError
from grokjax.report import document, page, write
from grokjax.report.results import read, shade
from grokjax.store import locks
from grokjax.store.metrics import read_metrics, read_runs


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A made-up sweep: ten weight decays, two seeds, 40 evaluations, P = 11."""
    return made_up.make_sweep(tmp_path_factory.mktemp("made") / "small", 20, 40, 11)


# --- the page's data --------------------------------------------------------------------------------------------------


def test_every_evaluation_of_a_usual_sweep_is_in_the_page(small):
    data = data_of(page_of(small))
    metrics = read_metrics(small, ["run", "step", "train_loss", "test_loss", "restricted_loss"])
    assert data["curve_limit"] is None
    assert data["image_limit"] is None
    for run, rows in metrics.groupby("run"):
        steps, loss = (decoded(data["steps"][run], "<u4"), decoded(data["curves"]["test_loss"][run]["v"], "<f4"))
        np.testing.assert_array_equal(steps, rows["step"])
        np.testing.assert_array_equal(loss, rows["test_loss"].to_numpy("f4"))
        sparse = data["curves"]["restricted_loss"][run]
        held = rows["restricted_loss"].notna().to_numpy()
        np.testing.assert_array_equal(decoded(sparse["i"], "<u2"), np.flatnonzero(held))
        np.testing.assert_array_equal(decoded(sparse["v"], "<f4"), rows["restricted_loss"].to_numpy("f4")[held])


def test_long_curves_are_thinned_and_the_page_says_so(small, monkeypatch):
    monkeypatch.setattr(document, "VALUES", 20 * 30 * 16)
    monkeypatch.setattr(document, "PIXELS", 20 * 2 * 5 * 10)
    held = read(small)
    text = page.html(held)
    data = data_of(text)
    assert data["curve_limit"] == 16
    assert "Curves were thinned to 16 points" in text
    assert data["image_limit"] == 10
    assert "Images were thinned to 10 columns" in text
    for run, rows in held.metrics.groupby("run"):
        curve = data["curves"]["train_loss"][run]
        values, where = decoded(curve["v"], "<f4"), decoded(curve["i"], "<u2")
        assert len(values) <= 16
        np.testing.assert_array_equal(values, rows["train_loss"].to_numpy("f4")[where])
        assert values.max() == rows["train_loss"].to_numpy("f4").max()


@pytest.mark.long
def test_a_hundred_runs_stay_below_25_mb(tmp_path):
    path = made_up.make_sweep(tmp_path / "many", 100, 400, 113)
    text = page_of(path)
    assert len(text.encode()) < 25e6
    assert data_of(text)["curve_limit"] is None


def test_groups_pool_runs_and_phases_are_those_of_the_analysis(small):
    held = read(small)
    data = document.document(held)
    assert held.settings == ["weight_decay"]
    assert held.axes == ["weight_decay", "seed"]
    labels = [group["label"] for group in data["groups"]]
    assert labels[:2] == ["all 20 runs", "weight_decay = 0 (2 runs)"]
    assert "seed = 1 (10 runs)" in labels
    assert [run["phases"] for run in data["runs"]] == [
        [list(phase) for phase in shade(row)] for row in held.runs.to_dict("records")
    ]
    for group in data["groups"]:
        shares = pd.DataFrame(group["shades"], columns=["phase", "begin", "end", "share"])
        assert (shares.groupby("begin")["share"].sum() <= 1.001).all()
    whole = [run["values"]["grokked_by"] for run in data["runs"] if len(run["phases"]) == 3]
    assert (
        data["runs"][data["first"]]["values"]["grokked_by"] == sorted(t for t in whole if t)[sum(map(bool, whole)) // 2]
    )


def test_the_settings_table_is_that_of_summarize(small):
    text = page_of(small)
    found = read(small).summary.groups.set_index("weight_decay")
    row = next(r for r in re.findall(r"<tr>.*?</tr>", text) if r.startswith('<tr><td data-value="0.5"'))
    assert f"{100 * found.loc[0.5, 'fraction_low']:.0f}" in row
    assert f"{found.loc[0.5, 'grokked_median']:,.0f}" in row


def test_a_page_without_circuits_loads_no_jax(small):
    program = "import sys\nfrom grokjax.report import page, results, write\n"
    program += f"page.html(results.read({str(small)!r}))\nsys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_table_alone_has_its_own_files_and_no_models(small, tmp_path):
    table = tmp_path / "theirs.parquet"
    table.write_bytes(next((small / "metrics").glob("*.parquet")).read_bytes())
    text = page_of(table)
    assert "A table has no models in it" in text
    assert 'href="../theirs.parquet"' in text
    assert "metrics_table.read" in text
    whole = page_of(small)
    assert "A table has no models in it" not in whole
    assert 'href="../runs.parquet"' in whole


def test_the_circuit_table_is_there_once_it_was_made(small, tmp_path):
    assert "grokjax circuit" in page_of(small)
    text = page_of(with_circuit(small, tmp_path / "circuit"))
    assert "No circuit.parquet" not in text
    held = data_of(text)["circuit"]
    assert [run is not None for run in held] == [i == 3 for i in range(20)]
    rows = {claim: (here, reason) for claim, _, here, _, reason in held[3]["rows"]}
    assert rows["key frequencies in use"] == ("1, 4", "")
    assert ("–", "unknown") in rows.values()
    (tmp_path / "circuit" / "circuit.parquet").unlink()
    pd.DataFrame({"run": [3], "loss": [0.1]}).to_parquet(tmp_path / "circuit" / "circuit.parquet")
    with pytest.raises(InputError, match=r"circuit\.parquet is none of this version's"):
        page_of(tmp_path / "circuit")


# --- unfinished, odd and foreign sweeps -------------------------------------------------------------------------------


def test_a_sweep_in_training_has_a_page(small, tmp_path):
    def runs(frame):
        frame["status"] = ["finished"] * 5 + ["training"] * 5 + ["diverged"] + ["waiting"] * 9
        frame.loc[5:, "key_freqs"] = None
        frame.loc[11:, "last_step"] = None
        return frame

    def metrics(frame):
        frame = frame[(frame["run"] < 5) | (frame["run"] < 11) & (frame["step"] <= 800)].copy()
        late = (frame["run"] == 10) & (frame["step"] >= 500)
        frame.loc[late, [name for name in frame if name.endswith(("loss", "acc"))]] = np.nan
        frame.loc[frame["run"] > 4, "restricted_loss"] = np.nan
        return frame

    path = rewritten(small, tmp_path / "half", metrics, runs)
    with contextlib.closing(locks.take(path)):
        text = page_of(path)
    data = data_of(text)
    assert "still being trained" in text
    assert data["runs"][10]["text"].startswith("Diverged; ")
    assert "1 run diverged" in text
    assert data["runs"][19]["text"] == "Not trained yet."
    assert data["steps"][19] == ""
    assert data["curves"]["restricted_loss"][7] is None


@pytest.mark.parametrize(
    "keep",
    [
        ["run", "step", "train_loss", "test_loss"],
        ["run", "step", "train_loss", "test_loss", "train_acc", "test_acc", "freq_norm_W_E"],
    ],
)
def test_measures_that_were_not_taken_are_left_out(small, tmp_path, keep):
    text = page_of(rewritten(small, tmp_path / "few", lambda frame: frame[keep]))
    data = data_of(text)
    assert [figure["name"] for figure in data["figures"]] == ["losses", "accuracies"][: 1 + ("train_acc" in keep)]
    assert [spectrum["matrix"] for spectrum in data["spectra"]] == ["W_E"] * ("freq_norm_W_E" in keep)
    assert ("recorded no Fourier norms" in text) == ("freq_norm_W_E" not in keep)


def test_measures_of_clock_and_pizza_are_a_figure_where_they_were_taken(small, tmp_path):
    taken = {"gradient_symmetricity": 0.9, "distance_irrelevance": 0.5}
    text = page_of(rewritten(small, tmp_path / "clock", lambda frame: frame.assign(**taken, circularity=np.nan)))
    (figure,) = (figure for figure in data_of(text)["figures"] if figure["name"] == "clock")
    assert [line["column"] for line in figure["lines"]] == list(taken)


def test_keys_of_each_step_stand_in_until_there_are_final_ones(small, tmp_path):
    nothing_final = rewritten(small, tmp_path / "a", lambda f: f.assign(restricted_loss=np.nan, excluded_loss=np.nan))
    lines = data_of(page_of(nothing_final))["figures"][0]["lines"]
    assert [line["column"] for line in lines if line["on"]] == [
        *("test_loss", "train_loss", "restricted_loss_online", "excluded_loss_online")
    ]


@pytest.mark.parametrize(("n_runs", "n_evaluations"), [(1, 40), (1, 1), (20, 1)])
def test_one_run_or_one_evaluation_make_a_page(small, tmp_path, n_runs, n_evaluations):
    def metrics(frame):
        return frame[(frame["run"] < n_runs) & (frame["step"] < 100 * n_evaluations)]

    path = rewritten(small, tmp_path / "one", metrics, lambda runs: runs[runs["run"] < n_runs])
    data = data_of(page_of(path))
    assert len(data["runs"]) == n_runs
    assert data["axes"] == [] or n_runs > 1


def test_axes_of_any_kind_are_named(small, tmp_path):
    def runs(frame):
        kinds = {"optimizer": ["adamw", "sgd"] * 10, "p": [7, 11] * 10, "split_seed": [None, 3] * 10}
        return frame.assign(**kinds, weight_decay=1.0)

    held = read(rewritten(small, tmp_path / "kinds", runs=runs))
    data = document.document(held)
    assert held.settings == ["p", "optimizer"]
    assert [axis["values"] for axis in data["axes"]][-1] == ["3", "unset"]
    assert next(axis for axis in data["axes"] if axis["name"] == "optimizer")["numbers"] is None
    assert "p = 7, optimizer = adamw, seed = 0, split_seed = unset" in page.html(held)


@pytest.mark.long
def test_a_random_search_is_not_a_table_of_single_runs(tmp_path):
    path, rates = made_up.make_sweep(tmp_path / "wide", 100, 8, 7), np.linspace(1e-4, 1e-2, 100)
    searched = rewritten(path, tmp_path / "b", runs=lambda f: f.assign(learning_rate=rates, weight_decay=rates))
    held = read(searched)
    assert held.by == []
    assert len(held.summary.groups) == 1
    assert len(document.document(held)["groups"]) == 11  # all runs, ten seeds


def test_what_is_no_sweep_is_one_sentence(small, tmp_path):
    def run(path):
        return subprocess.run([sys.executable, "-m", "grokjax", "report", str(path)], capture_output=True, text=True)

    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path} holds no metrics yet")
    assert done.stderr.count("\n") == 1
    broken = rewritten(small, tmp_path / "broken")
    (broken / "runs.parquet").write_bytes(b"not a table")
    with pytest.raises(InputError, match="cannot be read"):
        write.write(broken)
    pq.write_table(pa.table({"run": [1], "colour": ["red"]}), broken / "runs.parquet")
    with pytest.raises(InputError, match="no column 'status'"):
        write.write(broken)
    read_runs(small).to_parquet(broken / "runs.parquet")
    (broken / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        write.write(broken)
    assert not (broken / "report").exists()


# --- safety -----------------------------------------------------------------------------------------------------------


def test_text_of_a_config_stays_text(small, tmp_path):
    text = page_of(hostile(small, tmp_path / HOSTILE.replace("/", ":")))
    assert "<img" not in text.split('<script type="application/json"')[0]
    assert len(re.findall(r"</script", text)) == 3
    data = data_of(text)
    assert data["runs"][0]["axes"]["model.act"] == HOSTILE


def test_the_policy_names_the_scripts_and_forbids_the_network(small):
    text = page_of(small)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in re.search(r"script-src ([^;]*)", policy)[1]
    assert not re.search(r'<(?:link|script|img)[^>]+(?:src|href)="(?!data:)', text)
