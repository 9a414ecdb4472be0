"""Google Cloud Storage and S3 as paths: gs://bucket/path and s3://bucket/path.

An object appears whole when it has been put, and there are no folders: one is there as soon as something lies in it.
Nothing is remembered of what a listing said, since other processes write too (fsspec would remember it for good).
"""

import contextlib
import datetime
import functools
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from grokjax.errors import InputError, StorageError

PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # by protocol: the package it needs, and the extra
URL = re.compile(r"(gs|s3|memory)://(.*)", re.DOTALL)


def is_url(text: object) -> bool:
    """Whether this names an object store.

    Raises:
      InputError: it did, before it became a Path, which has one slash where a URL has two.
    """
    if re.match(r"(gs|s3):/(?!/)", str(text)):
        raise InputError(f"'{text}' has lost a slash: give it as text, not as a Path.")
    return bool(URL.fullmatch(str(text)))


def is_object(path: object) -> TypeGuard["ObjectPath"]:
    """Whether a path is one of an object store."""
    return isinstance(path, ObjectPath)


@functools.cache
def _filesystem(protocol: str) -> Any:
    # Without it gcsfs asks for each bucket's kind first, which needs one more permission; nothing here depends on that.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec

    try:
        found = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)
    except ImportError:
        package, extra = PACKAGES[protocol]
        raise InputError(f"{protocol}:// needs {package}: pip install -e '.[{extra}]'") from None
    except Exception as error:  # whatever the packages make of credentials that they find
        raise InputError(f"{protocol}:// cannot be used ({_why(error)}).") from error
    # What fails is told by who wanted it, in one sentence.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return found


def _why(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}")[:200]


def _written_at(about: Mapping[str, Any]) -> float:
    """When an object was written, in seconds of Unix time, by what its store says of it; 0 where it does not say."""
    at = next((about[name] for name in ("LastModified", "updated", "mtime", "created") if about.get(name)), 0.0)
    at = datetime.datetime.fromisoformat(at) if isinstance(at, str) else at
    return at.timestamp() if isinstance(at, datetime.datetime) else float(at)


class ObjectPath(PurePosixPath):
    """A place in an object store, with those of pathlib.Path's methods that this project uses.

    Where nothing is, methods that read raise FileNotFoundError, as a Path's do. Whatever else goes wrong (no network,
    no permission, no bucket) is a StorageError and not an OSError, so that nobody takes it for damage to a file.

    Names are pathlib's, requests fsspec's. universal_pathlib would bring no more than names, for as many lines around
    it: its is_file and is_dir take a store that does not answer for one where nothing is, and a file that is opened for
    writing replaces the one before by half when it is interrupted. That of etils lists from fsspec's memory.
    """

    @classmethod
    def of(cls, url: str) -> "ObjectPath":
        """The place that protocol://bucket/path names.

        Raises:
          InputError: it names none, or the package that its store needs is missing.
        """
        match = URL.fullmatch(url)
        assert match, url
        place = PurePosixPath(match[2].strip("/"))
        if not place.parts or ".." in place.parts:
            raise InputError(f"'{url}' names no place in a bucket: it must be {match[1]}://BUCKET/PATH.")
        _filesystem(match[1])
        return cls(f"{match[1]}:", place)

    @property
    def _fs(self) -> Any:
        return _filesystem(self.parts[0].removesuffix(":"))

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is not on a disk")

    def resolve(self) -> "ObjectPath":
        return self

    # --- looking ------------------------------------------------------------------------------------------------------

    def _kind(self) -> str:
        """ "file", "directory", or "" where nothing is."""
        with self._asking("read"):
            try:
                return self._fs.info(str(self))["type"]
            except FileNotFoundError:
                return ""

    def exists(self) -> bool:
        return bool(self._kind())

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def iterdir(self) -> Iterator["ObjectPath"]:
        with self._asking("read"):
            names = self._fs.ls(str(self), detail=False)
        return (self / name for name in sorted({name.parts[0] for name in self._below(names)}))

    def tree(self) -> list[PurePosixPath]:
        """Every object below this place, by its name from here on; one request for a thousand of them."""
        with self._asking("read"):
            try:
                return sorted(self._below(self._fs.find(str(self))))
            except FileNotFoundError:  # no such bucket
                return []

    def details(self) -> dict[PurePosixPath, tuple[int, float]]:
        """Every object below this place, as in `tree`: its size in bytes, and when it was written, in seconds."""
        with self._asking("read"):
            try:
                found = self._fs.find(str(self), detail=True)
            except FileNotFoundError:  # no such bucket
                return {}
        about = {place: found[name] for name in found for place in self._below([name])}
        return {place: (int(info.get("size") or 0), _written_at(info)) for place, info in about.items()}

    def _below(self, names: Iterable[str]) -> Iterator[PurePosixPath]:
        """Names from here on; an object that stands for this folder, as consoles make them, is none of them."""
        here = PurePosixPath(*self.parts[1:])
        for name in names:
            place = PurePosixPath(name.strip("/"))
            if place != here and place.is_relative_to(here):
                yield place.relative_to(here)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        with self._asking("read"):
            return self._fs.cat_file(str(self))

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The whole object, in memory."""
        assert mode == "rb", mode
        return io.BytesIO(self.read_bytes())

    def download(self, names: Sequence[PurePosixPath], folder: Path) -> None:
        """Copies objects below this place into a local folder."""
        with self._asking("read"):
            if names:
                self._fs.get([str(self / name) for name in names], [str(folder / name) for name in names])

    # --- writing ------------------------------------------------------------------------------------------------------

    def write_bytes(self, data: bytes) -> None:
        with self._writing():
            self._fs.pipe_file(str(self), data)

    def create(self, data: bytes) -> bool:
        """Writes an object that must not be there yet; whether that was so, of any number of processes for one."""
        with self._writing():
            try:
                self._fs.pipe_file(str(self), data, mode="create")
            except FileExistsError:
                return False
            return True

    def upload(self, files: Mapping[str, Path]) -> None:
        """Copies local files to places below this one."""
        with self._writing():
            if files:
                self._fs.put([str(file) for file in files.values()], [str(self / name) for name in files])

    def copy(self, target: "ObjectPath") -> None:
        """Copies this object, or all below this place, inside the store."""
        with self._writing():
            for name in self.tree():
                self._fs.cp_file(str(self / name), str(target / name))
            if self.is_file():
                self._fs.cp_file(str(self), str(target))

    def unlink(self, missing_ok: bool = True) -> None:
        assert missing_ok  # finding out would be one more request
        with self._writing(), contextlib.suppress(FileNotFoundError):  # which Google tells, and S3 does not
            self._fs.rm_file(str(self))

    def drop(self) -> None:
        """Removes everything below this place."""
        with self._writing():
            names = self.tree()
            with contextlib.suppress(FileNotFoundError):
                if names:
                    self._fs.rm([str(self / name) for name in names])

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Tells in a sentence what the store refuses, whatever its package raises."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except Exception as error:
            raise StorageError(f"{self} cannot be {what} ({_why(error)})") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._asking("written"):
                yield
        except FileNotFoundError as error:
            raise StorageError(f"{self} cannot be written (no such bucket: {self.parts[1]})") from error
