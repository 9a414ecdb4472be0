"""`grokjax phases`: what it prints and writes; a mistake is one sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import assert_refused, call
from planted import ENDS, planted, sweep_of_planted

from grokjax.cli import phases
from grokjax.phases import find_phases


def test_command_line_prints_and_writes(tmp_path, capsys):
    metrics, _ = sweep_of_planted(n=3)
    (tmp_path / "metrics").mkdir()
    metrics["weight_decay"] = metrics["run"].map({0: 0.1, 1: 1.0, 2: 1.0})
    metrics.to_parquet(tmp_path / "metrics" / "part-000000.parquet")
    status, shown, err = call(capsys, phases.main, str(tmp_path), "--csv", str(tmp_path / "phases.csv"))
    assert (status, err) == (0, f"written: {tmp_path / 'phases.csv'}\n")
    assert shown.startswith("weight_decay = 0.1: 1 of 1 grok, median step ")
    assert "circuit formation" in shown
    assert "run 0" not in shown
    assert "every run grokked, so the critical value is below 0.1" in shown
    assert "critical_weight_decay" not in shown  # a fit that does not exist
    assert max(map(len, shown.splitlines())) <= 80
    written = pd.read_csv(tmp_path / "phases.csv")
    pd.testing.assert_frame_equal(written, find_phases(metrics), check_dtype=False)
    metrics[metrics["run"] == 0].to_csv(tmp_path / "one.csv", index=False)
    status, shown, err = call(capsys, phases.main, str(tmp_path / "one.csv"))
    assert (status, err) == (0, "")
    assert "ends: memorization" in shown  # a single run is listed


def written_by_another_tool(path):
    """One run's curves under other names, as another tool may write them; train accuracy crosses 0.99 at step 600."""
    table = planted(1_400, 4_000, 5_600, 10_000, every=200)
    names = {"step": "epoch", "train_acc": "train_accuracy", "test_acc": "acc_ood", "test_loss": "Val/Loss"}
    table = table.rename(columns=names).assign(lr=np.arange(len(table)))
    table.to_csv(path / "table.csv", index=False)
    table.to_json(path / "table.jsonl", orient="records", lines=True)
    table.to_parquet(path / "table.parquet")
    return table


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_other_names_are_recognised_and_what_stands_in_is_said(tmp_path, capsys, suffix):
    written_by_another_tool(tmp_path)
    path = str(tmp_path / f"table.{suffix}")
    status, shown, err = call(capsys, phases.main, path)
    shown = " ".join(shown.split())
    assert (status, err) == (0, "")
    assert "memorised by 600, grokked by 4,800" in shown
    for note in (
        "column 'epoch' is read as step",
        "column 'Val/Loss' is read as test_loss",
        "column 'train_accuracy' is read as train_acc",
        "no test_acc: a test loss of 0.01, −ln 0.99, stands in for a test accuracy of 0.99",
        "excluded_loss_max stands in for excluded_loss",
        "not used, since no rule for a phase reads it: acc_ood, lr",
    ):
        assert f"note: {note}" in shown
    status, renamed, err = call(capsys, phases.main, path, "--rename=acc_ood=test_acc")
    assert "grokked by 4,600" in renamed
    assert "−ln" not in renamed


def test_rules_and_thresholds_are_flags(tmp_path, capsys):
    planted(1_400, 4_000, 5_600, 10_000, every=200).to_csv(tmp_path / "table.csv")

    def ends(*flags):
        call(capsys, phases.main, str(tmp_path / "table.csv"), f"--csv={tmp_path / 'out.csv'}", *flags)
        return pd.read_csv(tmp_path / "out.csv").iloc[0]

    assert ends()["cleanup_end_rule"] == "test_level"
    chosen = ends("--rule=cleanup=gap_closed,circuit-formation=test_half", "--set=gap=5", "--set", "smooth=3")
    assert (chosen["cleanup_end_rule"], chosen["circuit_formation_end_rule"]) == ("gap_closed", "test_half")
    assert ends("--set=class_rule=absolute,class_gap=5000")["run_class"] == "comprehension"
    assert ends()["run_class"] == "grokking"
    assert "gini_settled" in call(capsys, phases.main, str(tmp_path / "table.csv"), "--rules")[1]


def test_what_the_tables_leave_open_is_said(tmp_path, capsys):
    sweep_of_planted(n=2)[0].to_csv(tmp_path / "table.csv", index=False)
    out = tmp_path / "out.csv"
    _, shown, err = call(capsys, phases.main, str(tmp_path / "table.csv"), "--runs", f"--csv={out}")
    shown = " ".join(shown.split())
    assert (
        "> N: not by step N. A run has memorised at an accuracy; the phase memorization lasts longer, until " in shown
    )
    assert "The word of a run is its class, by the default class_rule. grokking: grokked, with a delay longer" in shown
    assert err == f"written: {out}\n"


def test_no_number_is_cut(tmp_path, capsys):
    """At 80 columns, however many groups there are and however large the steps."""
    metrics, _ = sweep_of_planted(n=6)
    metrics["step"] *= 10_000
    metrics["weight_decay"], metrics["learning_rate"] = 0.123456 + metrics["run"] % 2, 1e-3 * (1 + metrics["run"] // 2)
    metrics.to_csv(tmp_path / "table.csv", index=False)
    by = "--by=weight_decay,learning_rate"
    status, shown, _ = call(capsys, phases.main, str(tmp_path / "table.csv"), by, "--runs")
    assert status == 0
    for row in find_phases(metrics).to_dict("records"):
        for name in ("memorised_by", "grokked_by", "delay", *ENDS):
            assert f"{row[name]:,.0f}" in shown


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "the following arguments are required: DIR"),
        (["nowhere"], "nowhere does not exist"),
        ([str(Path(__file__).parent)], "holds no metrics"),
        ([__file__], "is no table that can be read"),
        (["{table}", "--by", "lr"], "column 'lr' is unknown"),
        (["{table}", "--chance-loss", "0"], "chance_loss = 0.0 must be above 0"),
        (["{table}", "--set", "drop=1.5"], "setting drop = 1.5 must be between 0 and 1"),
        (["{table}", "--set", "smooth=2.5"], "setting smooth = 2.5 must be a whole number"),
        (["{table}", "--set", "drop"], "--set=drop must be two names with = between them"),
        (["{table}", "--set", "dropp=0.4"], "setting 'dropp' is unknown: did you mean 'drop'"),
        (["{table}", "--rule", "cleanup=gap_close"], "did you mean 'gap_closed'"),
        (["{table}", "--rule", "cleanp=gap_closed"], "phase 'cleanp' is unknown: did you mean 'cleanup'"),
        (["{table}", "--rename", "x=train_acc"], "column 'x' is unknown"),
        (["{table}", "--rename", "gini_W_L=train_accuracy"], "did you mean 'train_acc'"),
        (["{table}", "--rename", "gini_W_L=train_acc"], "the table has a column 'train_acc' already"),
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
    status, out, err = call(capsys, phases.main, *(arg.format(**names) for arg in argv))
    assert_refused((status, out, err.replace("the metrics have", "has")), sentence)
