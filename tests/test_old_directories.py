"""Directories that an earlier version (commit a04a895) wrote: a finished one opens in every command, one goes on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from commands import call

from grokjax.cli import check, circuit, export, measure, phases, replay, report
from grokjax.store.metrics import read_metrics, read_runs

ARCHIVE = Path(__file__).parent / "data" / "sweep_a04a895.tar.gz"


@pytest.fixture
def old(tmp_path):
    """The folders finished/ and interrupted/: the config below, done, and stopped at step 20 of 200."""
    shutil.unpack_archive(ARCHIVE, tmp_path, filter="data")
    return tmp_path


def config():
    c = tiny.get_config("paper")
    c.checkpoint_every_steps = 20
    return c


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        (check, ["{}"], "all whole"),
        (phases, ["{}"], "circuit formation"),
        (report, ["{}"], "written: "),
        (measure, ["{}:3", "--measures=paper"], "restricted_loss"),
        (replay, ["{}", "--rule=W_E"], "replayed into "),
        (circuit, ["{}", "--run=1"], "a snapshot of grokjax"),
        (circuit, ["{}", "--all"], "written: "),
        (export, ["{}:0:100", "{}/model.npz"], "np.load"),
    ],
    ids=["check", "phases", "report", "measure", "replay", "circuit", "circuit --all", "export"],
)
def test_a_finished_one_opens_in_every_command(command, args, said, old, capsys):
    status, out, err = call(capsys, command.main, *(arg.format(old / "finished") for arg in args))
    beside = f"written: {old / 'finished'}/model.npz\n" if command is export else ""  # stdout is Python
    assert (status, err) == (0, beside)
    assert said in out


def test_a_finished_one_has_nothing_left_to_do(old):
    status, text = tiny.train(config(), old / "finished")
    assert status == 0
    assert "is finished: nothing to do" in text


def test_an_interrupted_one_goes_on(old):
    """Bit for bit on the machine that began it; elsewhere to rounding, which 200 steps of P = 7 keep small."""
    before = read_metrics(old / "interrupted")
    status, text = tiny.train(config(), old / "interrupted")
    assert status == 0
    assert "going on from 80 run-steps" in text
    metrics, expected = read_metrics(old / "interrupted"), read_metrics(old / "finished")
    assert list(metrics) == list(expected)
    np.testing.assert_array_equal(metrics[["run", "step"]], expected[["run", "step"]])
    early = metrics["step"] <= 20
    np.testing.assert_array_equal(metrics.loc[early, "train_loss"], before["train_loss"])
    for column in ("train_loss", "test_loss", "sum_sq_weights", "restricted_loss"):
        np.testing.assert_allclose(metrics[column].astype(float), expected[column].astype(float), rtol=1e-3)
    assert list(read_runs(old / "interrupted")["status"]) == ["finished"] * 4
