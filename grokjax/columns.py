"""The tables' columns: what each says of itself, and the schemas of metrics/*.parquet and runs.parquet. No JAX.

What a measure's column says is given beside the function that fills it; what is here knows of no measure.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from grokjax import config
from grokjax.identity import IDENTITY
from grokjax.milestones import THRESHOLD

ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string()}
SPLIT_SEED_USED = "split_seed_used"
FINAL = ("train_loss", "test_loss", "train_acc", "test_acc")  # of the metrics; runs.parquet has their last values
# The columns of runs.parquet between the run's number and its config: type, description, unit.
SUMMARY: dict[str, tuple[pa.DataType, str, str]] = {
    "status": (
        pa.string(),
        "waiting, training, finished, stopped (early, by stop_loss), or diverged (loss not finite at last_step).",
        "",
    ),
    "last_step": (pa.int64(), "Step of the last evaluation.", "steps"),
    "memorised_step": (
        pa.int64(),
        f"First evaluated step with train_acc ≥ {THRESHOLD} that the next evaluation keeps; the last one so far counts "
        "as it stands. Null if none yet.",
        "steps",
    ),
    "grokked_step": (
        pa.int64(),
        f"First evaluated step with test_acc ≥ {THRESHOLD} that the next evaluation keeps; the last one so far counts "
        "as it stands. Null if none yet.",
        "steps",
    ),
    "train_loss": (pa.float64(), "Training loss at last_step.", "nats"),
    "test_loss": (pa.float64(), "Test loss at last_step.", "nats"),
    "train_acc": (pa.float64(), "Training accuracy at last_step.", "fraction"),
    "test_acc": (pa.float64(), "Test accuracy at last_step.", "fraction"),
    "key_freqs": (pa.list_(pa.int64()), "Key frequencies of the final model; null until they are settled.", "1"),
}


NO_SUM, NO_RESIDUES, LEFT_OUT = "is no function of a ± b", "is of a group but Z_P", "leaves pairs out"  # of a task
NO_WAVES = "is of a group that is not cyclic"
MLP, OWN, HAS_NO, NORMED, OTHER = (
    "is an MLP",
    "is of a family of one's own",
    "has no",
    "has LayerNorm",
    "is not one layer as the paper has it",
)  # of a model


def is_of_model(reason: str) -> bool:
    """Whether a reason for which a value means nothing is the model's, and not its task's."""
    return reason.startswith((MLP, OWN, HAS_NO, NORMED, OTHER))


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column says of itself.

    Attributes:
      name: its own; a keyed one is logged in the step as name + "_online".
      unit: "nats", "1" for pure numbers, ….
      description: one sentence; may hold a formula.
      source: paper and section.
      shape: names of lengths ("freq", "neuron", "head"), () for a number per row.
      dtype: of the value in the compiled step, "float", "int32" or "bool".
      range: of the value, as a mathematician writes it.
      count_of: for an integer count, the name of what it is divided by on the host.
      keyed: depends on the set of key frequencies.
      needs_sum: defined only for tasks whose answer is a function of a + b or a - b; null otherwise.
      needs_update: looks at the update that the next step will make, which takes the optimizer's state; null where
        there are only saved parameters.
      slow: too costly for every evaluation.
      version: of the definition, recorded with every table; one more with each change of what the column holds.
      even_only: whether this version differs from the one before for even P alone.
      cyclic_only: looks at single functions of residues, or at sums and differences: null for groups that are read by
        blocks.
      needs_waves: looks at single functions of a block, which are cosines and sines in cyclic groups alone; null for
        others.
      whole_grid: reads frequencies over all P² pairs; null for tasks that leave pairs out.
      transformer_only: reads positions, which an MLP has not: null for MLPs, and for families of one's own.
      parameter: the name of one that it reads, such as "W_pos"; null for models that have none.
      one_layer: reads the attention or the residual stream of one layer with softmax attention from "=": null for
        others.
      unnormed: reads what the last layer's neurons add to the logits, which LayerNorm scales by pair: null with it.
      undefined: when else the value is undefined and comes out as NaN, in words; "" if never.
    """

    name: str
    _: dataclasses.KW_ONLY
    unit: str
    description: str
    source: str
    shape: tuple[str, ...] = ()
    dtype: str = "float"
    range: str = "(-∞, ∞)"
    count_of: str | None = None
    keyed: bool = False
    needs_sum: bool = False
    needs_update: bool = False
    slow: bool = False
    version: int = 1
    even_only: bool = False
    cyclic_only: bool = False
    needs_waves: bool = False
    whole_grid: bool = False
    transformer_only: bool = False
    parameter: str = ""
    one_layer: bool = False
    unnormed: bool = False
    undefined: str = ""

    def undefined_for(self, s: Any) -> str:
        """Why the value means nothing for a task, or for the model (`is_of_model`), in words; "" if it does.

        Args:
          s: has cfg, has_sum, in_blocks, has_waves and nonzero_b, as a `Shared` of measures.shared.
        """
        if self.transformer_only and not s.cfg.is_transformer:
            return MLP if s.cfg.is_mlp else OWN
        if self.parameter and not s.cfg.has(self.parameter):
            return f"{HAS_NO} {self.parameter}"
        if self.one_layer and not s.cfg.is_factored:
            return OTHER
        if self.unnormed and s.cfg.normalization_type:
            return NORMED
        if self.needs_sum and not s.has_sum:
            return NO_SUM
        if self.cyclic_only and s.in_blocks:
            return NO_RESIDUES
        if self.needs_waves and not s.has_waves:
            return NO_WAVES
        return LEFT_OUT if self.whole_grid and s.nonzero_b and not s.in_blocks else ""

    @property
    def is_own(self) -> bool:
        """Whether the column is an experiment's, and none of the package's."""
        return False

    @property
    def when_null(self) -> str:
        """When a row holds null instead of a value."""
        reasons = [
            self.needs_sum and f"the task {NO_SUM}",
            self.cyclic_only and f"the task {NO_RESIDUES}",
            self.needs_waves and f"the task {NO_WAVES}",
            self.whole_grid and f"the task {LEFT_OUT}",
            self.transformer_only and f"the model {MLP}",
            self.parameter and f"the model {HAS_NO} {self.parameter}",
            self.one_layer and f"the model {OTHER}",
            self.unnormed and f"the model {NORMED}",
            self.needs_update and "the row was computed from saved parameters, without the optimizer's state",
            self.undefined,
            "the run diverged",
        ]
        return ", or ".join(reason for reason in reasons if reason)

    @property
    def type(self) -> pa.DataType:
        """Of the values in the metrics."""
        dtypes = {"float": pa.float32(), "int32": pa.int32(), "bool": pa.bool_()}
        scalar = pa.float64() if self.count_of else dtypes[self.dtype]
        return pa.list_(scalar) if self.shape else scalar


