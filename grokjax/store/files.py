"""Files and folders that appear whole, with checksums that tell a damaged one from a whole one.

A file NAME has a checksum .NAME.sha256, which `sha256sum` understands: the file's SHA-256 and, while it is being
replaced, that of the file before; inside a folder lies .manifest.json with those of its files. Checksums lie in
`CHECKSUMS`, one hidden folder at a working directory's root, under the same paths, since Polars reads whatever lies
beside a table. A directory without it, which earlier versions made, has them beside the files, and keeps them there.

Places are local, or in an object store (`grokjax.store.objects`). There a file is one put, which is atomic, and a
folder is uploaded with its manifest last: one without it counts as not there yet, as a temporary name does on a disk.
"""

import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from grokjax.errors import InputError, StorageError
from grokjax.store.objects import ObjectPath, is_object, is_url

MANIFEST = ".manifest.json"
RECORDS = ("config.json", ".config.json.spare")  # the same twice: no resume can do without it
CHECKSUMS = ".checksums"
_DEPTH = 3  # of the folders that a file may lie in: replay/NAME in a working directory
_KNOWN: dict[Any, Any] = {}  # the roots of an object store's folders, which take requests to find


class Damaged(InputError):
    """Something on disk is not what was written; its text names it and says what is wrong."""


def path(text: str | Path) -> Path:
    """Where files lie, by name.

    Args:
      text: a local path, gs://bucket/path or s3://bucket/path.

    Returns:
      A Path; of an object store an `ObjectPath`, which has those of a Path's methods that are used here.

    Raises:
      InputError: the package that an object store needs is missing.
    """
    given: Any = text
    if is_object(given):
        return cast(Path, given)
    return cast(Path, ObjectPath.of(str(text))) if is_url(text) else Path(os.path.expanduser(text))


def is_local(place: Path) -> bool:
    """Whether this is on a disk, where other programs find it by its name."""
    return not is_object(place)


def missing(folder: Path) -> str:
    """Says of a folder on a disk that it does not exist, and which may be meant; "" where it does, or is in a store."""
    if not is_local(folder) or folder.exists():
        return ""
    near = difflib.get_close_matches(folder.name, [place.name for place in listed(folder.parent)], n=1)
    return f"{folder} does not exist" + (f": did you mean '{folder.parent / near[0]}'?" if near else "")


def refuse_missing(folder: Path) -> None:
    """Refuses a folder that does not exist.

    Raises:
      InputError: it does not.
    """
    if text := missing(folder):
        raise InputError(text if text.endswith("?") else f"{text}.")


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are missing.

    Raises:
      StorageError: it cannot be made.
    """
    if is_object(folder):
        return  # one is there once something lies in it
    with _telling(folder):
        folder.mkdir(parents=True, exist_ok=True)


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name; nothing where there is no folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def names_below(folder: Path) -> list[PurePosixPath]:
    """Every file below a folder, by its name from there on, sorted."""
    if is_object(folder):
        return folder.tree()
    return sorted(PurePosixPath(path.relative_to(folder).as_posix()) for path in _files(folder))


def details(folder: Path) -> dict[PurePosixPath, tuple[int, float]]:
    """Every file below a folder by its name from there on: its size in bytes, and when it was written, in Unix time."""
    if is_object(folder):
        return folder.details()
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                about = os.lstat(os.path.join(place, name))
                found[PurePosixPath(os.path.relpath(place, folder), name)] = about.st_size, about.st_mtime
    return found


NO_CHECKSUM = "has no checksum"
MOST_BYTES = 1 << 35  # of one file, which is read whole


def read(path: Path) -> bytes:
    """A file that was written here: as it was written, if it has a checksum.

    Raises:
      Damaged: it is missing, no file, too large, cannot be read, or has another checksum.
    """
    for _ in range(3):  # it may be replaced meanwhile
        data, problem = _examined(path)
        if problem in ("", NO_CHECKSUM):
            return data
    raise Damaged(f"{path} {problem}")


def _content(path: Path, most: int | None = None) -> bytes:
    """What a file holds; `Damaged` says in a few words why one is not even opened."""
    if is_local(path):  # where pipes and devices would not end
        if not path.is_file():
            raise Damaged("is no file" if os.path.lexists(path) else "is missing")
        if path.stat().st_size > (most or MOST_BYTES):
            raise Damaged("is too large to be ours")
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Damaged("is missing") from None


def _problem(error: Exception) -> str:
    """What is wrong with a file that cannot be had, as in "is missing"."""
    return str(error) if isinstance(error, Damaged) else f"cannot be read ({_why(error)})"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or "memory"


def _examined(path: Path) -> tuple[bytes, str]:
    """What a file holds, and what is wrong with it; see `trouble`."""
    try:
        data = _content(path)
        try:
            text = _content(checksum_path(path), most=1 << 16).decode(errors="replace")
        except Damaged as error:
            return data, NO_CHECKSUM if str(error) == "is missing" else f"has a checksum that {error}"
    except (Damaged, OSError, MemoryError) as error:
        return b"", _problem(error)
    line = _line(data, path)
    # One line, or two while the file is being replaced.
    whole = text == line or (len(text) == 2 * len(line) and line in text.splitlines(keepends=True))
    return data, "" if whole else "is damaged: its checksum differs"


# --- files ------------------------------------------------------------------------------------------------------------


def write_bytes(data: bytes, path: Path) -> None:
    """Writes a file so that it appears whole, or stays as it was.

    Raises:
      StorageError: it cannot be written.
    """
    side, line = checksum_path(path), _line(data, path)
    make_folder(side.parent)
    with _telling(path):
        if not trouble(path):
            # Both are right until the file has been replaced, should that be interrupted.
            _put((line + _line(path.read_bytes(), path)).encode(), side)
        _put(data, path)
        _put(line.encode(), side)


def write_text(text: str, path: Path) -> None:
    """Writes a text file in UTF-8 so that it appears whole."""
    write_bytes(text.encode(), path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Writes a table so that the file appears whole."""
    write_bytes(parquet_bytes(table), path)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file, compressed by zstd."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def checksum_path(path: Path) -> Path:
    """Where a file's checksum lies: in its root's folder of checksums if there is one, else beside it."""
    # config.json lies in the root itself: nobody asks for what is above, which may be out of bounds in a bucket.
    root = _root(path.parent, 0 if path.name in RECORDS else _DEPTH)
    folder = root / CHECKSUMS / path.parent.relative_to(root) if root else path.parent
    return folder / f".{path.name}.sha256"


