"""Who may write into a working directory: one process at a time, which others are told by name.

On a disk the operating system keeps the lock and lets go of it when the process ends, however that happens. An object
store has no such thing, so there the holder keeps changing an object, and one that no longer changes belongs to nobody.
Clocks are never compared.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grokjax.errors import InputError, StorageError
from grokjax.store.objects import ObjectPath, is_object

NAME = ".lock"
REFRESH = 10.0  # seconds between changes of a lock in an object store
GLANCES, GLANCE = 4, 0.025  # how often, and for how many seconds, `is_held` of another process may be in the way
PATIENCE = 3.0  # how many of these a lock may stay the same before its holder counts as gone


# What a file system answers that has no locks: some network and FUSE ones, as clusters mount them.
MISSING = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


def take(folder: Path, tell: Callable[[str], None] = lambda text: None, needed: bool = True) -> "FileLock | ObjectLock":
    """Takes the lock of a working directory, which is there.

    Args:
      folder: the directory.
      tell: is told in a sentence where taking it takes time, and where there is none to take.
      needed: whether a file system that has no locks is refused; a lock that another process holds always is.

    Raises:
      InputError: another process holds it, or the file system has no locks.
      OSError, StorageError: it cannot be written.
    """
    return ObjectLock(folder / NAME, tell) if is_object(folder) else FileLock(folder / NAME, tell, needed)


def is_held(folder: Path) -> bool:
    """Whether a process may be holding the lock of a working directory; on a disk that is known, elsewhere supposed."""
    path = folder / NAME
    if is_object(folder):
        return path.is_file()
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of at once
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _in_use(path: Any, holder: str) -> InputError:
    return InputError(f"--workdir={path.parent} is in use by {holder}.")


class FileLock:
    """Held until it is closed, or the process ends."""

    def __init__(self, path: Path, tell: Callable[[str], None], needed: bool):
        self._file = open(path, "a+")  # noqa: SIM115 (held until the process ends)
        try:
            self._lock()
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise _in_use(path, holder) from None
        except OSError as error:
            if error.errno not in MISSING or needed:
                self._file.close()
            if error.errno not in MISSING:
                raise
            lacks = f"locking is missing on the file system of {path.parent} ({error.strerror})"
            if needed:
                raise InputError(
                    f"{lacks}, so nothing keeps a second process from writing there: choose another --workdir, or "
                    "give --nolock to go on without if no other process will."
                ) from None
            tell(f"note: {lacks}: going on without, so start no second process there.")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}")
        self._file.flush()

    def _lock(self) -> None:
        for _ in range(GLANCES):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(GLANCE)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def confirm(self) -> None:
        """Nothing can take it away."""

    def close(self) -> None:
        self._file.close()


@dataclasses.dataclass(frozen=True)
class _Holder:
    """What a lock in an object store holds.

    Attributes:
      token: of this holding of the lock, and no other.
      process: its number.
      host: its machine's name.
      count: goes up for as long as the process lives.
      machine: of earlier versions, which do not know a lock without it.
    """

    token: str
    process: int
    host: str
    count: int = 0
    machine: str = ""

    @classmethod
    def of(cls, data: bytes) -> "_Holder":
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return cls("", 0, "")

    def __bytes__(self) -> bytes:
        return json.dumps(vars(self)).encode()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.token else "another process"


class ObjectLock:
    """An object that only one process can create, and that its holder changes every `REFRESH` seconds.

    A newcomer who finds one watches it. If it stays the same for `PATIENCE` times as long, it is removed and created
    anew. Of several newcomers who do that at once the last one has it: each looks again after a moment.
    """

    def __init__(self, path: ObjectPath, tell: Callable[[str], None]):
        self._path, self._tell = path, tell
        self._mine = _Holder(uuid.uuid4().hex, os.getpid(), platform.node())
        while not path.create(bytes(self._mine)):
            found = self._look()
            if found == self._mine:  # created by a request that was given up on and repeated
                break
            if found:
                self._remove_stale(found)
                if path.create(bytes(self._mine)):
                    time.sleep(REFRESH / 5)
                    now = self._look()
                    if now != self._mine:
                        raise _in_use(path, str(now or "another process"))
                    break
        self._ended, self._cut_off = threading.Event(), False
        self._thread = threading.Thread(target=self._refresh, name="lock", daemon=True)
        self._thread.start()

    def _look(self) -> _Holder | None:
        try:
            return _Holder.of(self._path.read_bytes())
        except FileNotFoundError:
            return None

    def _remove_stale(self, found: _Holder) -> None:
        """Removes a lock that nobody holds any more.

        Raises:
          InputError: somebody does.
        """
        wait = PATIENCE * REFRESH
        self._tell(
            f"{self._path.parent} was left locked by {found}: waiting up to {wait:.0f} seconds to see whether "
            "that still runs"
        )
        end = time.monotonic() + wait
        while time.monotonic() < end:
            time.sleep(min(REFRESH / 2, max(0.0, end - time.monotonic())))
            now = self._look()
            if now != found:
                if now is None:
                    return  # let go of
                raise _in_use(self._path, str(now))
        if self._look() == found:
            self._path.unlink(missing_ok=True)

    def _refresh(self) -> None:
        count = 0
        while not self._ended.wait(REFRESH):
            with contextlib.suppress(StorageError):  # an outage, which whoever writes results tells
                found = self._look()
                if found is not None and found.token != self._mine.token:
                    return  # `confirm` says so
                count += 1
                self._path.write_bytes(bytes(dataclasses.replace(self._mine, count=count)))

    def confirm(self) -> None:
        """Makes sure that this process still holds it; raises StorageError where another one does."""
        try:
            found = self._look()
        except StorageError:
            self._cut_off = True
            raise
        if found is not None and found.token != self._mine.token:
            raise StorageError(f"{self._path.parent} was taken over by {found}, so this process writes no more to it")

    def close(self) -> None:
        """Lets go of it."""
        self._ended.set()
        if self._cut_off:
            return  # asking again would only take time: the lock stays, and whoever comes next sees it unchanged
        self._thread.join(REFRESH)  # which may be waiting for a store that does not answer
        with contextlib.suppress(StorageError):  # as above
            found = self._look()
            if found is not None and found.token == self._mine.token:
                self._path.unlink(missing_ok=True)
