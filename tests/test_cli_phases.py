"""`grokjax phases`: what it prints and writes; a mistake is one sentence."""

from pathlib import Path

import pandas as pd
import pytest
from commands import assert_refused, call
from planted import planted, sweep_of_planted

from grokjax.cli import phases
from grokjax.phases import find_phases


def test_command_line_prints_and_writes(tmp_path, capsys):
    metrics, _ = sweep_of_planted(n=3)
    (tmp_path / "metrics").mkdir()
    metrics["weight_decay"] = metrics["run"].map({0: 0.1, 1: 1.0, 2: 1.0})
    metrics.to_parquet(tmp_path / "metrics" / "part-000000.parquet")
    status, shown, err = call(capsys, phases.main, str(tmp_path), "--csv", str(tmp_path / "phases.csv"))
    assert (status, err) == (0, "")
    assert "circuit formation" in shown
    assert "median − default" in shown
    assert "critical_weight_decay" in shown
    written = pd.read_csv(tmp_path / "phases.csv")
    pd.testing.assert_frame_equal(written, find_phases(metrics), check_dtype=False)
    metrics[metrics["run"] == 0].to_csv(tmp_path / "one.csv", index=False)
    assert call(capsys, phases.main, str(tmp_path / "one.csv"))[0] == 0


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
    status, out, err = call(capsys, phases.main, *(arg.format(**names) for arg in argv))
    assert_refused((status, out, err.replace("the metrics have", "has")), sentence)