def metrics_schema(
    columns: Mapping[str, Column],
    axes: Iterable[str],
    metadata: Mapping[str, Any],
    blocks: Mapping[str, Any] | None = None,
) -> pa.Schema:
    """The schema that every part of a sweep's metrics has.

    Args:
      columns: by the name that they have there.
      axes: the swept fields, by dotted path.
      metadata: for the file: JSON-serializable values by key.
      blocks: by group, what lists over frequencies run over where they are read by its blocks; JSON-serializable.
    """
    blocks_text = json.dumps(blocks, ensure_ascii=False) if blocks else ""
    fields = [
        run_field(),
        pa.field("step", pa.int32(), False, field_metadata("Optimizer steps done before this evaluation.", "steps")),
        *axis_fields(axes),
        *(_metrics_field(name, column, blocks_text) for name, column in columns.items()),
    ]
    return pa.schema(fields, {key: json.dumps(value) for key, value in metadata.items()})


@functools.cache
def runs_schema() -> pa.Schema:
    """The schema of runs.parquet: the run, what has become of it, and its config."""
    fields = [run_field()]
    fields += [pa.field(name, kind, True, field_metadata(text, unit)) for name, (kind, text, unit) in SUMMARY.items()]
    for path, spec in config.FIELDS.items():
        kind = pa.list_(pa.string()) if spec.type is tuple else ARROW[spec.type]
        fields.append(pa.field(path, kind, True, field_metadata(f"Config: {spec.doc}.")))
    return pa.schema([*fields, split_seed_field(), identity_field()])


def run_field() -> pa.Field:
    """The column of runs' numbers, the first of every table."""
    return pa.field("run", pa.int32(), False, field_metadata("Number of the run in the sweep."))


