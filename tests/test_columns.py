"""What a column says of itself reaches the schemas of the tables."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from grokjax import columns, config
from grokjax.columns import FINAL, SUMMARY, Column, metrics_schema, runs_schema


def column(**more) -> Column:
    return Column("x", unit="nats", description="It is x.", source="nobody", **more)


def field(name="x", **more) -> pa.Field:
    return metrics_schema({name: column(**more)}, (), {}).field(name)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, pa.float32()),
        ({"dtype": "bool", "shape": ("freq",)}, pa.list_(pa.bool_())),
        ({"dtype": "int32"}, pa.int32()),
        ({"dtype": "int32", "count_of": "sums"}, pa.float64()),
    ],
)
def test_types(given, kind):
    assert field(**given).type == kind


def test_metadata():
    assert field(shape=("freq",), range="[0, 1]").metadata == {
        b"description": b"It is x.",
        b"unit": b"nats",
        b"range": b"[0, 1]",
        b"source": b"nobody",
        b"shape": b"[freq]",
        b"null": b"the run diverged",
    }


@pytest.mark.parametrize(
    ("name", "given", "description", "null"),
    [
        ("x", {"keyed": True}, "the run's final model.", "there is no snapshot at this step, or the run has not ended"),
        ("x_online", {"keyed": True}, "the model at this step.", "the run diverged"),
        ("x_online", {"keyed": True, "slow": True}, "the model at this step.", "not one of every slow_every steps"),
        ("x", {"slow": True}, "It is x.", "not one of every slow_every steps"),
        ("x", {"undefined": "x is 0"}, "It is x.", "x is 0, or the run diverged"),
    ],
)
def test_keys_and_nulls_are_told(name, given, description, null):
    metadata = field(name, **given).metadata
    assert metadata[b"description"].decode().endswith(description)
    assert null in metadata[b"null"].decode()


def test_defined_where_the_task_allows():
    tasks = {
        "add": SimpleNamespace(has_sum=True, in_blocks=False, nonzero_b=False),
        "divide": SimpleNamespace(has_sum=False, in_blocks=False, nonzero_b=True),
        "group": SimpleNamespace(has_sum=True, in_blocks=True, nonzero_b=False),
    }

    def reasons(**flags):
        return {name: reason for name, task in tasks.items() if (reason := column(**flags).undefined_for(task))}

    assert reasons() == {}
    assert reasons(needs_sum=True) == {"divide": "is no function of a ± b"}
    assert reasons(cyclic_only=True) == {"group": "is of a group but Z_P"}
    assert reasons(whole_grid=True) == {"divide": "leaves pairs out"}
    assert "the task leaves pairs out, or the run diverged" in column(whole_grid=True).when_null


def test_rows_are_of_a_run_at_a_step_with_what_was_swept():
    schema = metrics_schema({"x": column()}, ("weight_decay", "task", "seed"), {"config": {"p": 7}})
    assert schema.names == ["run", "step", "weight_decay", "task", "seed", "x"]
    assert schema.types[:5] == [pa.int32(), pa.int32(), pa.float64(), pa.string(), pa.int64()]
    assert schema.metadata == {b"config": b'{"p": 7}'}


def test_runs_have_what_became_of_them_and_every_field():
    schema = runs_schema()
    assert schema.names == ["run", *SUMMARY, *config.FIELDS, "split_seed_used", "identity"]
    assert set(FINAL) <= set(SUMMARY)
    assert schema.field("measures").type == pa.list_(pa.string())
    assert all(f.metadata[b"description"].endswith(b".") for f in schema)


# --- versions of definitions ----------------------------------------------------------------------------------------


def table_of(**versions):
    """A metrics schema of columns by name with their version, negative where it is of even P alone."""
    about = {"unit": "1", "description": "Nothing.", "source": "a test"}
    made = {name: columns.Column(name, **about, version=abs(v), even_only=v < 0) for name, v in versions.items()}
    return columns.metrics_schema(made, (), {})


def test_tables_of_two_definitions_are_told_apart():
    old = pa.schema([pa.field("x", pa.float32()), pa.field("y", pa.float32()), pa.field("z", pa.float32())])
    new = table_of(x=1, y=2, z=-2, w=3)
    assert columns.redefined(old, new, [113]) == {"y": (1, 2)}
    assert columns.redefined(old, new, [113, 12]) == {"y": (1, 2), "z": (1, 2)}
    assert columns.redefined(new, new, [12, 113]) == {}
    assert columns.disagreement({}) == ""
    said = columns.disagreement(columns.redefined(old, new, [12]))
    assert said == "'y' (and 1 more) as version 1 and as version 2 of its definition"


def test_moduli_of_a_sweep():
    assert columns.moduli({"runs": [{"p": 7}, {"p": 7}]}) == [7]
    assert columns.moduli({"runs": [{"p": 5}, {"p": 12}]}) == [5, 12]
