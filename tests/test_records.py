"""config.json is read back as it was written, and refused where others could not rely on it."""

import json

import pytest
import tiny

from grokjax import sweeps
from grokjax.core.backends import ON_TPU, Backend
from grokjax.core.native import kernels
from grokjax.errors import InputError
from grokjax.store import files
from grokjax.store.records import MOST_PARTS, RECORDS, read_record
from grokjax.store.workdir import Workdir
from grokjax.training.layouts import Layout


@pytest.fixture
def begun(tmp_path):
    """A directory whose sweep has begun, with a layout of each kind."""
    workdir = Workdir(tmp_path / "a", sweeps.expand(tiny.get_config()))
    backends = Backend(), Backend(8), Backend(n_parts=MOST_PARTS), ON_TPU
    layouts = [Layout(4, 2, 1, 2, backend) for backend in backends]
    workdir.begin([layout.record() for layout in layouts])
    workdir.close()
    return workdir.path


def rewrite(path, change):
    """Changes config.json and drops its spare copy and checksums, as by hand."""
    file = path / RECORDS[0]
    record = json.loads(file.read_text())
    change(record)
    for name in RECORDS:
        files.checksum_path(path / name).unlink()
    (path / RECORDS[1]).unlink()
    file.write_text(json.dumps(record))


def test_what_begins_a_sweep_is_read_back(begun):
    record = read_record(begun)
    assert [Layout.of(group).backend for group in record["groups"]] == [
        Backend(),
        Backend(8),
        Backend(n_parts=MOST_PARTS),
        ON_TPU,
    ]
    assert [run["run"] for run in record["runs"]] == [0, 1, 2, 3]


def test_the_spare_copy_stands_in(begun):
    record = read_record(begun)
    (begun / RECORDS[0]).write_text("{}")
    assert read_record(begun) == record
    (begun / RECORDS[0]).unlink()
    assert read_record(begun) == record


def test_there_may_be_none(tmp_path):
    assert read_record(tmp_path) is None


def test_the_most_parts_are_those_of_the_kernels():
    assert MOST_PARTS == kernels.MOST_PARTS


@pytest.mark.parametrize(
    "group",
    [
        {"slots": 3, "lanes": 1, "eval_lanes": 1, "n_devices": 1},
        {"slots": 3, "lanes": 1, "eval_lanes": 1, "n_devices": 1, "block": 0},
        {"slots": 3, "lanes": 1, "eval_lanes": 1, "n_devices": 1, "block": 0, "n_parts": 0},
    ],
)
def test_older_layouts_are_read(begun, group):
    rewrite(begun, lambda record: record.update(groups=[group]))
    assert read_record(begun)["groups"] == [group]
    assert Layout.of(group) == Layout(3, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r.pop("axes"), "'axes' is missing or of another kind"),
        (lambda r: r["runs"].reverse(), "'runs' are not in the order of their numbers"),
        (lambda r: r["runs"].append(r["runs"][-1]), "'runs' are not in the order of their numbers"),
        (lambda r: r["runs"][0].pop("run"), "'runs' are not in the order of their numbers"),
        (lambda r: r["axes"].update(seed=3), "'axes' are not lists of values"),
        (lambda r: r["groups"][0].pop("lanes"), "'groups' have other fields"),
        (lambda r: r["groups"][0].update(colour=1), "'groups' have other fields"),
        (lambda r: r["groups"].append([]), "'groups' have other fields"),
        (lambda r: r["groups"][0].update(slots=0), "'groups' have impossible layouts"),
        (lambda r: r["groups"][0].update(slots=True), "'groups' have impossible layouts"),
        (lambda r: r["groups"][0].update(block=-1), "'groups' have impossible layouts"),
        (lambda r: r["groups"][0].update(lanes=(1 << 20) + 1), "'groups' have impossible layouts"),
        (lambda r: r["groups"][0].update(n_parts=MOST_PARTS + 1), "'groups' have impossible layouts"),
        (lambda r: r["groups"][0].update(pairs_last=2), "'groups' have impossible layouts"),
        (lambda r: r.update(n_devices=0), "'n_devices' is no number of devices"),
    ],
)
def test_what_nobody_could_rely_on_is_refused(begun, change, why):
    rewrite(begun, change)
    with pytest.raises(InputError, match=why):
        read_record(begun)
