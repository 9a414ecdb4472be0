"""config.json of a working directory, with its spare copy: what was trained, with what, on what. No JAX."""

import json
from pathlib import Path
from typing import Any

from grokjax.errors import InputError, StorageError
from grokjax.store import files

ONLY = "only_"  # begins the name of the working directory, inside a sweep's own, of what --only trains again
RECORDS = ("config.json", ".config.json.spare")  # the same twice: no resume can do without it
MOST_SLOTS = 1 << 20  # of a layout that may be believed
MOST_PARTS = 8  # of the training pairs, in C++
# A group's layout: what each field is at least and at most.
LAYOUT = {
    **dict.fromkeys(("slots", "lanes", "eval_lanes", "n_devices"), (1, MOST_SLOTS)),
    "block": (0, MOST_SLOTS),
    "n_parts": (0, MOST_PARTS),
    "pairs_last": (0, 1),
}
NEEDED = LAYOUT.keys() - {"block", "n_parts", "pairs_last"}  # which are younger


def read_record(path: str | Path) -> dict[str, Any] | None:
    """config.json of a working directory, or its spare copy where it is damaged or lost; None if there is neither.

    Raises:
      InputError: it is damaged, and so is the copy, or it cannot be reached.
    """
    file, spare = (files.path(path) / name for name in RECORDS)
    try:
        whole = next((place for place in (file, spare) if not files.trouble(place)), file)
        if whole == file and not file.is_file():
            return None
        trouble = files.trouble(whole)
        if trouble and files.checksum_path(file).is_file():
            raise InputError(f"{file} {trouble}: restore it, or --overwrite to start again there.")
        record = json.loads(whole.read_text())  # without a checksum it was made by hand
    except StorageError as error:
        raise InputError(f"--workdir={path} cannot be used: {error}.") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, MemoryError):
        raise InputError(f"{file} cannot be read as JSON: restore it, or --overwrite to start again there.") from None
    wrong = _wrong_in(record)
    if wrong:
        raise InputError(f"{file} is no sweep's ({wrong}): restore it, or --overwrite to start again there.")
    return record


def _wrong_in(record: Any) -> str:
    """Says what in config.json is not of the kind that others rely on; empty if all is."""
    if not isinstance(record, dict):
        return "it holds no fields"
    for name, kind in (("config", dict), ("axes", dict), ("runs", list), ("groups", list)):
        if not isinstance(record.get(name), kind):
            return f"'{name}' is missing or of another kind"
    numbers: list[Any] = [run.get("run") if isinstance(run, dict) else None for run in record["runs"]]
    # What --only trains again is some runs of a sweep, by their numbers there.
    if not all(_is_count(n, 0, 2**31) for n in numbers) or numbers != sorted(set(numbers)):
        return "'runs' are not in the order of their numbers"
    if not all(isinstance(values, list) for values in record["axes"].values()):
        return "'axes' are not lists of values"
    for group in record["groups"]:
        if not (isinstance(group, dict) and LAYOUT.keys() >= group.keys() >= NEEDED):
            return "'groups' have other fields"
        if not all(_is_count(n, *LAYOUT[name]) for name, n in group.items()):
            return "'groups' have impossible layouts"
    if record.get("n_devices") is not None and not _is_count(record["n_devices"], 1, MOST_SLOTS):
        return "'n_devices' is no number of devices"
    return ""


def _is_count(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
