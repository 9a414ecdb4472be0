"""What is published tells of the sweep, and not of who trained it where: no path, no bucket, no name of a machine."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

FILES = ("experiment", "group")  # fields whose values are places, or end in one
# In other texts, a place from the root on, in a home or in a bucket: what stands before its last name.
FROM_ROOT = re.compile(r"(?<![\w/.])(?:\w+:/)?(?:~|\.{1,2})?/(?:[^\s/:;,'\"]+/)+(?=[^\s/:;,'\"]+)")


def text(given: str, name: str = "") -> str:
    """A text whose places have lost their folders; `name` is that of the field that it is of."""
    return given.rpartition("/")[2] if name in FILES else FROM_ROOT.sub("", given)


def cleaned(value: Any, name: str = "") -> Any:
    """What JSON holds, cleaned likewise at every depth."""
    if isinstance(value, Mapping):
        return {text(str(key)): cleaned(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(one, name) for one in value]
    return text(value, name) if isinstance(value, str) else value


def table(given: pa.Table) -> pa.Table:
    """A table cleaned likewise: its texts, and what its file says of itself."""
    metadata = {key: _json(value) for key, value in (given.schema.metadata or {}).items() if key != b"pandas"}
    for at, field in enumerate(given.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = [one if one is None else text(one, field.name) for one in given.column(at).to_pylist()]
            given = given.set_column(at, field, pa.array(texts, field.type))
    return given.replace_schema_metadata(metadata)


def _json(value: bytes) -> str:
    try:
        return json.dumps(cleaned(json.loads(value)), ensure_ascii=False)
    except ValueError:
        return text(value.decode(errors="replace"))
