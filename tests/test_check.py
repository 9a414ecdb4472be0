"""grokjax check finds what is damaged or missing, and says what the sweep's command would do."""

import contextlib
import shutil

import pytest
from commands import assert_refused, call
from faultless import files, go_on, halfway, whole_and_halfway
from hypothesis import given, settings
from hypothesis import strategies as st
from test_files import flip

import grokjax
from grokjax.cli import check
from grokjax.interp import replay
from grokjax.report import page, results, write
from grokjax.store import check as check_lib
from grokjax.store import files as files_lib
from grokjax.store import locks
from grokjax.store.metrics import parts
from grokjax.store.snapshots import find_snapshots

__all__ = ["whole_and_halfway"]


@pytest.fixture(scope="module")
def reported(finished, tmp_path_factory):
    """A finished sweep with its report, and snapshots replayed with other keys."""
    others = shutil.ignore_patterns("only_*", "replay")  # which other tests have left there
    path = shutil.copytree(finished[0], tmp_path_factory.mktemp("check") / "whole", ignore=others)
    replay.replay(path, replay.Replay(keys=(1, 3)))
    return path


def test_a_whole_sweep_is_whole(reported, capsys):
    status, out, err = call(capsys, check.main, str(reported))
    assert (status, err) == (0, "")
    assert "4 runs" in out
    assert "all whole" in out
    assert "done      runs 0-3" in out


def test_an_interrupted_sweep_is_whole_and_says_how_it_goes_on(whole_and_halfway, capsys):
    status, out, _ = call(capsys, check.main, str(whole_and_halfway[1]))
    assert status == 0
    assert "goes on   run 3 from step" in out
    assert "give the sweep's command again" in out


def test_a_sweep_that_nobody_trains_is_told_to_be_interrupted(whole_and_halfway):
    path = whole_and_halfway[1]
    with contextlib.closing(locks.take(path)):
        assert "1 training" in repr(grokjax.open(path))
        assert "This sweep was still being trained at " in page.html(results.read(path))
    assert "1 interrupted" in repr(grokjax.open(path))
    assert "interrupted" in set(grokjax.open(path).runs["status"])
    text = page.html(results.read(path))
    assert "This sweep was interrupted, and no process was training it at " in text
    assert "In training; " not in text


def test_no_sweep_is_refused(tmp_path, capsys):
    assert_refused(call(capsys, check.main, str(tmp_path)), "holds no sweep")


@settings(max_examples=100)
@given(which=st.integers(0), place=st.integers(0), change=st.integers(1, 255))
def test_any_other_byte_in_any_file_is_found(reported, which, place, change):
    some = [file for file in files(reported) if file.stat().st_size]
    file = some[which % len(some)]
    before = file.read_bytes()
    try:
        flip(file, place, change)
        lines, whole = check_lib.check(reported)
    finally:
        file.write_bytes(before)
    assert not whole, file
    assert any(line.startswith("damaged") for line in lines)


def test_any_file_of_a_finished_sweep_is_missed(reported):
    for file in files(reported):
        before = file.read_bytes()
        file.unlink()
        whole = check_lib.check(reported)[1]
        file.write_bytes(before)
        assert not whole, file
    assert check_lib.check(reported)[1]


def test_what_only_has_trained_again_is_checked_as_well(reported, tmp_path):
    path = shutil.copytree(reported, tmp_path / "whole")
    inner = shutil.copytree(reported, path / "only_0-3")
    (path / "only_2").mkdir()  # killed before it held anything
    lines, whole = check_lib.check(path)
    assert whole
    assert f"{inner}: 4 runs, " in "\n".join(lines)
    flip(next((inner / "metrics").glob("part-*")), 100, 1)
    lines, whole = check_lib.check(path)
    assert not whole
    assert any(line.startswith("damaged   metrics/part-") for line in lines)


def test_what_is_gone_without_a_trace_is_missed(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    shutil.rmtree(find_snapshots(path)[0, 0][0])
    lines, whole = check_lib.check(path)
    assert not whole
    assert "missing   snapshot of run 0 at step 0" in lines
    path = shutil.copytree(whole_and_halfway[0], tmp_path / "rows")
    for part in parts(path / "metrics"):
        files_lib.remove(part)
    lines, whole = check_lib.check(path)
    assert not whole
    assert "missing   metrics of run 3, which runs.parquet has up to step 200" in lines


def test_what_was_mended_is_whole(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    flip(parts(path / "metrics")[0], 100, 1)
    assert not check_lib.check(path)[1]
    go_on(path)
    assert check_lib.check(path)[1]
    write.write(path)
    assert check_lib.check(path)[1]
