"""Two sweeps compared: which settings differ, which runs are pairs, and what is said of them, censored ones too."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import tiny
from commands import assert_refused, call
from pages import row_of_run

import grokjax
from grokjax.cli.main import main
from grokjax.errors import InputError
from grokjax.phases import paired


def table(times, last=1_000.0, seeds=None):
    """Runs by hand that grok at these steps; None for not by the last evaluation."""
    rows = [
        row_of_run(i, 1.0, seed, grokked_by=math.nan if at is None else float(at), last_step=last)
        for i, (seed, at) in enumerate(zip(seeds or range(len(times)), times, strict=True))
    ]
    return pd.DataFrame(rows)


def of(first, second, name="grokked"):
    found = paired.statistics(paired.pair(first, second, ["seed"])).set_index("quantity")
    return found.loc[name]


def test_pairs_are_made_by_what_they_agree_in():
    pairs = paired.pair(table([100, 200, 300]), table([400, 500], seeds=[2, 0]), ["seed"])
    assert pairs[["run_first", "run_second"]].to_numpy().tolist() == [[0, 1], [2, 0]]
    assert (pairs["grokked_second"] - pairs["grokked_first"]).tolist() == [400, 100]
    with pytest.raises(InputError, match="runs 0, 1 of the second sweep agree in seed"):
        paired.pair(table([100]), table([100, 200], seeds=[0, 0]), ["seed"])
    assert len(paired.pair(table([100]), table([200]), [])) == 1


def test_differences_and_ratios():
    found = of(table([100, 200, 400]), table([150, 400, 200]))
    assert (found["both"], found["first_lower"], found["second_lower"]) == (3, 2, 1)
    assert (found["difference"], found["ratio"]) == (50, 1.5)
    assert math.isnan(found["difference_low"])  # of three pairs
    assert found["p"] == 1.0


def test_a_run_that_has_not_grokked_counts_where_its_end_is_late_enough():
    """One that trained for longer than the other took to grok is later; one that ended before says nothing."""
    found = of(table([100, 900, None, 500], last=1_000), table([None, None, 300, 500], last=600))
    assert (found["pairs"], found["both"], found["first_seen"], found["second_seen"]) == (4, 1, 3, 2)
    assert (found["first_lower"], found["second_lower"], found["equal"]) == (1, 1, 1)


def test_an_interval_covers_the_median():
    """Against all ways in which n values can fall on either side of it."""
    for n in (6, 7, 9, 12):
        low, high = (paired._median("x", np.arange(n), 0.95)[f"x_{end}"] for end in ("low", "high"))
        k = int(low) + 1  # the interval is from the k-th smallest to the k-th largest
        assert high == n - k
        below = [sum(sides) for sides in itertools.product((0, 1), repeat=n)]
        covered = sum(k <= b <= n - k for b in below) / 2**n
        wider = sum(k + 1 <= b <= n - k - 1 for b in below) / 2**n
        assert covered >= 0.95 > wider, n
    assert math.isnan(paired._median("x", np.arange(5), 0.95)["x_low"])


def test_the_sign_test():
    assert paired.sign_test(5, 0) == pytest.approx(2 / 32)
    assert paired.sign_test(6, 2) == pytest.approx(2 * (1 + 8 + 28) / 256)
    assert math.isnan(paired.sign_test(0, 0))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """Sweeps with two learning rates; of the second, some other seeds, and no measures but losses."""
    folder = tmp_path_factory.mktemp("compared")
    c = tiny.get_config()
    assert tiny.train(c, folder / "a")[0] == 0
    c.learning_rate, c.measures, c.snapshot_every = 3e-2, ("spectra",), 200
    c.sweep.seed = (1, 2)
    assert tiny.train(c, folder / "b")[0] == 0
    return folder


def test_settings_that_differ_and_runs_that_pair(sweeps):
    found = grokjax.compare(sweeps / "a", sweeps / "b")
    assert found.names == ("a", "b")
    rows = found.differences.set_index("setting")
    assert rows.loc["learning_rate"].tolist() == ["0.01", "0.03"]
    assert rows.loc["seed"].tolist() == ["0, 1", "1, 2"]
    assert rows.loc["measures"].tolist() == ["", "spectra"]
    assert "weight_decay" not in rows.index
    assert list(found.on) == ["seed", "weight_decay"]
    assert found.pairs[["seed", "weight_decay"]].to_numpy().tolist() == [[1, 0.0], [1, 1.0]]
    assert found.notes == ["2 runs of a are in no pair", "2 runs of b are in no pair"]
    a, b = (grokjax.open(sweeps / name).runs.set_index("run") for name in "ab")
    expected = [
        b.loc[j, "test_loss"] - a.loc[i, "test_loss"] for i, j in found.pairs[["run_first", "run_second"]].values
    ]
    difference = found.statistics.set_index("quantity").loc["test_loss", "difference"]
    assert difference == pytest.approx(np.median(expected))
    drawn = found.figure()
    assert [(ax.get_xscale(), ax.get_xlim() == ax.get_ylim()) for ax in drawn.axes] == [("log", True)] * len(drawn.axes)


def test_the_figure_explains_the_signs_that_are_there(sweeps):
    found = grokjax.compare(sweeps / "a", sweeps / "b")

    def told(first, second):
        seen = {f"{name}_{side}_seen": values for name in ("memorised", "grokked") for side, values in (first, second)}
        drawn = dataclasses.replace(found, pairs=found.pairs.assign(**seen)).figure()
        texts = (text.get_text() for text in drawn.legends[0].get_texts())
        return [text for text in texts if text.startswith("not by then")]

    for seen in itertools.product([False, True], repeat=2):
        of_a, of_b = [True, seen[0]], [True, seen[1]]
        names = " ".join(name for name, there in zip("ab", seen, strict=True) if not there)
        expected = {"": [], "a b": ["not by then in either"]}.get(names, [f"not by then in {names}"])
        assert told(("first", of_a), ("second", of_b)) == expected


def test_statistics_by_a_field(sweeps):
    found = grokjax.compare(sweeps / "a", sweeps / "b", by=["weight_decay"])
    assert found.statistics.groupby("weight_decay")["pairs"].first().to_dict() == {0.0: 1, 1.0: 1}
    with pytest.raises(InputError, match="field that pairs agree in 'wd' is unknown"):
        grokjax.compare(sweeps / "a", sweeps / "b", by=["wd"])


def test_a_sweep_with_itself(sweeps):
    found = grokjax.compare(sweeps / "a", sweeps / "a")
    assert found.differences.empty
    assert found.notes == ["4 pairs of one and the same run, trained twice"]
    assert (found.statistics["p"].isna()).all()


def test_runs_that_do_not_pair_are_said(sweeps, tmp_path):
    c = tiny.get_config()
    c.sweep.learning_rate = (1e-3, 2e-3)
    assert tiny.train(c, tmp_path / "rates")[0] == 0
    found = grokjax.compare(sweeps / "a", tmp_path / "rates")
    assert found.pairs.empty
    assert "learning_rate has no value that both sweeps have, so runs are not paired by it" in found.notes
    assert any(note.startswith("no pairs: runs 0, ") for note in found.notes)
    with pytest.raises(InputError, match="a and rates have no pair of runs to draw"):
        found.figure()


def test_the_command(sweeps, tmp_path, capsys):
    a, b = str(sweeps / "a"), str(sweeps / "b")
    status, out, err = call(capsys, main, "compare", a, b, f"--out={tmp_path / 'pairs.svg'}")
    assert (status, err) == (0, f"written: {tmp_path / 'pairs.svg'}\n")
    assert "learning_rate" in out
    assert "2 pairs of runs that agree in seed, weight_decay: b less a" in out
    drawn = (tmp_path / "pairs.svg").read_text()
    assert "step to grok, a" in drawn
    assert "weight_decay = 1" in drawn
    status, out, _ = call(capsys, main, "compare", a, b, "--json")
    assert {"names", "on", "differences", "statistics", "pairs", "notes"} == json.loads(out).keys()
    assert_refused(call(capsys, main, "compare", a, str(tmp_path / "no")), "no does not exist")
    assert_refused(call(capsys, main, "compare", a, b, "--by=wd"), "'wd' is unknown")
    assert_refused(call(capsys, main, "compare", a, b, "--out=x.txt"), "--out=x.txt: a figure is written as")
    (tmp_path / "file").write_text("")
    nowhere = f"--out={tmp_path / 'file' / 'pairs.svg'}"
    assert_refused(call(capsys, main, "compare", a, b, nowhere), f"{nowhere} cannot be written")
    assert_refused(call(capsys, main, "compare", a), "the following arguments are required: B")
