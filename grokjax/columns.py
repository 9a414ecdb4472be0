"""The tables' schemas: each column's type, and the description, unit, range and source in its metadata."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from grokjax import config
from grokjax.measures.registry import Measure

ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string()}
THRESHOLD = 0.99  # accuracy at which a run counts as having memorised (train) or grokked (test)


def field_metadata(description: str, unit: str = "", **more: str) -> dict[str, str]:
    """A Parquet field's metadata; empty entries are left out."""
    return {name: text for name, text in {"description": description, "unit": unit, **more}.items() if text}


def metrics_schema(columns: Mapping[str, Measure], axes: Iterable[str], metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema that every part of a sweep's metrics has.

    Args:
      columns: measures by column name.
      axes: the swept fields, by dotted path.
      metadata: for the file: JSON-serializable values by key.
    """
    fields = [
        pa.field("run", pa.int32(), False, field_metadata("Number of the run in the sweep.")),
        pa.field("step", pa.int32(), False, field_metadata("Optimizer steps done before this evaluation.", "steps")),
    ]
    for path in axes:
        spec = config.FIELDS[path]
        fields.append(pa.field(path, ARROW[spec.type], True, field_metadata(f"Swept: {spec.doc}.")))
    for name, m in columns.items():
        fields.append(measure_field(name, m))
    return pa.schema(fields, {key: json.dumps(value) for key, value in metadata.items()})


def measure_field(name: str, m: Measure) -> pa.Field:
    """A measure's column, described by its metadata."""
    shape = f"[{', '.join(m.shape)}]" if m.shape else ""
    return pa.field(
        name,
        _arrow_type(m),
        True,
        field_metadata(
            described(name, m), m.unit, range=m.range, source=m.source, shape=shape, null=null_reasons(name, m)
        ),
    )


def described(name: str, m: Measure) -> str:
    """A column's description; for keyed measures with whose keys."""
    if not m.keyed:
        return m.description
    whose = "the model at this step" if name.endswith("_online") else "the run's final model"
    return f"{m.description} Keys: those of {whose}."


def null_reasons(name: str, m: Measure) -> str:
    """When a column holds null."""
    if m.keyed and not name.endswith("_online"):
        return f"there is no snapshot at this step, or the run has not ended, or {m.when_null}"
    return f"{m.when_null}, or this evaluation was not one of every slow_every steps" if m.slow else m.when_null


def _arrow_type(m: Measure) -> pa.DataType:
    scalar = pa.float64() if m.count_of else {"float": pa.float32(), "int32": pa.int32(), "bool": pa.bool_()}[m.dtype]
    return pa.list_(scalar) if m.shape else scalar