def keep_checksums(root: Path) -> None:
    """Makes a folder one that has the checksums of all that lies below it in one place.

    Raises:
      StorageError: it cannot be written.
    """
    if is_object(root):
        for folder in [known for known in _KNOWN if known.is_relative_to(root)]:
            del _KNOWN[folder]
        _KNOWN[root] = root
    make_folder(root / CHECKSUMS)


def drop_checksums(root: Path) -> None:
    """Removes the checksums that a folder has in one place, if it does."""
    drop(root / CHECKSUMS)
    for folder in [known for known in _KNOWN if known.is_relative_to(root)]:
        del _KNOWN[folder]


def checksummed(folder: Path) -> list[Path]:
    """The files of a folder that have checksums, whether they are there or not."""
    names = (place.name for place in listed(checksum_path(folder / "name").parent))
    return [folder / name[1:].removesuffix(".sha256") for name in names if re.fullmatch(r"\..+\.sha256", name)]


def _root(folder: Path, depth: int) -> Path | None:
    """The nearest folder, this one or above, that has its checksums in one place; None where a sweep has not."""
    if is_object(folder) and folder in _KNOWN:
        return _KNOWN[folder]
    found: Path | None
    if (folder / CHECKSUMS).is_dir():
        found = folder
    elif depth == 0 or len(folder.parts) <= 1 + is_object(folder) or any((folder / x).is_file() for x in RECORDS):
        found = None
    else:
        found = _root(folder.parent, depth - 1)
    if is_object(folder):
        _KNOWN[folder] = found
    return found


def trouble(path: Path) -> str:
    """What is wrong with a file, as in "is missing"; empty if it is what was written.

    Raises:
      StorageError: an object store cannot be reached, which says nothing about the file.
    """
    return _examined(path)[1]


def remove(path: Path) -> None:
    """Removes a file and its checksum, if they are there."""
    with _telling(path):
        path.unlink(missing_ok=True)
        checksum_path(path).unlink(missing_ok=True)


def put(data: bytes, path: Path) -> None:
    """Writes a file that has no checksum, so that it appears whole.

    Raises:
      StorageError: it cannot be written.
    """
    with _telling(path):
        _put(data, path)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left under temporary names."""
    for path in listed(folder):
        if re.fullmatch(r"\..+\.tmp(\.orbax-.*)?", path.name):
            with _telling(path):
                _drop(path)
                path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Renames a damaged file or folder so that nothing reads it, and nothing is lost that somebody may want to see."""
    aside = path.with_name(f".damaged.{path.name}")
    with _telling(path):
        if aside.is_dir() and not aside.is_symlink():
            _drop(aside)
        aside.unlink(missing_ok=True)
        if is_object(path) and is_object(aside):
            path.copy(aside)
            path.drop()
            path.unlink(missing_ok=True)
        elif os.path.lexists(path):
            path.rename(aside)
        checksum_path(path).unlink(missing_ok=True)
    return aside


def _put(data: bytes, path: Path) -> None:
    if is_object(path):
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _line(data: bytes, path: Path) -> str:
    return f"{_sha256(data)}  {path.name}\n"


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Tells in a sentence what the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({_why(error)})") from error


