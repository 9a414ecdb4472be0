"""Papers reproduced: comparisons of planted runs, entries against their experiments, the command, the page."""

import json
import math
import textwrap

import numpy as np
import pandas as pd
import pytest
from launches import ROOT

from grokjax import sweeps
from grokjax.cli import terminal
from grokjax.experiment import load_experiment
from studies import comparisons, papers, reproduced, reproductions
from studies.comparisons import Arm
from studies.papers import Figure, Reproduction

NAN = math.nan
A, B = Arm("A", "weight_decay == 1"), Arm("B", "weight_decay == 0")


def record(a, b, **more):
    """A record of runs that grok at these steps, or not within 1 000, with decay 1 and 0."""
    steps = np.array([*a, *b], float)
    n = len(steps)
    seeds = [*range(len(a)), *range(len(b))]
    told = {"run": range(n), "weight_decay": [1.0] * len(a) + [0.0] * len(b), "seed": seeds, "grokked_by": steps}
    told |= {"memorised_by": 100.0, "delay": steps - 100, "last_step": 1_000.0, "diverged_step": NAN, "overlap": False}
    told |= {
        f"{end}_end{part}": NAN for end in ("memorization", "circuit_formation", "cleanup") for part in ("", "_rule")
    }
    return pd.DataFrame(told | more)


def test_shares_are_compared_by_fishers_test():
    more = comparisons.happens_more("grokked_by", A, B)
    found = more(record([200, 300, 400, 500], [NAN] * 4))
    assert found.ours == "grok: A 4 of 4 [0.51, 1.00]; B 0 of 4 [0.00, 0.49]"
    assert (found.shows, found.p) == (True, pytest.approx(2 / 70))
    assert not more(record([200, NAN], [200, NAN])).shows
    assert more(record([200], [])) == comparisons.NOTHING


def test_only_runs_that_grokked_can_lose_it():
    runs = record([200, 300, NAN], [200, 300, 400], lost_grokking_by=[500, 600, NAN, 700, NAN, NAN])
    found = comparisons.happens_more("lost_grokking_by", A, B, among="grokked_by")(runs)
    assert found.ours.startswith("lose it again: A 2 of 2 [")
    assert "; B 1 of 3 [" in found.ours
    assert found.shows


def test_pairs_know_who_is_sooner_where_one_is_censored():
    found = comparisons.sooner(A, B)(record([200, 300, 400, 900], [400, 900, NAN, 600]))
    assert found.shows
    assert found.p == pytest.approx(0.625)
    assert "A at step 300, 4 of 4; B at step 600, 3 of 4" in found.ours
    assert "sooner in 3 of 4 pairs, later in 1; × 2.00 in 3 where both grok" in found.ours
    slower = comparisons.sooner(B, A)(record([200, 300], [NAN, NAN]))
    assert slower.shows is False
    assert "B at step > 1,000, 0 of 2" in slower.ours
    assert "×" not in slower.ours


def test_each_side_is_taken_at_its_best():
    runs = record([900, 800, 300, 200], [NAN, NAN, 500, 600], learning_rate=[0.1, 0.1, 1, 1, 1, 1, 0.1, 0.1])
    runs["seed"] = [0, 1] * 4
    found = comparisons.sooner(A, B, best_by=("learning_rate",))(runs)
    assert "A at step 200, 2 of 2; B at step 500, 2 of 2" in found.ours
    assert "sooner in 2 of 2 pairs" in found.ours


def test_a_measure_meets_a_published_range_by_its_interval_or_the_range_of_few():
    few = record([NAN] * 3, [NAN], circularity=[0.5, 0.6, 0.8, 0.1])
    found = comparisons.meets("circularity", A, 0.75, 0.9)(few)
    assert (found.ours, found.shows) == ("`circularity`: A 0.600 (0.500 to 0.800) of 3", True)
    assert not comparisons.meets("circularity", A, 0.81, 0.9)(few).shows
    assert not comparisons.meets("circularity", A, 0.1, 0.4)(few).shows
    many = record([NAN] * 8, [], circularity=[0.0, 0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 1.0])
    assert not comparisons.meets("circularity", A, 0.9, 1.0)(many).shows
    assert comparisons.meets("circularity", A, 0.65, 1.0)(many).shows
    assert comparisons.meets("circularity", B, 0, 1)(many) == comparisons.NOTHING


