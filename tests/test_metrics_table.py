"""Tables of metrics from anywhere: CSV, JSON lines, Parquet, and the curves in PyTorch files."""

import numpy as np
import pandas as pd
import pytest
from commands import assert_refused, call

from grokjax import phases
from grokjax.cli import phases as phases_command
from grokjax.cli import report as report_command
from grokjax.interp import metrics_table

TRAIN, TEST = [2.0, 1.0, 1e-3, 1e-4, 1e-4, 1e-5], [2.0, 3.0, 3.0, 2.0, 1e-3, 1e-4]


@pytest.fixture
def frame():
    return pd.DataFrame({"epoch": range(6), "train_loss": TRAIN, "test_loss": TEST})


def test_tables_by_epoch(tmp_path, frame, capsys):
    frame.to_csv(tmp_path / "curves.csv", index=False)
    for name in ("curves.jsonl", "curves.ndjson"):
        frame.to_json(tmp_path / name, orient="records", lines=True)
    frame.to_parquet(tmp_path / "curves.parquet")
    wanted = phases.find_phases(frame)
    for name in ("curves.csv", "curves.jsonl", "curves.ndjson", "curves.parquet"):
        found = phases.find_phases(metrics_table.read(tmp_path / name))
        assert found["grokked_by"].tolist() == wanted["grokked_by"].tolist() == [4]
    assert call(capsys, phases_command.main, str(tmp_path / "curves.csv"), "--rename=epoch=step")[0] == 0


CURVES = {
    "losses": lambda torch: {"train_losses": TRAIN, "test_losses": TEST},
    "tensors": lambda torch: {"train_losses": torch.tensor(TRAIN), "test_losses": [torch.tensor(x) for x in TEST]},
    "with a model": lambda torch: {"model": {"W": torch.eye(3)}, "train_losses": TRAIN, "test_losses": TEST},
    "as columns": lambda torch: {"train_loss": TRAIN, "val_loss": TEST, "test_accs": [0.0] * 4 + [1.0] * 2},
    "with epochs": lambda torch: {"epochs": list(range(6)), "train_losses": TRAIN, "test_losses": TEST},
    "with others' epochs": lambda torch: {"epochs": [0, 5], "train_losses": TRAIN, "test_losses": TEST},
}


@pytest.mark.parametrize("kind", CURVES)
def test_curves_in_a_pytorch_file(kind, tmp_path, torch, capsys):
    path = tmp_path / "curves.pth"
    torch.save(CURVES[kind](torch), path)
    found = metrics_table.read(path)
    assert found["step"].tolist() == list(range(6))
    np.testing.assert_allclose(found["test_loss"], TEST, rtol=1e-6)
    assert phases.find_phases(found)["grokked_by"].tolist() == [4]
    assert "grokked by 4" in call(capsys, phases_command.main, str(path))[1].replace("\N{NO-BREAK SPACE}", " ")


BAD = {
    "no curves": ({"train_losses": TRAIN}, "holds no curves: lists train_losses and test_losses are expected"),
    "unequal": ({"train_losses": TRAIN, "test_losses": TEST[1:]}, "6 of train_loss, 5 of test_loss"),
    "empty": ({"train_losses": [], "test_losses": []}, "equally long"),
    "words": ({"train_losses": ["a"], "test_losses": ["b"]}, "holds no curves"),
    "endless": ({"train_losses": range(10**30), "test_losses": range(10**30)}, "holds no curves"),
    "a list": ([1.0, 2.0], "holds no curves"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_curve_is_one_sentence(kind, tmp_path, torch, capsys):
    content, sentence = BAD[kind]
    torch.save(content, tmp_path / "x.pth")
    for command in (phases_command, report_command):
        assert_refused(call(capsys, command.main, str(tmp_path / "x.pth")), sentence)


def test_report_of_a_table_that_another_tool_wrote(tmp_path, frame, capsys):
    path = tmp_path / "curves.csv"
    frame.rename(columns={"test_loss": "val_loss"}).to_csv(path, index=False)
    assert call(capsys, report_command.main, str(path))[0] == 0
    page = (tmp_path / "curves.report" / "index.html").read_text()
    assert "1 run of curves.csv" in page
    assert "A table has no models in it" in page
    path.write_text("a,b\n1,2\n")
    assert_refused(call(capsys, report_command.main, str(path)), "phases need")


def test_report_of_a_table_of_several_runs(tmp_path, frame, capsys):
    some = [frame.assign(run=run, weight_decay=decay) for run, decay in ((3, 0.0), (5, 1.0))]
    pd.concat(some).to_parquet(tmp_path / "both.parquet")
    assert call(capsys, report_command.main, str(tmp_path / "both.parquet"))[0] == 0
    page = (tmp_path / "both.report" / "index.html").read_text()
    assert "Swept: weight_decay 0, 1." in page
