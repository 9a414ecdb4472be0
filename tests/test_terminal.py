"""What commands share: JSON alone on stdout, and a word on stderr while something takes long."""

import io
import json
import sys
import time

import numpy as np
import pytest
from commands import call

from grokjax import waiting
from grokjax.cli import terminal, train
from grokjax.cli.main import main


def test_what_takes_long_says_so_on_stderr(capsys, monkeypatch):
    with terminal.busy("thinking"):
        time.sleep(0.01)
    assert list(terminal.track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(waiting, "SLOW_SECONDS", 0.01)
    with terminal.busy("thinking"):
        time.sleep(0.3)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "thinking … 0 s so far\n")
    monkeypatch.setattr(waiting, "LINE_SECONDS", 0.01)
    for _ in terminal.track(range(2), "counting"):
        time.sleep(0.3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "counting … 1 of 2, about 0 s left\n" in err


def test_what_fails_is_not_busy_any_more(capsys, monkeypatch):
    monkeypatch.setattr(waiting, "SLOW_SECONDS", 0.05)
    with pytest.raises(ZeroDivisionError), terminal.busy("dividing"):
        print(1 / 0)
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_what_was_printed_is_written_before_the_streams_are_given_back(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(written)))
    monkeypatch.setattr(sys, "stderr", None)
    with terminal.lasting_output():
        print("so far")
    assert written.getvalue() == b"so far\n"


def test_json_has_no_nan(capsys):
    terminal.say_json({"a": float("nan"), 3: (np.float32(0.5), np.array([1, 2])), "b": None, "c": True})
    assert json.loads(capsys.readouterr().out) == {"a": None, "3": [0.5, [1, 2]], "b": None, "c": True}


def test_commands_print_json_alone(finished, capsys):
    path = str(finished[0])
    commands = {
        "phases": (["phases", path, "--rules"], {"runs", "groups", "fits", "rules", "notes"}),
        "measure": (["measure", f"{path}:2", "--measures=losses"], {"train_loss", "null", "measured"}),
        "circuit": (["circuit", path, "--run=2"], {"loss", "null", "measured"}),
        "check": (["check", path], {"whole", "findings"}),
        "example": (["example"], {"mainline", "precision", "wd_sweep"}),
    }
    for name, (args, expected) in commands.items():
        status, out, _ = call(capsys, main, *args, "--json")
        assert status == 0, name
        assert expected <= json.loads(out).keys()


def test_training_prints_its_runs_as_json(tmp_path, capsys, monkeypatch):
    args = ["--config=tests/tiny.py", f"--workdir={tmp_path / 'out'}", "--json", "--config.steps=40"]
    with pytest.raises(SystemExit) as stopped:
        train.main(args)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (stopped.value.code, found["status"]) == (0, 0)
    assert [(run["run"], run["last_step"]) for run in found["runs"]] == [(n, 40) for n in range(4)]
    assert "run-steps" in err
