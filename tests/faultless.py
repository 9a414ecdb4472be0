"""A sweep that was never interrupted, the same one stopped halfway, and going on from there."""

import shutil

import pytest
import tiny
from doubles import StopAfter

from faults import comparison
from grokjax.report import write


def config():
    """Four runs on three slots, with final keys to settle; a checkpoint after every dispatch."""
    c = tiny.get_config("paper")
    c.checkpoint_every_steps = 20
    return c


@pytest.fixture(scope="session")
def whole_and_halfway(tmp_path_factory):
    """The two directories."""
    folder = tmp_path_factory.mktemp("faultless")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write", lambda path: None)
        assert tiny.train(config(), folder / "whole")[0] == 0
        assert tiny.train(config(), folder / "halfway", stop=StopAfter(16))[0] == 143
    return folder / "whole", folder / "halfway"


def halfway(both, folder):
    """A copy of the interrupted one, to be damaged."""
    return shutil.copytree(both[1], folder / "copy")


def files(path):
    """The files of a working directory, without the lock."""
    return sorted(f for f in path.rglob("*") if f.is_file() and f.name != ".lock")


def go_on(path):
    """Gives the same command again, without the report, which takes longer than the rest; returns what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write", lambda path: None)
        status, text = tiny.train(config(), path)
    assert status == 0
    return text


def assert_goes_on_the_same(path, both, parameters=True):
    """Going on ends with the uninterrupted sweep's tables (and parameters), bit for bit; returns what was printed."""
    text = go_on(path)
    assert comparison.table_differences(path, both[0]) == []
    assert not parameters or comparison.parameter_differences(path, both[0]) == []
    return text
