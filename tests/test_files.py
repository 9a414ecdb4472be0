"""Files and folders appear whole or not at all, and nothing damaged passes for whole."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax.errors import StorageError
from grokjax.store import files as files_lib
from grokjax.store.files import Damaged


class Killed(BaseException):
    """What follows is not done, as after SIGKILL."""


def killed_at(monkeypatch, n, after):
    """Ends the n-th rename, before or after it is done."""
    calls, replace = [], os.replace

    def dying(source, target):
        calls.append(target)
        if len(calls) < n or after:
            replace(source, target)
        if len(calls) == n:
            raise Killed

    monkeypatch.setattr(os, "replace", dying)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_replaced_file_is_the_old_or_the_new_one_wherever_it_was_killed(n, after, tmp_path, monkeypatch):
    path = tmp_path / "a"
    files_lib.write_bytes(b"old", path)
    killed_at(monkeypatch, n, after)
    with pytest.raises(Killed):
        files_lib.write_bytes(b"newer", path)
    assert files_lib.trouble(path) == ""
    assert path.read_bytes() == (b"newer" if (n, after) >= (2, True) else b"old")
    monkeypatch.undo()
    files_lib.write_bytes(b"newest", path)
    assert files_lib.trouble(path) == ""
    files_lib.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.sha256", "a"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n", [1, 2])
def test_a_new_file_is_whole_or_known_not_to_be(n, after, tmp_path, monkeypatch):
    killed_at(monkeypatch, n, after)
    with pytest.raises(Killed):
        files_lib.write_bytes(b"new", tmp_path / "a")
    whole = (n, after) == (2, True)
    assert (files_lib.trouble(tmp_path / "a") == "") == whole


def test_a_damaged_file_gets_no_checksum_while_it_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a"
    files_lib.write_bytes(b"what was written", path)
    path.write_bytes(b"what became of it")
    killed_at(monkeypatch, 1, after=False)
    with pytest.raises(Killed):
        files_lib.write_bytes(b"new", path)
    assert "is damaged" in files_lib.trouble(path)
    with pytest.raises(Damaged, match="its checksum differs"):
        files_lib.checked(path)


@given(st.binary(max_size=200), st.integers(0), st.integers(1, 255), st.booleans())
def test_any_other_byte_is_found(tmp_path_factory, data, place, change, in_checksum):
    path = tmp_path_factory.mktemp("flipped") / "a"
    files_lib.write_bytes(data, path)
    wrong = files_lib.checksum_path(path) if in_checksum or not data else path
    flip(wrong, place, change)
    assert "is damaged" in files_lib.trouble(path)


def flip(path, place, change):
    """Changes one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    path.write_bytes(data)


@given(st.integers(0), st.integers(1, 255))
def test_any_other_byte_in_a_folder_is_found(tmp_path_factory, place, change):
    target = tmp_path_factory.mktemp("flipped") / "a"
    with files_lib.new_folder(target) as local:
        (local / "deep").mkdir(parents=True)
        (local / "one").write_bytes(b"1" * 30)
        (local / "deep" / "two").write_bytes(b"2" * 30)
    assert files_lib.folder_trouble(target) == ""
    files = sorted(p for p in target.rglob("*") if p.is_file())
    flip(files[place % 3], place // 3, change)
    assert files_lib.folder_trouble(target)


def test_a_folder_lacks_nothing_and_appears_whole(tmp_path):
    target = tmp_path / "a"
    with pytest.raises(ZeroDivisionError), files_lib.new_folder(target) as local:
        local.mkdir() or 1 / 0
    assert list(tmp_path.iterdir()) == []
    with files_lib.new_folder(target) as local:
        local.mkdir()
        (local / "one").write_bytes(b"1")
    (target / "one").unlink()
    assert files_lib.folder_trouble(target) == "is damaged: one is missing"
    (target / files_lib.MANIFEST).unlink()
    assert files_lib.folder_trouble(target) == "is incomplete"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES])
def test_what_the_system_refuses_is_a_sentence_and_leaves_the_file(number, tmp_path, monkeypatch):
    files_lib.write_bytes(b"old", tmp_path / "a")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=os.strerror(number)):
        files_lib.write_bytes(b"new", tmp_path / "a")
    assert files_lib.trouble(tmp_path / "a") == ""
    assert (tmp_path / "a").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_is_set_aside_is_read_by_nothing(tmp_path):
    files_lib.write_bytes(b"x", tmp_path / "part-000000.parquet")
    aside = files_lib.set_aside(tmp_path / "part-000000.parquet")
    assert aside.read_bytes() == b"x"
    assert [p.name for p in tmp_path.iterdir()] == [".damaged.part-000000.parquet"]
