"""Snapshots and checkpoints on disk: whose parameters lie where, and which checkpoints there are."""

import jax
import numpy as np
import pytest
import tiny
from orbax.checkpoint import v1 as ocp

from grokjax import sweeps
from grokjax.errors import InputError
from grokjax.store import checkpoints, files, orbax, snapshots
from grokjax.store.snapshots import (
    compact,
    find_snapshots,
    load_last,
    load_many,
    load_params,
    load_stacked,
    save_snapshot,
)
from grokjax.training import one_run, population

KEYS = {"embed.W_E": (2, 3), "blocks.0.mlp.b_in": (4,)}


def stacked(runs, step):
    """Parameters that say which run and step they are of."""
    return {
        key: np.stack([np.full(shape, 1000 * run + step + i, np.float32) for run in runs])
        for i, (key, shape) in enumerate(KEYS.items())
    }


def assert_of(params, run, step):
    """These are the parameters of that run at that step."""
    assert params.keys() == KEYS.keys()
    for i, (key, shape) in enumerate(KEYS.items()):
        np.testing.assert_array_equal(params[key], np.full(shape, 1000 * run + step + i, np.float32))
        assert params[key].dtype == np.float32


def save(folder, step, runs):
    save_snapshot(folder / "snapshots", step, runs, stacked(runs, step))


def names(folder):
    return sorted(path.name for path in (folder / "snapshots").iterdir())


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([0], "0"),
        ([0, 1], "0-1"),
        ([0, 1, 2, 5], "0-2.5"),
        ([3, 5, 6, 7, 10, 12, 13], "3.5-7.10.12-13"),
        ([9, 10, 11, 99, 100], "9-11.99-100"),
    ],
)
def test_numbers_in_few_letters(numbers, text, tmp_path):
    assert compact(numbers) == text
    save(tmp_path, 40, numbers)
    (path,) = {place for place, _ in find_snapshots(tmp_path).values()}
    assert path.name == f"step_00000040.runs_{text}"
    assert {key: index for key, (_, index) in find_snapshots(tmp_path).items()} == {
        (run, 40): i for i, run in enumerate(numbers)
    }


def test_nothing_in_no_letters():
    assert compact([]) == ""


def test_what_is_no_snapshots_name_is_none(tmp_path):
    for name in ("step_00000000.runs_0", "step_0000000.runs_0", "step_00000000.runs_0-", "step_00000000.runs_", "0"):
        with files.new_folder(tmp_path / "snapshots" / name) as local:
            local.mkdir(parents=True)
    with files.new_folder(tmp_path / "snapshots" / "step_00000020.runs_5-999999999") as local:
        local.mkdir(parents=True)
    found = find_snapshots(tmp_path)
    assert sorted(found) == sorted([(0, 0), *((5 + i, 20) for i in range(64))])  # a folder holds 64 runs
    assert found[68, 20][1] == 63


# --- many runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "folders"),
    [
        (list(range(64)), ["0-63"]),
        (list(range(65)), ["0-63", "64"]),
        (list(range(130)), ["0-63", "64-127", "128-129"]),
        ([5, *range(10, 75), 80], ["5.10-72", "73-74.80"]),
    ],
)
def test_more_runs_than_a_folder_holds_lie_in_several(runs, folders, tmp_path):
    save(tmp_path, 20, runs)
    assert names(tmp_path) == sorted(f"step_00000020.runs_{text}" for text in folders)
    found = find_snapshots(tmp_path)
    assert sorted(found) == [(run, 20) for run in runs]
    some = [runs[-1], runs[0], runs[-2], runs[1]]
    loaded = load_many(found, 20, some)
    assert loaded.keys() == set(some)
    for run in some:
        assert_of(loaded[run], run, 20)


def test_a_name_that_would_be_too_long_holds_fewer_runs(tmp_path):
    """Each has 6 letters with its dot: of 64 runs halved until they fit into 180 letters 16, of the other 48 24."""
    runs = list(range(10_000, 10_128, 2))
    save(tmp_path, 20, runs)
    found = find_snapshots(tmp_path)
    assert sorted(found) == [(run, 20) for run in runs]
    assert [len(name.split("runs_")[1]) for name in names(tmp_path)] == [16 * 6 - 1, 24 * 6 - 1, 24 * 6 - 1]
    loaded = load_many(found, 20, runs)
    for run in runs:
        assert_of(loaded[run], run, 20)


