"""Files and folders appear whole or not at all, and nothing damaged passes for whole."""

import errno
import hashlib
import os
from importlib import import_module

import pytest
from commands import assert_refused, call
from hypothesis import given
from hypothesis import strategies as st

import grokjax
from grokjax.errors import InputError, StorageError
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
        files_lib.read(path)


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


def test_both_checksums_hold_while_a_file_is_replaced(tmp_path, monkeypatch):
    path, put, written = tmp_path / "a", files_lib._put, []
    files_lib.write_bytes(b"old", path)
    monkeypatch.setattr(files_lib, "_put", lambda data, place: written.append((place.name, data)) or put(data, place))
    files_lib.write_bytes(b"new", path)
    old, new = (f"{hashlib.sha256(data).hexdigest()}  a\n".encode() for data in (b"old", b"new"))
    assert written == [(".a.sha256", new + old), ("a", b"new"), (".a.sha256", new)]


def test_what_is_read(tmp_path, monkeypatch):
    path, side = tmp_path / "a", tmp_path / ".a.sha256"

    def refusal():
        with pytest.raises(Damaged) as refused:
            files_lib.read(path)
        return str(refused.value)

    assert refusal() == f"{path} is missing"
    files_lib.write_bytes(b"abc", path)
    assert files_lib.read(path) == b"abc"
    side.write_text(f"{hashlib.sha256(b'ab').hexdigest()}  a\n{hashlib.sha256(b'abc').hexdigest()}  a\n")
    assert files_lib.read(path) == b"abc"
    side.write_text("0  a\n")
    assert refusal() == f"{path} is damaged: its checksum differs"
    side.unlink()
    assert files_lib.read(path) == b"abc"
    assert files_lib.trouble(path) == "has no checksum"
    monkeypatch.setattr(files_lib, "MOST_BYTES", 3)
    assert files_lib.read(path) == b"abc"
    monkeypatch.setattr(files_lib, "MOST_BYTES", 2)
    assert refusal() == f"{path} is too large to be ours"
    path.unlink()
    path.mkdir()
    assert refusal() == f"{path} is no file"
    assert files_lib.trouble(tmp_path / "b") == "is missing"


def test_leftovers_are_temporary_names_alone(tmp_path):
    kept = ["a", "a.tmp", ".a.tmp2", ".a.sha256", ".damaged.a", ".tmp", ".a.tmp.other"]
    for name in [*kept, ".a.tmp", ".b.tmp.orbax-7"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".c.tmp" / "deep").mkdir(parents=True)
    files_lib.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_set_aside_replaces_the_one_before(tmp_path):
    for content in ("first", "second"):
        with files_lib.new_folder(tmp_path / "deep" / "x", note=[content]) as local:
            local.mkdir()
            (local / content).write_text(content)
        assert files_lib.note(tmp_path / "deep" / "x") == [content]
        aside = files_lib.set_aside(tmp_path / "deep" / "x")
    assert aside == tmp_path / "deep" / ".damaged.x"
    assert sorted(p.name for p in aside.iterdir()) == [files_lib.MANIFEST, "second"]
    assert files_lib.folder_trouble(tmp_path / "deep" / "x") == "is missing"
    (aside / "second").write_text("other")
    assert files_lib.folder_trouble(aside) == "is damaged: second has another checksum"
    with pytest.raises(Damaged) as refused, files_lib.folder(aside):
        pass
    assert str(refused.value) == f"{aside} is damaged: second has another checksum"
    (aside / files_lib.MANIFEST).unlink()
    files_lib.drop(aside)
    assert not aside.exists()
    assert not files_lib.has_appeared(aside)


def test_what_does_not_exist_is_told_with_what_may_be_meant(tmp_path):
    (tmp_path / "small").mkdir()
    assert files_lib.missing(tmp_path / "small") == ""
    assert files_lib.missing(tmp_path / "nowhere" / "at all") == f"{tmp_path / 'nowhere' / 'at all'} does not exist"
    meant = f"{tmp_path / 'smal'} does not exist: did you mean '{tmp_path / 'small'}'?"
    for function in (grokjax.open, grokjax.read_runs, lambda path: grokjax.load_params(path, 0)):
        with pytest.raises(InputError) as refused:
            function(tmp_path / "smal")
        assert str(refused.value) == meant
    for function in (grokjax.read_metrics, grokjax.read_table):
        with pytest.raises(FileNotFoundError, match="does not exist: did you mean"):
            function(tmp_path / "smal")


@pytest.mark.parametrize("command", ["report", "figure", "phases", "check", "replay", "circuit --all"])
def test_every_command_says_so(command, tmp_path, capsys):
    name, *flags = command.split()
    called = call(capsys, import_module(f"grokjax.cli.{name}").main, str(tmp_path / "smal"), *flags)
    assert_refused(called, f"{tmp_path / 'smal'} does not exist.")
