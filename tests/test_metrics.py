"""What is on disk: read back by pandas, described by its own schema, whole at any moment."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tiny

from grokjax import sweeps
from grokjax.columns import _metrics_field, metrics_schema
from grokjax.measures import registry
from grokjax.store import files, metrics
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import (
    PART_BYTES,
    MetricsWriter,
    _may_hold,
    fill,
    part_name,
    part_number,
    parts,
    read_metrics,
    read_part,
    read_runs,
)
from grokjax.sweeps import Run

COLUMNS = registry.in_step(("paper",))
RUNS = sweeps.expand(tiny.get_config()).runs


def rows(runs, steps, **values):
    """Rows with made-up values for every column."""
    n, rng = len(runs), np.random.default_rng(0)
    frame = {"run": np.array(runs), "step": np.array(steps)}
    for name, m in COLUMNS.items():
        shape = (n, *(registry.DIMS[dim](RUNS[0].problem()) for dim in m.shape))
        frame[name] = rng.random(shape) if m.dtype == "float" or m.count_of else rng.integers(0, 2, shape) == 1
        if m.dtype == "int32" and not m.count_of:
            frame[name] = rng.integers(1, 4, shape)
    return frame | {name: np.array(value) for name, value in values.items()}


@pytest.fixture
def writer(tmp_path):
    schema = metrics_schema(COLUMNS, {"weight_decay": (0.0, 1.0)}, {"config": {"p": 7}})
    return MetricsWriter(tmp_path / "metrics", schema)


def test_what_is_written_is_read_back(writer, tmp_path):
    frame = rows([0, 1, 0], [0, 0, 20], weight_decay=[0.0, 1.0, 0.0])
    writer.add(frame)
    writer.flush()
    writer.add(rows([1], [20], weight_decay=[1.0]))
    writer.flush()
    back = pd.read_parquet(tmp_path / "metrics")
    assert list(back.columns) == ["run", "step", "weight_decay", *COLUMNS]
    assert len(back) == 4
    for name in COLUMNS:
        values = np.stack(back[name][:3])
        np.testing.assert_allclose(values, np.asarray(frame[name], values.dtype), rtol=1e-7)
    assert read_metrics(tmp_path)["step"].tolist() == [0, 20, 0, 20]


def test_non_finite_and_missing_values_are_null(writer, tmp_path):
    frame = rows([0, 1], [0, 0], weight_decay=[0.0, 1.0], test_loss=[np.nan, 1.0], excluded_loss_max=[1.0, np.inf])
    frame["excluded_loss_per_freq"][1, 1] = np.nan
    del frame["gini_W_E"]
    writer.add(frame)
    writer.flush()
    table = pq.read_table(tmp_path / "metrics")
    nulls = {name: table[name].is_null().to_pylist() for name in table.column_names}
    assert nulls["test_loss"] == [True, False]
    assert nulls["excluded_loss_max"] == [False, True]
    assert nulls["excluded_loss_per_freq"] == [False, True]
    np.testing.assert_allclose(table["excluded_loss_per_freq"][0].as_py(), frame["excluded_loss_per_freq"][0])
    assert nulls["gini_W_E"] == [True, True]
    assert not any(nulls["train_loss"])


def test_the_schema_describes_every_column(writer, tmp_path):
    writer.add(rows([0], [0], weight_decay=[0.0]))
    writer.flush()
    schema = pq.read_schema(next((tmp_path / "metrics").glob("part-*.parquet")))
    assert json.loads(schema.metadata[b"config"]) == {"p": 7}
    for field in schema:
        assert field.metadata[b"description"].endswith(b"."), field.name
    loss = schema.field("restricted_loss_online").metadata
    assert loss[b"unit"] == b"nats"
    assert loss[b"source"].startswith(b"Nanda et al. 2023")
    assert b"Keys: those of the model at this step" in loss[b"description"]


def test_an_unfinished_part_is_not_read(writer, tmp_path):
    writer.add(rows([0], [0], weight_decay=[0.0]))
    writer.flush()
    (tmp_path / "metrics" / ".part-000001.parquet.tmp").write_bytes(b"half")
    assert len(pd.read_parquet(tmp_path / "metrics")) == 1
    assert len(parts(tmp_path / "metrics")) == 1


def test_accuracies_come_from_integer_counts():
    problem = dataclasses.replace(RUNS[0].problem(), n_train=29)
    counts = {"train_acc": np.array([29, 28]), "test_acc": np.array([20, 0])}
    done = registry.counts_to_shares(COLUMNS, counts, problem)
    assert done["train_acc"].tolist() == [1.0, 28 / 29]
    assert done["test_acc"].tolist() == [1.0, 0.0]


def feed(ledger, run, steps, train_acc, test_acc, train_loss=None):
    n = len(steps)
    loss = train_loss or [1.0] * n
    ledger.update(
        {
            "run": [run] * n,
            "step": steps,
            "train_loss": loss,
            "test_loss": [2.0] * n,
            "train_acc": train_acc,
            "test_acc": test_acc,
        }
    )


def test_ledger_follows_runs():
    ledger = Ledger(RUNS)
    feed(ledger, 0, [0, 20, 200], [0.1, 0.99, 1.0], [0.1, 0.5, 0.995])
    feed(ledger, 1, [0, 20], [0.1, 0.2], [0.1, 0.2])
    feed(ledger, 2, [0, 20], [0.1, 0.2], [0.1, 0.2], [1.0, float("nan")])
    assert [r["status"] for r in ledger.records.values()] == ["finished", "training", "diverged", "waiting"]
    assert ledger.records[0]["memorised_step"] == 20
    assert ledger.records[0]["grokked_step"] == 200
    assert ledger.records[2]["last_step"] == 20
    assert ledger.records[2]["train_loss"] == 1.0
    assert [ledger.over(i) for i in range(4)] == [True, False, True, False]
    assert (ledger.count("memorised_step"), ledger.count("grokked_step"), ledger.count("diverged")) == (1, 1, 1)


def test_runs_table_has_every_hyperparameter(tmp_path):
    ledger = Ledger(RUNS)
    files.write_parquet(ledger.table(), tmp_path / "runs.parquet")
    back = read_runs(tmp_path)
    assert back["weight_decay"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert back["model.d_mlp"].tolist() == [16] * 4
    assert set(RUNS[0].values) <= set(back.columns)
    assert isinstance(RUNS[0], Run)


# --- parts ------------------------------------------------------------------------------------------------------------

PLAIN = metrics_schema({}, ["weight_decay"], {})


def plain(runs, steps, weight_decay):
    return {"run": np.array(runs), "step": np.array(steps), "weight_decay": np.array(weight_decay, float)}


def test_names_and_order_of_parts(tmp_path):
    assert [part_name(*at) for at in ((3,), (3, 0), (12, 1))] == [
        "part-000003.parquet",
        "part-000003.parquet",
        "part-000012-1.parquet",
    ]
    assert [part_number(tmp_path / part_name(*at)) for at in ((3, 0), (12, 10))] == [(3, 0), (12, 10)]
    order = [(0, 0), (0, 2), (0, 10), (2, 0), (1_000_000, 0)]
    for name in [part_name(*at) for at in order] + ["part-1.parquet.tmp", "x-part-1.parquet", "part-.parquet"]:
        (tmp_path / name).touch()
    assert [path.name for path in parts(tmp_path)] == [part_name(*at) for at in order]


def test_a_full_part_is_followed_by_the_next(tmp_path, monkeypatch):
    writer = MetricsWriter(tmp_path / "metrics", PLAIN, number=4, process=1)
    assert PART_BYTES == 16 * 1024**2
    row = 4 + 4 + 8
    monkeypatch.setattr(metrics, "PART_BYTES", PLAIN.empty_table().nbytes + 2 * row)
    for step in range(5):
        writer.add(plain([0], [step], [1.0]))
        assert writer.n_rows == 1
        writer.flush()
        assert writer.n_rows == 0
    assert [path.name for path in parts(tmp_path / "metrics")] == [
        f"part-00000{number}-1.parquet" for number in (4, 5, 6)
    ]
    assert [read_part(path)["step"].to_pylist() for path in parts(tmp_path / "metrics")] == [
        [0, 1],
        [2, 3],
        [4],
    ]
    assert (writer.mark, writer.path.name) == ((6, 1), "part-000006-1.parquet")


def test_fill_sets_the_rows_that_are_named_and_no_others(tmp_path):
    folder = tmp_path / "metrics"
    for number, (runs, steps) in enumerate([([1, 0, 1], [20, 0, 0]), ([2, 2], [0, 20]), ([1, 2], [40, 40])]):
        writer = MetricsWriter(folder, PLAIN, number)
        writer.add(plain(runs, steps, [10.0 * number] * len(runs)))
        writer.flush()
    before = [path.read_bytes() for path in parts(folder)]
    fill(parts(folder), plain([1, 1, 5, 0], [40, 20, 0, 20], [7.0, 8.0, 9.0, 6.0]))
    found = [read_part(path).to_pydict()["weight_decay"] for path in parts(folder)]
    assert found == [[8.0, 0.0, 0.0], [10.0, 10.0], [7.0, 20.0]]
    assert parts(folder)[1].read_bytes() == before[1]
    writer.reload()
    writer.add(plain([0], [60], [5.0]))
    writer.flush()
    assert read_part(parts(folder)[2])["weight_decay"].to_pylist() == [7.0, 20.0, 5.0]
    frame = read_metrics(tmp_path, ["run", "step"])
    expected = [(0, 0), (0, 60), (1, 0), (1, 20), (1, 40), (2, 0), (2, 20), (2, 40)]
    assert list(zip(frame["run"], frame["step"], strict=True)) == expected
    part = parts(folder)[1]
    assert [_may_hold(part, np.array([run])) for run in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize("said", [b"\x80\x04K\x01.", b'{"index_columns": ["step"]}', b"[1, 2]"])
def test_what_else_a_table_says_to_pandas_is_passed_over(said, writer, tmp_path):
    writer.add(rows([0, 1], [0, 0]))
    writer.flush()
    (part,) = parts(tmp_path / "metrics")
    table = pq.read_table(part)
    files.write_parquet(table.replace_schema_metadata(table.schema.metadata | {b"pandas": said}), part)
    assert read_metrics(tmp_path, ["run", "step"]).to_dict("list") == {"run": [0, 1], "step": [0, 0]}
    assert list(read_part(part).schema.metadata) == [b"config"]


def test_a_measure_s_column_says_everything():
    def column(name, **more):
        facts = {"unit": "nats", "description": "D.", "source": "S, §1", "range": "[0, 1]", **more}
        field = _metrics_field(name, registry.Measure("x", "g", len, **facts))
        return str(field.type), {key.decode(): value.decode() for key, value in field.metadata.items()}

    common = {"unit": "nats", "source": "S, §1", "range": "[0, 1]", "own": "yes"}  # `len` is none of the package's
    over = "the run diverged"
    assert column("x") == ("float", common | {"description": "D.", "null": over})
    assert column("x", slow=True, undefined="U", needs_update=True) == (
        "float",
        common
        | {"description": "D."}
        | {
            "null": "the row was computed from saved parameters, without the optimizer's state, or U, or "
            f"{over}, or this evaluation was not one of every slow_every steps"
        },
    )
    assert column("x_online", keyed=True, needs_sum=True, shape=("freq",), dtype="bool") == (
        "list<item: bool>",
        common
        | {"description": "D. Keys: those of the model at this step.", "shape": "[freq]"}
        | {"null": f"the task is no function of a ± b, or {over}"},
    )
    assert column("x", keyed=True, dtype="int32", count_of="sums") == (
        "double",
        common
        | {"description": "D. Keys: those of the run's final model."}
        | {"null": f"there is no snapshot at this step, or the run has not ended, or {over}"},
    )
    kind, facts = column("x", dtype="int32", unit="")
    assert (kind, "unit" in facts) == ("int32", False)
