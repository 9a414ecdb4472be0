"""What a working directory was made from: which other sweep may go on there, and which may not."""

import json

import pytest
import tiny

from grokjax import sweeps
from grokjax.errors import InputError
from grokjax.store import files, sweep
from grokjax.store.records import RECORDS
from grokjax.store.sweep import difference, load_sweep
from grokjax.store.workdir import Workdir
from grokjax.training.layouts import Layout


def expand(**fields):
    c = tiny.get_config()
    for name, one in fields.items():
        c[name] = one
    return sweeps.expand(c)


def described(**fields):
    return sweep.described(expand(**fields))


@pytest.fixture
def made(tmp_path):
    """A function that makes a directory whose record lacks some fields, as if these were younger."""

    def make(*lacks, **fields):
        path = tmp_path / "sweep"
        one = Workdir(path, expand(**fields))
        one.begin([Layout(3, 1, 1, 1).record()])
        one.close()
        record = json.loads((path / "config.json").read_text())
        for where in (record["config"], *record["runs"]):
            for name in lacks:
                del where[name]
        for name in RECORDS:
            files.write_text(json.dumps(record), path / name)
        return path

    return make


def reopened(path, **fields):
    Workdir(path, expand(**fields)).close()


# --- what differs -----------------------------------------------------------------------------------------------------


def test_the_same_is_no_difference():
    assert difference(described(), described()) == ""
    assert difference([{**run, "note": 1} for run in described()], described()) == ""


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"learning_rate": 3e-3}, "learning_rate of run 0 is 0.01 there, 0.003 here"),
        ({"stop_evals": 4}, "stop_evals of run 0 is 3 there, 4 here"),
        ({"measures": ("paper",)}, "measures of run 0 is [] there, ['paper'] here"),
        ({"slots": 2}, "slots of run 0 is 3 there, 2 here"),
        ({"checkpoint_every_steps": 7}, ""),
        ({"checkpoint_every_minutes": 1.0}, ""),
    ],
)
def test_a_field_that_differs_is_named_unless_it_changes_no_number(fields, text):
    assert difference(described(), described(**fields)) == text


def test_the_first_run_that_differs_is_named():
    wanted = described()
    wanted[2]["seed"] = 7
    assert difference(described(), wanted) == "seed of run 2 is 0 there, 7 here"


def test_the_number_of_runs_differs():
    assert difference(described()[:3], described()) == "of 3 runs, not 4"


# --- fields that are younger than the directory -----------------------------------------------------------------------


def test_a_younger_field_had_its_default_there(made):
    path = made("stop_evals", "split_seed")
    reopened(path)
    with pytest.raises(InputError) as error:
        reopened(path, stop_evals=4)
    assert str(error.value) == (
        f"--workdir={path} holds another sweep (stop_evals of run 0 is 3 there, 4 here): choose another directory, or "
        "--overwrite to start again there."
    )
    with pytest.raises(InputError, match=r"\(split_seed of run 0 is None there, 1 here\)"):
        reopened(path, split_seed=1)


def test_a_field_that_is_there_counts_also_against_a_default(made):
    path = made(stop_evals=4)
    reopened(path, stop_evals=4)
    with pytest.raises(InputError, match=r"\(stop_evals of run 0 is 4 there, 3 here\)"):
        reopened(path)


def test_a_sweep_is_read_back_with_the_defaults_of_younger_fields(made):
    whole, read = expand(), load_sweep(made("stop_evals", "split_seed", "key_threshold"))
    assert dict(read.base) == dict(whole.base)
    assert [dict(run.values) for run in read.runs] == [dict(run.values) for run in whole.runs]
    assert [run.run for run in read.runs] == [0, 1, 2, 3]
    assert read.axes == {"weight_decay": (0.0, 1.0), "seed": (0, 1)}


def test_a_field_of_a_later_version_is_refused(made):
    path = made()
    record = json.loads((path / "config.json").read_text())
    record["runs"][1]["warp"] = 9
    for name in RECORDS:
        files.write_text(json.dumps(record), path / name)
    with pytest.raises(InputError) as error:
        load_sweep(path)
    assert str(error.value) == (
        f"{path / 'config.json'} has a field 'warp', which this version of grokjax does not know."
    )


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_lost_or_damaged_record_is_restored_from_its_copy(made):
    path = made()
    whole = (path / "config.json").read_text()
    for name, other in (RECORDS, RECORDS[::-1]):
        (path / name).write_text("{")
        reopened(path)
        assert (path / name).read_text() == (path / other).read_text()
        assert json.loads((path / name).read_text()) == json.loads(whole)
        assert files.trouble(path / name) == ""
