"""Studies: rows of a record from a real sweep, what they say of planted runs, and pages that are made from records."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import tiny
from doubles import StopAfter

import grokjax
from grokjax import sweeps
from grokjax.cli import terminal
from grokjax.experiment import load_experiment
from grokjax.phases import survival
from grokjax.store.ledger import Ledger
from studies import (
    laws,
    leads,
    loss_precision,
    moves,
    pages,
    phase_diagram,
    record,
    rows,
    stability,
    statistics,
    text,
    wd_sweep,
)
from tools import figures


def planted_run(delay: int, begin: int = 100, end: int = 500) -> pd.DataFrame:
    """A run whose Gini coefficient moves half-way at step 200 and whose test loss `delay` steps later."""
    step = np.arange(0, 700, 10)
    way = np.clip((step - begin) / (end - begin), 0, 1)

    def moved(at):
        return 1 / (1 + np.exp(-(step - at) / 10))

    return pd.DataFrame(
        {
            "step": step,
            "test_loss": np.exp(-3 * moved(200 + delay)),
            "gini_W_E": moved(200),
            "sum_sq_weights": np.exp(-way),
        }
    )


def test_a_planted_lead_is_found():
    found = moves.of(planted_run(120), pd.Series({"memorised_by": 100.0, "grokked_by": 500.0}))
    assert found["half_test_loss"] - found["half_gini_W_E"] == pytest.approx(120, abs=2)
    assert found["half_weight_norm"] == pytest.approx(300, abs=1)
    assert found["tenth_weight_norm"] == pytest.approx(140, abs=1)
    assert found["between"] == 40
    assert found["at_gini_W_E"] == pytest.approx(1 / (1 + math.exp(10)))
    used = pd.DataFrame([{**found, "memorised_by": 100.0, "grokked_by": 500.0}])
    assert leads.leads(used, "gini_W_E", "half") == pytest.approx([0.3], abs=0.01)


def test_a_swing_is_crossed_first_and_for_good():
    of_run = pd.DataFrame({"step": [0, 10, 20, 30, 40], "gini_W_E": [0.0, 0.8, 0.2, 0.8, 1.0]})
    found = moves.of(of_run, pd.Series({"memorised_by": 0.0, "grokked_by": 40.0}))
    assert found["first_half_gini_W_E"] == pytest.approx(6.25)
    assert found["half_gini_W_E"] == pytest.approx(25)


def test_a_run_that_never_groks_has_no_moves():
    found = moves.of(planted_run(120), pd.Series({"memorised_by": 100.0, "grokked_by": math.nan}))
    assert not any(name.startswith("half_") for name in found)
    assert found["at_gini_W_E"] < 0.01


def test_slingshots_are_rises_from_calm():
    calm, between, high = 1e-3, 0.05, 0.3
    for losses, expected in (
        ([calm, high, calm], 1),
        ([calm, between, calm], 0),
        ([calm, between, high, between, high, calm], 1),
        ([high, calm, high, calm, math.nan], 2),
        ([between, high, high], 0),
        ([], 0),
    ):
        assert stability.slingshots(np.array(losses)) == expected


def test_collapse_is_dated_and_only_what_follows_memorising_is_a_slingshot():
    of_run = pd.DataFrame(
        {
            "step": [0, 10, 20, 30, 40],
            "train_loss": [1e-3, 2.0, 1e-3, 1e-4, 0.5],
            "softmax_collapse": [0.0, 0.2, 0.49, 0.5, 0.9],
        }
    )
    assert stability.of(of_run, {"memorised_by": 20.0}) == {"slingshots": 1, "collapsed_by": 30.0}
    without = stability.of(of_run.drop(columns="softmax_collapse"), {"memorised_by": math.nan})
    assert without["slingshots"] == 0
    assert math.isnan(without["collapsed_by"])


def test_losses_are_told_apart_on_their_page():
    runs = {
        "seed": range(4), "weight_decay": 0.0, "loss": ["cross_entropy", "cross_entropy_bfloat16"] * 2, "total": 4,
        "grokked_by": [500.0, math.nan] * 2, "collapsed_by": [math.nan, 100.0] * 2, "last_step": 1_000,
        "softmax_collapse": [0.0, 0.75] * 2, "slingshots": [0, 3] * 2,
    }  # fmt: skip
    text = loss_precision.page(pd.DataFrame(runs))
    exact, rounded = (line for line in text.splitlines() if line.startswith(("| exact", "| log-softmax, bfloat16")))
    assert exact.split("|")[2].strip().startswith("2 of 2")
    assert "> 1,000" in exact.split("|")[4]
    assert rounded.split("|")[2].strip().startswith("0 of 2")
    assert "75%" in rounded
    assert "2 of 2" in rounded.split("|")[6]


def test_a_record_from_before_losses_could_be_chosen_is_of_the_exact_one():
    old = pd.DataFrame([{"p": 53, "seed": 0, "last_step": 10}])
    new = pd.DataFrame([{"p": 53, "loss": "cross_entropy", "seed": 0, "last_step": 20}])
    other = pd.DataFrame([{"p": 53, "loss": "mse", "seed": 0, "last_step": 5}])
    assert record.joined([old, new, other])["last_step"].tolist() == [20, 5]


def planted_record(noise: float = 0.02) -> pd.DataFrame:
    """Runs whose time to grok is 2 / (rate × decay^0.8), with a lead of a fifth that one measure has."""
    draw = np.random.default_rng(0)
    table = []
    for rate in (1e-3, 2e-3, 4e-3):
        for decay in (0.5, 1.0, 2.0):
            for seed in range(8):
                time = 2 / rate / decay**0.8 * math.exp(noise * draw.normal())
                table.append(
                    {
                        **{"p": 53, "train_fraction": 0.5, "d_model": 64, "init_scale": 1.0, "learning_rate": rate},
                        **{"weight_decay": decay, "seed": seed, "steps": 20_000, "last_step": 20_000, "total": 72},
                        **{"memorised_by": 100.0, "grokked_by": 100 + time, "between": 20, "run_class": "grokking"},
                        **{"half_test_loss": 100 + 0.8 * time, "half_gini_W_E": 100 + 0.6 * time, "at_gini_W_E": 0.1},
                        **{"tenth_test_loss": 100 + 0.3 * time, "tenth_gini_W_E": 100 + 0.2 * time},
                        **{"first_half_test_loss": 100 + 0.8 * time, "first_half_gini_W_E": 100 + 0.5 * time},
                    }
                )
    return pd.DataFrame(table)


def test_planted_exponents_are_found():
    planted = planted_record()
    time = np.log((planted["grokked_by"] - 100).to_numpy())
    rate, decay = (np.log(planted[name].to_numpy()) for name in ("learning_rate", "weight_decay"))
    exponents, r_squared = statistics.line(time, rate, decay)
    assert exponents == pytest.approx([-1, -0.8], abs=0.02)
    assert r_squared > 0.99
    assert "72 of 72 runs are in; 72 grokked" in laws.page(planted)


def test_settings_that_decide_the_time_predict_it_and_a_constant_does_not():
    planted = planted_record()
    y = np.log((planted["grokked_by"] - planted["memorised_by"]).to_numpy())
    known = leads.features(planted)
    errors = {
        name: np.median(np.abs(y - statistics.held_out(y, x, planted["seed"].to_numpy()))) for name, x in known.items()
    }
    assert errors["all settings"] < 0.05 < min(errors["λ"], errors["nothing"])
    assert "`gini_W_E` | 72 | 0.20 [0.20, 0.20]" in leads.page(planted)


def test_held_out_seeds_are_not_read():
    y, seeds = np.array([0.0, 0.0, 10.0]), np.array([0, 1, 2])
    assert statistics.held_out(y, np.empty((3, 0)), seeds) == pytest.approx([5, 5, 0])


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (math.nan, "–"), (1234.4, "1,230"), (0.1234, "0.123"), (2.41e-7, "2.41e−7"), (-0.5, "−0.500")],
)
def test_numbers(value, said):
    assert text.number(value) == said


def test_times_say_what_is_censored():
    assert text.time([100] * 8, [True] * 8, 500) == "100 [100, 100]"
    assert text.time([500] * 8, [False] * 8, 500) == "> 500"
    assert text.time([100, 200], [True, True], 500) == "100"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    c = grokjax.config.small()
    c.p, c.steps, c.eval_every, c.snapshot_every = 5, 40, 10, 40
    c.model.d_model, c.model.d_mlp = 8, 16
    c.sweep.weight_decay, c.sweep.seed = (0.0, 1.0), (0, 1)
    path = tmp_path_factory.mktemp("studies") / "sweep"
    grokjax.train(c, path)
    return path


@pytest.mark.long
def test_a_record_of_a_real_sweep_grows(sweep, tmp_path, capsys):
    out = tmp_path / "record.csv"
    for _ in range(2):
        record.main(["any", str(sweep), f"--out={out}"])
        assert "4 runs written" in capsys.readouterr().out
    table = record.read(out)
    assert table[["weight_decay", "seed"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    metrics = grokjax.open(sweep).metrics
    assert table["train_loss"].tolist() == pytest.approx(
        metrics[metrics["step"] == 40]["train_loss"].tolist(), rel=1e-5
    )
    assert set(table["commit"].str.len()) == {12}
    for page in (wd_sweep.page, phase_diagram.page, laws.page):
        assert "4 " in page(table)


def test_a_fall_at_strong_decay_moves_no_critical_value():
    """Of ten runs at each λ as many grok as a curve around 0.3 has it; at 100 none does, as training breaks down."""
    grokking = {0.0: 0, 0.03: 0, 0.1: 2, 1.0: 8, 10.0: 10, 100.0: 0}
    runs = [
        {"p": 53, "train_fraction": 0.5, "weight_decay": decay, "seed": seed, "steps": 500, "last_step": 500}
        | {"grokked_by": 100.0 if seed < n else math.nan, "run_class": "grokking", "total": 60}
        for decay, n in grokking.items()
        for seed in range(10)
    ]
    page = phase_diagram.page(pd.DataFrame(runs))
    row = next(line for line in page.splitlines() if line.startswith("| 50% | 40 |"))
    found = re.fullmatch(r"\| 50% \| 40 \| (\S+) \[(\S+), (\S+)\] \|  \|", row)
    value, low, high = map(float, found.groups())
    assert low < value < high
    assert value == pytest.approx(0.32, abs=0.02)


def test_the_phase_diagram_is_drawn_from_its_record(tmp_path):
    figures.draw_phase_diagram(record.read("phase_diagram"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_an_interval_without_an_end_is_told():
    assert text.estimate(survival.Estimate(0.7, 0.6, math.inf, 50)) == "0.70 [0.60, ∞]"


def test_runs_that_a_record_lacks_are_named(tmp_path, capsys):
    experiment, out = "experiments/phase_diagram.py:small", tmp_path / "record.csv"
    sweep = sweeps.expand(load_experiment(experiment)[1])
    main = ["phase_diagram", f"--out={out}", f"--lacking={experiment}"]
    record.main(main)
    assert capsys.readouterr().out == f"--only={','.join(str(run.run) for run in sweep.runs)}\n"
    table = pd.DataFrame([run.values for run in sweep.runs])[[*rows.IDENTITY]]
    table = table.rename(columns={"model.d_model": "d_model"})
    table.loc[4, "steps"] -= 1
    table.drop(index=[1, 17]).to_csv(out, index=False, float_format=record.DIGITS)
    record.main(main)
    assert capsys.readouterr().out == "--only=1,4,17\n"
    table.assign(steps=5_000).to_csv(out, index=False, float_format=record.DIGITS)
    record.main(main)
    assert capsys.readouterr().out == f"{out} has every run of {experiment}\n"


@pytest.mark.long
def test_a_run_that_was_interrupted_is_not_on_record_yet(tmp_path):
    assert tiny.train(tiny.get_config("hosts"), tmp_path / "sweep", stop=StopAfter(12))[0] == 143
    results = grokjax.open(tmp_path / "sweep")
    assert "interrupted" in set(results.runs["status"])
    over = results.runs[results.runs["status"].isin(Ledger.OVER)]
    assert rows.rows(results)["run"].tolist() == over["run"].tolist()


@pytest.mark.long
def test_the_longer_of_two_equal_runs_counts(sweep):
    short = rows.rows(grokjax.open(sweep))
    longer = short.iloc[:1].assign(last_step=80)
    joined = record.joined([longer, short])
    assert joined["last_step"].tolist() == [80, 40, 40, 40]


def test_a_folder_without_ended_runs_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        terminal.guarded(record.main, ["any", str(tmp_path / "nothing")])
    assert stop.value.code == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.long
def test_pages_are_made_of_the_records_alone():
    """The same twice, and each with the runs that its records hold; test_docs compares them with docs/studies."""
    found = pages.found()
    assert found == pages.found()
    assert set(found) == {"wd_sweep", "phase_diagram", "laws", "loss_precision", "leads"}