def test_measures_are_compared_by_their_medians():
    runs = record([NAN] * 6, [NAN] * 3, circularity=[0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.1, 0.2, NAN])
    found = comparisons.higher("circularity", A, B)(runs)
    assert found.shows
    assert found.p == pytest.approx(0.07, abs=0.01)
    assert found.ours == "`circularity`: A 0.750 [0.500, 0.900] of 6; B 0.150 (0.100 to 0.200) of 2"
    assert comparisons.higher("circularity", A, B)(runs[:6]) == comparisons.NOTHING


@pytest.mark.parametrize(("values", "middle"), [([1, 2, 4, 8], "3.00"), ([1, 2, 3, 5, 8, 9], "4.00")])
def test_of_two_measures_in_the_middle_the_median_is_their_mean(values, middle):
    assert comparisons._median(np.array(values, float)).startswith(f"{middle} ")


def test_what_holds_of_most_and_what_differs():
    runs = record([200, 300, NAN], [400], keys=["1 2", "1 2", "3", "4"])
    assert comparisons.holds(A, "grok early", "grokked_by < 250")(runs) == (
        "A, grok early: 1 of 3 [0.06, 0.79]",
        False,
        NAN,
    )
    assert comparisons.holds(A, "grok", "grokked_by < 350")(runs).shows
    assert comparisons.all_grok(A)(runs).shows is False
    assert comparisons.all_grok(B)(runs) == ("B at step 400, 1 of 1", True, NAN)
    assert (
        comparisons.differ("keys", ["weight_decay"])(runs).ours == "different `keys`: 0.0 1 in 1 runs; 1.0 2 in 3 runs"
    )
    assert not comparisons.differ("keys", ["weight_decay"])(runs).shows
    assert comparisons.differ("keys", ["weight_decay"])(runs[:3]).shows


@pytest.mark.parametrize(
    ("steps", "low", "high", "meets"),
    [
        ([100, 200, 300], 200, 200, True),
        ([100, 200, 300], 210, 400, False),
        ([100, 200, 300, 400, 500, 600], 450, 900, True),  # the interval's end
        ([NAN, NAN, 300], 100, 900, False),  # a median beyond the last step
    ],
)
def test_a_published_number_of_steps_is_met_or_not(steps, low, high, meets):
    assert comparisons.groks_at(A, low, high)(record(steps, [])).shows is meets
    assert comparisons.groks_at(B, low, high)(record(steps, [])) == comparisons.NOTHING


def made_up(name, setting):
    """A record as an experiment's runs would leave it, with outcomes drawn at random."""
    module, c = load_experiment(f"{ROOT / 'experiments' / name}.py{':small' * (setting == 'small')}")
    runs = sweeps.expand(c, getattr(module, "get_sweep", None)).runs
    draw = np.random.default_rng(0)
    table = pd.DataFrame([run.values for run in runs])
    kept = table[reproductions.telling(table)]
    steps = draw.choice([300.0, 500.0, 700.0, NAN], len(kept))
    found = record(steps, []).drop(columns=["weight_decay", "seed"]).assign(lost_grokking_by=steps + 100, keys="1 2")
    measures = {
        name: draw.random(len(kept)) for name in (*reproductions.LAST, "slingshots", *papers.ENTRIES[name].measures)
    }
    return pd.concat([kept, found.assign(**measures)], axis=1)


@pytest.mark.parametrize("setting", reproductions.SETTINGS)
@pytest.mark.parametrize("name", papers.found())
def test_every_figure_of_an_entry_has_runs_on_both_sides(name, setting, tmp_path):
    """Its comparisons read the fields of the experiment that there is, in both settings."""
    made_up(name, setting).to_csv(reproductions.path_of(name, setting, tmp_path), index=False)
    runs = reproductions.read(name, setting, tmp_path)
    for figure in papers.found()[name].of(setting):
        found = figure.compare(runs)
        assert found.shows in (True, False), (figure.what, found)
        assert math.isnan(found.p) or 0 <= found.p <= 1


def test_entries_name_their_papers():
    for entry in papers.ENTRIES.values():
        assert "arXiv" in entry.paper
        assert all(figure.what and figure.published for figure in entry.figures)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A place with one experiment, tiny.py, of two runs, and its entry."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.py").write_text(
        textwrap.dedent(
            """
            from grokjax import config

            def get_config(arg=""):
                c = config.small()
                c.p, c.model.d_model, c.model.d_mlp, c.measures = 5, 8, 16, ()
                c.steps = 40 if arg == "small" else 60
                c.eval_every = c.snapshot_every = 20
                c.sweep.weight_decay = (0.0, 1.0)
                return c
            """
        )
    )
    claims = (Figure("decay", "more", comparisons.happens_more("grokked_by", A, B)),)
    monkeypatch.setattr(papers, "EXPERIMENTS", tmp_path / "experiments")
    monkeypatch.setattr(papers, "ENTRIES", {"tiny": Reproduction("Someone 2020", "It groks.", "", claims)})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv):
    reproductions.main([*map(str, argv), "--root=out", "--records=records"])