@pytest.mark.parametrize(("long", "folders"), [(1, 1), (2, 2)])
def test_a_name_may_have_180_letters(long, folders, tmp_path):
    """36 runs, no neighbours, of four digits or five: 4 × 36 + 35 = 179 letters, and one more for each of five."""
    runs = [*range(1000, 1000 + 2 * (36 - long), 2), *range(10_000, 10_000 + 2 * long, 2)]
    save(tmp_path, 20, runs)
    assert len(names(tmp_path)) == folders
    assert sorted(find_snapshots(tmp_path)) == [(run, 20) for run in runs]


def test_a_snapshot_is_saved_once(tmp_path):
    save(tmp_path, 20, [0, 1])
    save_snapshot(tmp_path / "snapshots", 20, [0, 1], stacked([2, 3], 20))
    assert_of(load_params(tmp_path, 1, 20), 1, 20)


# --- runs that end at different steps ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Runs 0 to 3; 1 ends at step 20, 0 and 3 at step 40, 2 at step 100."""
    folder = tmp_path_factory.mktemp("uneven")
    for step, runs in [(0, [0, 1, 2]), (0, [3]), (20, [0, 1, 2, 3]), (40, [3]), (40, [0, 2]), (100, [2])]:
        save(folder, step, runs)
    return folder


def test_each_runs_last_snapshot(uneven):
    last = load_last(uneven, [3, 2, 1, 0], find_snapshots(uneven))
    steps = {3: 40, 2: 100, 1: 20, 0: 40}
    assert last.keys() == steps.keys()
    for run, params in last.items():
        assert_of(params, run, steps[run])


def test_one_run_by_default_at_its_last_step(uneven):
    for run, step in [(0, 40), (1, 20), (2, 100), (3, 40)]:
        assert_of(load_params(uneven, run), run, step)
        assert_of(load_params(uneven, run, 0), run, 0)


def test_each_folder_is_read_once(uneven, monkeypatch):
    read, load = [], load_stacked
    monkeypatch.setattr(snapshots, "load_stacked", lambda path: read.append(path.name) or load(path))
    load_last(uneven, [0, 1, 2, 3], find_snapshots(uneven))
    assert sorted(read) == [
        "step_00000020.runs_0-3",
        "step_00000040.runs_0.2",
        "step_00000040.runs_3",
        "step_00000100.runs_2",
    ]


def test_what_there_is_not_is_said(uneven):
    found = find_snapshots(uneven, runs=[0, 4])
    assert found == {place: at for place, at in find_snapshots(uneven).items() if place[0] == 0}
    with pytest.raises(InputError) as error:
        load_last(uneven, [0, 4], found)
    assert str(error.value) == f"{uneven} has no snapshot of run 4: it has runs 0-3."
    with pytest.raises(InputError) as error:
        load_params(uneven, 9)
    assert str(error.value) == f"{uneven} has no snapshot of run 9: it has runs 0-3."
    with pytest.raises(InputError) as error:
        load_params(uneven, 1, 40)
    assert str(error.value) == f"{uneven} has no snapshot of run 1 at step 40: it has steps 0, 20."
    with pytest.raises(InputError) as error:
        load_params(uneven / "nowhere", 0)
    assert str(error.value) == f"{uneven / 'nowhere'} does not exist."


def test_a_folder_that_holds_fewer_runs_than_its_name_says_is_damaged(tmp_path):
    save(tmp_path, 20, [0, 1])
    (tmp_path / "snapshots" / "step_00000020.runs_0-1").rename(tmp_path / "snapshots" / "step_00000020.runs_0-2")
    found = find_snapshots(tmp_path)
    assert_of(load_many(found, 20, [1])[1], 1, 20)
    with pytest.raises(files.Damaged, match=r"step_00000020\.runs_0-2 holds fewer runs than its name says$"):
        load_many(found, 20, [2])


# --- checkpoints ------------------------------------------------------------------------------------------------------


PROGRESS = dict.fromkeys(("group", "offset", "process", "part", "rows"), 0) | {"runs": [], "steps": []}


def saved(folder, *names, state=None):
    for name in names:
        checkpoints.save(folder / name, state, PROGRESS | {"name": name})


