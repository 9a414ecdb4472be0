"""Locks of working directories: who holds one, who is told so, and which are left over. Object stores are made up."""

import errno
import fcntl
import os
import platform
import time

import pytest
import tiny

from grokjax.errors import InputError, StorageError
from grokjax.store import locks


class Made:
    """A lock's object in a store that is a dict."""

    def __init__(self, held=None):
        self.store, self.parent = {} if held is None else {"": held}, "gs://bucket/sweep"

    def create(self, data):
        return self.store.setdefault("", data) is data

    def read_bytes(self):
        if "" not in self.store:
            raise FileNotFoundError
        return self.store[""]

    def write_bytes(self, data):
        self.store[""] = data

    def unlink(self, missing_ok):
        self.store.pop("", None)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(locks, "REFRESH", 0.02)


def holder(**changed):
    """What another process holds."""
    return bytes(locks._Holder(**{"token": "t", "process": 7, "host": "far"} | changed))


def refusal(function, *args, kind=InputError):
    with pytest.raises(kind) as refused:
        function(*args)
    return str(refused.value)


def test_a_file_names_its_holder_until_it_is_closed(tmp_path):
    assert locks.NAME == ".lock"
    (tmp_path / ".lock").write_text("process 1 on a machine with a long name that has ended")
    lock = locks.take(tmp_path)
    mine = f"process {os.getpid()} on {platform.node()}"
    assert (tmp_path / ".lock").read_text() == mine
    assert refusal(locks.take, tmp_path) == f"--workdir={tmp_path} is in use by {mine}."
    assert (tmp_path / ".lock").read_text() == mine
    (tmp_path / ".lock").write_text("")
    assert refusal(locks.take, tmp_path) == f"--workdir={tmp_path} is in use by another process."
    lock.close()
    locks.take(tmp_path).close()


def test_an_object_is_refreshed_and_removed():
    path = Made()
    lock = locks.ObjectLock(path, lambda text: None)
    first = locks._Holder.of(path.read_bytes())
    assert (first.process, first.host) == (os.getpid(), platform.node())
    end = time.monotonic() + 10
    while locks._Holder.of(path.read_bytes()).count < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert locks._Holder.of(path.read_bytes()).count >= 2
    lock.confirm()
    lock.close()
    assert path.store == {}


def test_a_lock_that_stays_the_same_is_taken_over():
    path, told = Made(holder()), []
    lock = locks.ObjectLock(path, told.append)
    assert told == [
        "gs://bucket/sweep was left locked by process 7 on far: waiting up to 0 seconds to see whether that still runs"
    ]
    assert locks._Holder.of(path.read_bytes()).process == os.getpid()
    lock.close()


def test_of_two_that_take_one_over_the_one_written_last_has_it():
    path, others = Made(holder()), [holder(token="u", process=8)]

    def create(data):
        made = Made.create(path, data)
        if made and others:
            path.write_bytes(others.pop())
        return made

    path.create = create
    said = refusal(locks.ObjectLock, path, lambda text: None)
    assert said == "--workdir=gs://bucket/sweep is in use by process 8 on far."
    assert path.read_bytes() == holder(token="u", process=8)


def test_a_lock_that_changes_is_another_s():
    path = Made(holder())
    told = lambda text: path.write_bytes(holder(count=1))  # noqa: E731
    assert refusal(locks.ObjectLock, path, told) == "--workdir=gs://bucket/sweep is in use by process 7 on far."
    assert path.read_bytes() == holder(count=1)


def test_one_that_was_taken_over_writes_no_more():
    path = Made()
    lock = locks.ObjectLock(path, lambda text: None)
    path.write_bytes(holder())
    assert refusal(lock.confirm, kind=StorageError) == (
        "gs://bucket/sweep was taken over by process 7 on far, so this process writes no more to it"
    )
    time.sleep(0.1)
    lock.close()
    assert path.read_bytes() == holder()


def test_what_is_no_holder_is_another_process():
    for data in (b"", b"{}", b"3", b'{"token": "t", "more": 1}'):
        assert str(locks._Holder.of(data)) == "another process"
    assert locks._Holder.of(holder(count=3)).count == 3
    assert locks.PATIENCE == 3.0


def test_a_lock_is_looked_at_without_getting_in_the_way(tmp_path, monkeypatch):
    assert not locks.is_held(tmp_path)
    lock = locks.take(tmp_path)
    assert locks.is_held(tmp_path)
    lock.close()
    assert not locks.is_held(tmp_path)
    # Another process that looks at it at the very moment holds it for a moment.
    with open(tmp_path / locks.NAME, "rb") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda seconds: fcntl.flock(glance, fcntl.LOCK_UN))
        locks.take(tmp_path).close()


# --- file systems without locks ---------------------------------------------------------------------------------------


@pytest.fixture(params=[errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS], ids=errno.errorcode.get)
def missing(request, monkeypatch):
    """What a file system without locks says, which this one has become."""

    def flock(file, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(request.param)


def test_that_locking_is_missing_is_said(missing, tmp_path):
    assert refusal(tiny.train, tiny.get_config(), tmp_path) == (
        f"locking is missing on the file system of {tmp_path} ({missing}), so nothing keeps a second process from "
        "writing there: choose another --workdir, or give --nolock to go on without if no other process will."
    )
    assert [place.name for place in tmp_path.iterdir()] == [".lock"]


def test_where_locking_is_missing_one_may_go_on_without(missing, tmp_path):
    said = []
    lock = locks.take(tmp_path, said.append, needed=False)
    lock.confirm()
    lock.close()
    assert said == [
        f"note: locking is missing on the file system of {tmp_path} ({missing}): going on without, so start no second "
        "process there."
    ]


def test_a_sweep_is_trained_where_locking_is_missing(missing, tmp_path):
    c = tiny.get_config()
    c.steps = 20
    status, text = tiny.train(c, tmp_path, lock=False)
    assert status == 0
    assert text.startswith(f"note: locking is missing on the file system of {tmp_path}")


def test_another_error_is_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    text = refusal(tiny.train, tiny.get_config(), tmp_path)
    assert "cannot be written (Input/output error): choose another" in text


def test_a_lock_that_is_held_is_refused_even_without_need(tmp_path):
    lock = locks.take(tmp_path)
    assert "is in use by process" in refusal(locks.take, tmp_path, print, False)
    lock.close()