@pytest.mark.long
def test_the_command_goes_on_and_passes_over_what_is_done(tiny, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt("stopped and saved in out/tiny_small")

    with monkeypatch.context() as stopping:
        stopping.setattr(reproductions.grokjax, "train", interrupted)
        with pytest.raises(SystemExit) as stop:
            run()
    assert stop.value.code == 130
    assert "stopped and saved in out/tiny_small; the same command goes on" in capsys.readouterr().err
    before = json.loads((tiny / "out" / "seconds.json").read_text())["tiny_small"]["wall"]
    assert not list(tiny.glob("records/*"))
    run()
    taken = json.loads((tiny / "out" / "seconds.json").read_text())
    assert taken["tiny_small"]["wall"] > before
    path = tiny / "records" / "tiny_small.csv"
    kept = path.read_bytes()
    run("tiny")
    assert json.loads((tiny / "out" / "seconds.json").read_text()) == taken
    assert path.read_bytes() == kept
    table = reproductions.read("tiny", "small", tiny / "records")
    assert table[["run", "weight_decay", "seed", "last_step", "total", "p"]].to_numpy().tolist() == [
        [0, 0, 0, 40, 2, 5],
        [1, 1, 0, 40, 2, 5],
    ]
    assert set(table["optimizer"]) == {"adamw"}  # a default, which the file leaves out
    assert "optimizer" not in kept.decode().splitlines()[0]
    run("--full")
    assert set(reproductions.read("tiny", "full", tiny / "records")["last_step"]) == {60}


def test_an_unknown_experiment_is_a_sentence(tiny, capsys):
    with pytest.raises(SystemExit) as stop:
        terminal.guarded(run, "tini")
    assert stop.value.code == 2
    assert "tini" in (said := capsys.readouterr().err)
    assert "tiny" in said


def test_the_page_says_what_was_not_run_and_only_full_ones_disagree(tiny):
    runs = record([NAN, NAN], [200, 300]).assign(
        total=5, seconds=100, processor_seconds=150, hardware="2 threads of a CPU"
    )
    entries = papers.found()
    none = reproduced.page(entries, {"tiny": {}})
    assert none.count("not run") == 3
    later = Figure("steps", "many", comparisons.groks_at(A, 1, 2), only_full=True)
    both = {"tiny": entries["tiny"]._replace(figures=(*entries["tiny"].figures, later))}
    assert "| steps | many | – | not run | – |" in reproduced.page(both, {"tiny": {"small": runs}})
    small, full = (reproduced.page(entries, {"tiny": {setting: runs}}) for setting in reproductions.SETTINGS)
    assert (
        "| small | 4 of 5 | 1 min 40 s (2 min 30 s of processor time) | 2 threads of a CPU | 0 of 1 figures |" in small
    )
    assert "does not show it (p = 0.33)" in small
    assert "agree" not in small
    assert "open (p = 0.33)" in full  # two against two
    many = record([NAN] * 6, [200] * 6).assign(total=12, seconds=100, processor_seconds=150, hardware="one H100")
    assert "disagrees (p = 0.0022)" in reproduced.page(entries, {"tiny": {"full": many}})
    assert "B 2 of 2 [0.34, 1.00]" in full


def test_an_entry_waits_for_its_experiment(tiny):
    assert set(papers.found()) == {"tiny"}
    (tiny / "experiments" / "tiny.py").unlink()
    assert papers.found() == {}


def test_the_full_setting_may_be_a_studys():
    """The record of the study of the same name is read, whose times were not kept."""
    runs = reproductions.read("wd_sweep", "full")
    assert len(runs) == 40
    assert runs["seconds"].isna().all()
    entry = {"wd_sweep": papers.ENTRIES["wd_sweep"]}
    assert "| full | 40 of 40 | not kept | not kept | 3 of 5 figures |" in reproduced.page(
        entry, {"wd_sweep": {"full": runs}}
    )


@pytest.mark.long
def test_the_page_is_made_of_the_records_alone():
    assert reproduced.found() == reproduced.found()
    for name in papers.found():
        assert f"\n## {name}\n" in reproduced.found()