def test_a_checkpoint_is_complete_once_every_process_has_saved_its_part(tmp_path):
    assert checkpoints.checkpoint_name(7) == "000007"
    assert checkpoints.checkpoint_name(7, 1, 2) == "000007.1-of-2"
    saved(tmp_path, "000002", "000010.1-of-2", "000010.0-of-2", "000011.0-of-2", "1000000")
    whole = checkpoints.complete(tmp_path)
    assert [(number, [path.name for path in paths]) for number, paths in whole] == [
        (1_000_000, ["1000000"]),
        (10, ["000010.0-of-2", "000010.1-of-2"]),
        (2, ["000002"]),
    ]
    assert checkpoints.read_progress(tmp_path / "000010.1-of-2") == PROGRESS | {"name": "000010.1-of-2"}


def test_parts_of_another_number_of_processes_are_of_another_checkpoint(tmp_path):
    saved(tmp_path, "000003.0-of-2", "000003.1-of-3", "000003.2-of-3")
    assert checkpoints.complete(tmp_path) == []
    saved(tmp_path, "000003.0-of-3")
    ((_, paths),) = checkpoints.complete(tmp_path)
    assert [path.name for path in paths] == [f"000003.{i}-of-3" for i in range(3)]


def test_the_parts_of_many_processes_are_in_the_order_of_their_numbers(tmp_path):
    for i in range(11):
        with files.new_folder(tmp_path / checkpoints.checkpoint_name(0, i, 11)) as local:
            local.mkdir(parents=True)
    ((_, paths),) = checkpoints.complete(tmp_path)
    assert [path.name for path in paths] == [f"000000.{i}-of-11" for i in range(11)]


def test_a_number_is_given_once(tmp_path):
    assert checkpoints.next_number(tmp_path) == 0
    saved(tmp_path, "000002", "000009.1-of-2")
    assert checkpoints.next_number(tmp_path) == 10  # also after one that is not complete


def test_the_newest_and_the_one_before_are_kept(tmp_path):
    saved(tmp_path, "000000", "000001", "000002.0-of-2", "000003", "000004")
    checkpoints.prune(tmp_path, 3)  # 4 is another's, in the making; 2 is not complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000003", "000004"]
    checkpoints.prune(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004"]


def test_a_state_comes_back(tmp_path):
    problem = sweeps.expand(tiny.get_config()).runs[0].problem()
    blank, rng = population.blank(problem), np.random.default_rng(0)
    leaves, structure = one_run.jax.tree.flatten(blank)
    some = [rng.integers(0, 100, (3, *leaf.shape)).astype(leaf.dtype) for leaf in leaves]
    saved(tmp_path, "000000", state=structure.unflatten(some))
    back = one_run.jax.tree.flatten(checkpoints.load(tmp_path / "000000", blank, 3))
    assert back[1] == structure
    for x, y in zip(back[0], some, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [np.array([1, 2], np.int32)]}


def assert_held(path, note):
    assert orbax.note(path) == note
    found = orbax.load_folder(path, TREE)
    assert jax.tree.structure(found) == jax.tree.structure(TREE)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(TREE), strict=True):
        np.testing.assert_array_equal(mine, theirs, strict=True)


def test_a_folder_holds_one_array_and_no_database(tmp_path):
    """Which TensorStore would keep memory for, as long as the process lives."""
    orbax.save_folder(tmp_path / "one", TREE, {"n": 1})
    assert_held(tmp_path / "one", {"n": 1})
    names = [path.name for path in (tmp_path / "one").rglob("*")]
    assert names.count("zarr.json") == 1
    assert not [name for name in names if "ocdbt" in name]


@pytest.mark.parametrize("is_packed", [False, True])
def test_folders_of_earlier_versions_open(is_packed, tmp_path):
    """Each array by itself, or all as one, in a database."""
    packed, arrays = orbax._packed(TREE)
    note = {orbax.ARRAYS: arrays, "note": {"n": 1}} if is_packed else {"n": 1}
    with files.new_folder(tmp_path / "old", note) as place:
        ocp.save(place.absolute(), {orbax.PACKED: packed} if is_packed else TREE)
    assert list((tmp_path / "old").rglob("*ocdbt*"))
    assert_held(tmp_path / "old", {"n": 1})
