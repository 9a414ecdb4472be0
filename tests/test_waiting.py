"""What takes long is told."""

import re
import time

import tiny

from grokjax import waiting
from grokjax.report import write
from grokjax.store import recovery


def slow(function):
    def run(*args, **kwargs):
        time.sleep(0.5)
        return function(*args, **kwargs)

    return run


def test_training_says_that_it_examines_a_directory_and_writes_the_report(tmp_path, monkeypatch):
    c = tiny.get_config()
    monkeypatch.setattr(waiting, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(write, "write", slow(write.write))
    assert re.search(r"writing the report … \d+ s so far", tiny.train(c, tmp_path / "out")[1])
    monkeypatch.setattr(recovery, "examine", slow(recovery.examine))
    told = tiny.train(c, tmp_path / "out")[1]
    assert re.search(rf"examining {re.escape(str(tmp_path / 'out'))} … \d+ s so far", told)
    assert "writing the report" not in told