# --- folders ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_folder(target: Path, note: Any = None) -> Iterator[Path]:
    """A place to make a folder at, which then appears whole under its own name.

    Args:
      target: where it is to appear; nothing is there yet.
      note: kept in the manifest, for `note` to read; what JSON can hold.

    Yields:
      A local path where nothing is; what is made there moves to `target`.

    Raises:
      StorageError: it cannot be written.
    """
    if is_object(target):
        with _uploaded(target, note) as temporary:
            yield temporary
        return
    temporary = target.with_name(f".{target.name}.tmp")
    with _telling(target):
        _drop(temporary)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _put(_manifest(_digests(temporary), note), temporary / MANIFEST)
            for file in _files(temporary):
                _sync(file)
            os.replace(temporary, target)
        except BaseException:
            # What Orbax has begun lies beside it, and may have filled the disk.
            for place in (temporary, *target.parent.glob(f"{temporary.name}.orbax-*")):
                _drop(place)
            raise
        _sync(target.parent)


@contextlib.contextmanager
def _uploaded(target: ObjectPath, note: Any) -> Iterator[Path]:
    with _scratch(target) as scratch:
        temporary = scratch / target.name
        yield temporary
        target.drop()  # what an interrupted upload may have left
        target.upload({file.relative_to(temporary).as_posix(): file for file in _files(temporary)})
        (target / MANIFEST).write_bytes(_manifest(_digests(temporary), note))


@contextlib.contextmanager
def _local(target: Path) -> Iterator[Path]:
    """A folder on a disk, or a local copy of one; where nothing is, a path where nothing is either."""
    if not is_object(target):
        yield target
        return
    with _scratch(target) as scratch:
        target.download(target.tree(), scratch / target.name)
        yield scratch / target.name


@contextlib.contextmanager
def _scratch(target: ObjectPath) -> Iterator[Path]:
    """A local folder to come from an object store or to go there; TMPDIR says where it lies."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix="grokjax-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"{target} needs a local folder on the way, and there is none ({error})") from error
    with scratch as folder:
        yield Path(folder)


@contextlib.contextmanager
def folder(target: Path) -> Iterator[Path]:
    """A folder that was made by `new_folder`, as a local path, after its files have been checked.

    Raises:
      Damaged: it is incomplete, or a file is not what was written.
    """
    with _local(target) as local:
        problem = _folder_trouble(local)
        if problem:
            raise Damaged(f"{target} {problem}")
        yield local


def has_appeared(target: Path) -> bool:
    """Whether a folder made by `new_folder` is there under its own name; not whether it is whole."""
    return (target / MANIFEST if is_object(target) else target).exists()


def appeared(parent: Path) -> list[Path]:
    """The folders made by `new_folder` that lie in a folder, sorted by name, with whatever else does on a disk."""
    if not is_object(parent):
        return listed(parent)
    names = (name for name in parent.tree() if name.name == MANIFEST and len(name.parts) == 2)
    return sorted(cast(Path, parent / name.parts[0]) for name in names)


def folder_trouble(target: Path) -> str:
    """What is wrong with a folder made by `new_folder`; empty if it is what was written.

    Raises:
      StorageError: an object store cannot be reached, which says nothing about the folder.
    """
    with _local(target) as local:
        return _folder_trouble(local)


def _folder_trouble(target: Path) -> str:
    try:
        if not target.is_dir():
            return "is missing"
        if not (target / MANIFEST).is_file():
            return "is incomplete"
        large = [path.name for path in _files(target) if path.stat().st_size > MOST_BYTES]
        if large:
            return f"is damaged: {large[0]} is too large to be ours"
        known, _ = _read_manifest(target)
        found = _digests(target)
    except (ValueError, RecursionError, MemoryError):
        return f"is damaged: {MANIFEST} is not what was written"
    except OSError as error:
        return _problem(error)
    wrong = sorted(name for name in known if found.get(name) != known[name])
    if not wrong:
        return ""
    return f"is damaged: {wrong[0]} {'is missing' if wrong[0] not in found else 'has another checksum'}"


def note(target: Path) -> Any:
    """What was noted when a folder was made; its files are not checked.

    Raises:
      Damaged: it is incomplete, or the manifest is not what was written.
    """
    try:
        return _read_manifest(target)[1]
    except FileNotFoundError:
        raise Damaged(f"{target} is incomplete") from None
    except (ValueError, OSError, RecursionError, MemoryError):
        raise Damaged(f"{target} is damaged: {MANIFEST} is not what was written") from None


def _manifest(digests: dict[str, str], note: Any) -> bytes:
    content = {"files": digests, "note": note}
    return json.dumps(content | {"sha256": _sha256(json.dumps(content).encode())}, indent=1).encode()


def _read_manifest(target: Path) -> tuple[dict[str, str], Any]:
    """A manifest's digests by file, and its note; a ValueError says that it is damaged."""
    data = (target / MANIFEST).read_bytes()
    held = json.loads(data)
    files = held.get("files") if isinstance(held, dict) else None
    if not isinstance(files, dict) or data != _manifest(files, held.get("note")):
        raise ValueError(MANIFEST)
    return files, held["note"]


def drop(folder: Path) -> None:
    """Removes a folder with all that is in it, if it is there; one that is half removed counts as incomplete."""
    with _telling(folder), contextlib.suppress(NotADirectoryError):
        (folder / MANIFEST).unlink(missing_ok=True)
        _drop(folder)


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in _files(folder) if path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in files}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _drop(path: Path) -> None:
    if is_object(path):
        path.drop()
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        shutil.rmtree(path)