def split_seed_field() -> pa.Field:
    """The column of the split's seed, which groups runs where split_seed is null for the run's own seed."""
    text = "Seed that the split was drawn with: split_seed, or seed where that is null."
    return pa.field(SPLIT_SEED_USED, pa.int64(), True, field_metadata(text))


def identity_field() -> pa.Field:
    """The column by which a run is known in any sweep."""
    text = (
        "Hash of the fields that the run's weights depend on, as far as they differ from the defaults, without steps: "
        "the same in every sweep that has the run. Null where the answers of an experiment's own task are unknown."
    )
    return pa.field(IDENTITY, pa.string(), True, field_metadata(text))


def axis_fields(axes: Iterable[str]) -> list[pa.Field]:
    """The columns of swept fields, given by dotted path; with split_seed that which groups runs by it."""
    specs = {path: config.FIELDS[path] for path in axes}
    fields = [pa.field(path, ARROW[it.type], True, field_metadata(f"Swept: {it.doc}.")) for path, it in specs.items()]
    return fields + ([split_seed_field()] if "split_seed" in specs else [])


def field_metadata(description: str, unit: str = "", **more: str) -> dict[str, str]:
    """A Parquet field's metadata; empty entries are left out."""
    return {name: text for name, text in {"description": description, "unit": unit, **more}.items() if text}


EVEN = "even P"  # of a version that differs from the one before for these alone
SIGN: dict[str, Any] = {"version": 2, "even_only": True}  # of what counts the sign of an even P among the frequencies


def redefined(one: pa.Schema, other: pa.Schema, moduli: Iterable[int]) -> dict[str, tuple[int, int]]:
    """The columns of two tables that have one name and two definitions.

    Args:
      one, other: the tables' schemas, as `metrics_schema` made them; where no version is recorded it is 1.
      moduli: of the runs in them.

    Returns:
      By name, both versions.
    """
    found = {}
    for name in [name for name in one.names if name in other.names]:
        for p in moduli:
            both = _version(one.field(name), p), _version(other.field(name), p)
            if both[0] != both[1]:
                found[name] = both
    return found


def disagreement(found: Mapping[str, tuple[int, int]]) -> str:
    """What `redefined` found, in words; "" for nothing."""
    if not found:
        return ""
    name, (one, other) = next(iter(found.items()))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"'{name}'{more} as version {one} and as version {other} of its definition"


def read_otherwise(one: pa.Schema, other: pa.Schema) -> str:
    """A column of two tables of one sweep that runs over other blocks in each, in words; "" if there is none."""
    for name in [name for name in one.names if name in other.names]:
        both = [json.loads((schema.field(name).metadata or {}).get(b"blocks", b"{}")) for schema in (one, other)]
        if both[0] != both[1]:
            return f"'{name}' {' and '.join(f'over {_read_by(blocks)}' for blocks in both)}"
    return ""


def _read_by(blocks: Mapping[str, Any]) -> str:
    return f"the blocks of {', '.join(blocks)}" if blocks else "the frequencies of Z_P"


def moduli(record: Mapping[str, Any]) -> list[int]:
    """P of the runs of a sweep, each once, of which `record` is the config.json."""
    return list(dict.fromkeys(run["p"] for run in record["runs"]))


def _version(field: pa.Field, p: int) -> int:
    about = field.metadata or {}
    version = int(about.get(b"version", b"1"))
    return version - (p % 2 == 1 and about.get(b"version_for") == EVEN.encode())


def _metrics_field(name: str, column: Column, blocks: str = "") -> pa.Field:
    online = name.endswith("_online")
    description, null = column.description, column.when_null
    if column.keyed:
        description += " Keys: those of " + ("the model at this step." if online else "the run's final model.")
    if column.keyed and not online:
        null = f"there is no snapshot at this step, or the run has not ended, or {null}"
    elif column.slow:
        null = f"{null}, or this evaluation was not one of every slow_every steps"
    shape = f"[{', '.join(column.shape)}]" if column.shape else ""
    metadata = field_metadata(
        description,
        column.unit,
        range=column.range,
        source=column.source,
        shape=shape,
        null=null,
        version=str(column.version) if column.version > 1 else "",
        version_for=EVEN * column.even_only,
        own="yes" * column.is_own,
        blocks=blocks * ("freq" in column.shape),
    )
    return pa.field(name, column.type, True, metadata)
