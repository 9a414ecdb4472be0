"""Trajectories: files and folders of many checkpoints become a metrics table, and one is named by its step."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from cases import random_case
from commands import assert_refused, call
from foreign import SHAPE, released

import grokjax
from grokjax import phases
from grokjax.cli import circuit as circuit_command
from grokjax.cli import figure as figure_command
from grokjax.cli import measure as measure_command
from grokjax.cli import phases as phases_command
from grokjax.cli import report as report_command
from grokjax.errors import InputError
from grokjax.interp import files, trajectory, trajectory_table
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.interp.measure import measure
from grokjax.interp.trajectory import UNNUMBERED

STEPS = (0, 100, 20, 40, 60)  # not in order; one more than are evaluated together
PAIRS = list(range(15))


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


@pytest.fixture(scope="module")
def states(case):
    """Parameters by step."""
    return {step: {name: x * np.float32(1 + step / 50) for name, x in case.params.items()} for step in STEPS}


@pytest.fixture
def folder(tmp_path, case, states):
    """A folder of npz files, with their split."""
    place = tmp_path / "run"
    place.mkdir()
    for step, params in states.items():
        files.save_npz(params, case.cfg, place / f"seed1_step{step}.npz", case.train_pairs)
    return place


def tensors(torch, arrays):
    return {name: torch.tensor(np.array(x)) for name, x in arrays.items()}


@pytest.fixture
def demo(tmp_path, torch, states):
    """A file as TransformerLens's demo of grokking saves it."""
    path = tmp_path / "demo.pth"
    held = [tensors(torch, states[step]) for step in STEPS]
    content = {"model": held[-1], "checkpoints": held, "checkpoint_epochs": list(STEPS), "config": {"act_fn": "relu"}}
    content |= {"train_indices": torch.tensor(PAIRS), "train_losses": [2.0, 1.0, 0.5], "test_losses": [2.0, 3.0, 1.0]}
    torch.save(content, path)
    return path


@pytest.mark.long
def test_the_demos_file_becomes_a_table_that_phases_report_and_figure_read(demo, tmp_path, capsys):
    out = tmp_path / "metrics.parquet"
    status, said, _ = call(capsys, measure_command.main, str(demo), "--all", f"--out={out}")
    assert status == 0
    assert f"5 checkpoints, of steps 0 to 100; written: pandas.read_parquet('{out}')" in said
    assert f"grokjax phases {out}, grokjax report {out}" in said
    found = pd.read_parquet(out)
    assert found["step"].tolist() == sorted(STEPS)
    assert set(found["run"]) == {0}
    for step, row in zip(found["step"], found.to_dict("records"), strict=True):
        alone = measure(f"{demo}:{step}", groups=["paper"])
        for column in ("train_loss", "test_loss", "gini_W_L", "sum_sq_weights"):
            np.testing.assert_allclose(row[column], alone[column], rtol=1e-5)
        np.testing.assert_allclose(row["restricted_loss_online"], alone["restricted_loss"], rtol=1e-5)
    keys = measure(f"{demo}:100", groups=["paper"])["key_freqs"]
    first = measure(f"{demo}:0", keys=keys, groups=["paper"])
    np.testing.assert_allclose(found["restricted_loss"][0], first["restricted_loss"], rtol=1e-5)
    assert call(capsys, phases_command.main, str(out))[1].startswith("run 0:")
    assert call(capsys, report_command.main, str(out))[1] == f"written: {tmp_path / 'metrics.report' / 'index.html'}\n"
    page = (tmp_path / "metrics.report" / "index.html").read_text()
    for text in ("1 run of add mod 7", "the last is", "15 pairs to train on (train_indices in the file)", out.name):
        assert text in page
    assert call(capsys, figure_command.main, str(out), f"--out={tmp_path / 'losses.svg'}")[0] == 0


@pytest.mark.long
def test_the_tables_columns_are_a_sweeps_and_it_says_what_it_is(folder, states):
    table = trajectory_table.measure_all(trajectory.find(folder), groups=["paper", "stability"])
    described = table.schema.field("test_loss").metadata
    assert described[b"unit"] == b"nats"
    said = trajectory_table.about(table)
    assert said["measured"]["model"] == f"{folder}:100"
    assert said["measured"]["split"] == "train_mask in the file"
    assert said["key_freqs"] == measure(f"{folder}:100", groups=["paper"])["key_freqs"]
    assert set(table["p"].to_pylist()) == {7}
    assert table["softmax_collapse"].null_count == 0
    assert not [name for name in table.column_names if "update" in name]  # the optimizer's state is unknown


def test_from_python_it_is_a_data_frame(folder, states, case):
    found = grokjax.measure(folder, all=True, groups=["losses"])
    assert found["step"].tolist() == sorted(STEPS)
    assert found.attrs["measured"]["task"] == "add"
    assert len(phases.find_phases(found)) == 1
    held = {step: {**params, "train_indices": case.train_pairs} for step, params in states.items()}
    again = grokjax.measure(held, all=True, groups=["losses"])
    pd.testing.assert_frame_equal(found, again)
    with pytest.raises(InputError, match="a file, a folder or a list of checkpoints is expected"):
        grokjax.measure(case.params, all=True)


SHAPES = {
    "state_dicts with epochs": lambda many: ({"state_dicts": many, "epochs": list(STEPS)}, ()),
    "epochs as a range": lambda many: ({"state_dicts": many, "epochs": range(0, 500, 100)}, ()),
    "a dict by step": lambda many: ({"checkpoints": dict(zip(map(str, STEPS), many, strict=True))}, ()),
    "nothing but a dict by step": lambda many: (dict(zip(STEPS, many, strict=True)), ()),
    "a list with steps": lambda many: ([{"net": w, "epoch": n} for n, w in zip(STEPS, many, strict=True)], ()),
    "no steps": lambda many: ({"state_dicts": many, "epochs": list(range(50))}, (UNNUMBERED,)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_many_checkpoints_in_a_file(shape, tmp_path, torch, states):
    many = [tensors(torch, released(states[step])) for step in STEPS]
    content, notes = SHAPES[shape](many)
    torch.save(content, tmp_path / "many.pth")
    found = trajectory.find(tmp_path / "many.pth")
    wanted = {"epochs as a range": [0, 100, 200, 300, 400], "no steps": [0, 1, 2, 3, 4]}.get(shape, sorted(STEPS))
    assert list(found.held) == wanted
    assert found.notes == notes
    last = load_checkpoint(f"{tmp_path / 'many.pth'}:{wanted[-1]}")
    step = STEPS[-1] if wanted[-1] in (4, 400) else 100
    np.testing.assert_array_equal(last.params["embed.W_E"], states[step]["embed.W_E"])
    assert last.notes[: len(notes)] == notes


def test_files_of_every_kind_lie_in_a_folder(tmp_path, torch, case, states):
    files.save_npz(states[0], case.cfg, tmp_path / "model-0.npz")
    files.save_torch(states[20], case.cfg, tmp_path / "epoch=3-step=20.ckpt")
    files.save_safetensors(states[40], case.cfg, tmp_path / "40.safetensors")
    files.save_torch(states[60], case.cfg, tmp_path / "best.pth")
    (tmp_path / "log_50.txt").write_text("50")
    found = trajectory.find(tmp_path)
    assert list(found.held) == [0, 20, 40]
    assert found.notes == ("without a step in their names, and passed over: best.pth",)
    for step in (0, 20, 40):
        read = load_checkpoint(f"{tmp_path}:{step}")
        np.testing.assert_array_equal(read.params["embed.W_E"], states[step]["embed.W_E"])


def test_one_checkpoint_is_named_by_its_step(demo, states, capsys):
    found = load_checkpoint(f"{demo}:20")
    np.testing.assert_array_equal(found.params["embed.W_E"], states[20]["embed.W_E"])
    assert found.train_pairs.tolist() == PAIRS
    np.testing.assert_array_equal(load_checkpoint(demo).params["embed.W_E"], states[STEPS[-1]]["embed.W_E"])
    assert "claim" in call(capsys, circuit_command.main, f"{demo}:20")[1]


def test_what_holds_many_says_so_where_one_is_asked_for(folder, tmp_path, torch, states, capsys):
    torch.save({"state_dicts": [tensors(torch, states[0])], "epochs": [30]}, tmp_path / "full.pth")
    for path, said in (
        (folder, "5 checkpoints, of steps 0 to 100"),
        (tmp_path / "full.pth", "one checkpoint: name one, such as"),
    ):
        for command in (measure_command, circuit_command):
            assert_refused(call(capsys, command.main, str(path)), said)
    with pytest.raises(InputError, match="no checkpoint of step 30: the nearest are 20 and 40"):
        load_checkpoint(f"{folder}:30")
    with pytest.raises(InputError, match="no checkpoint of step 9: only 30 is there"):
        load_checkpoint(f"{tmp_path / 'full.pth'}:9")


def test_a_table_that_is_there_is_kept_unless_its_to_go(folder, tmp_path, capsys):
    out = tmp_path / "metrics.parquet"
    args = [str(folder), "--all", "--measures=losses", f"--out={out}"]
    out.write_text("precious")
    assert_refused(call(capsys, measure_command.main, *args), "exists: choose another name, or --overwrite")
    assert out.read_text() == "precious"
    status, said, _ = call(capsys, measure_command.main, *args, "--overwrite", "--json")
    assert (status, json.loads(said)["steps"]) == (0, sorted(STEPS))
    assert json.loads(said)["file"] == str(out)
    assert pq.read_table(out).num_rows == len(STEPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.parquet", "run"]


MISTAKES = {
    "no table": (["run", "--all"], "--all makes a table: give --out=FILE.parquet"),
    "no such folder": (["run", "--all", "--out=nowhere/x.parquet"], "nowhere is no directory"),
    "a directory": (["run", "--all", "--out=dir.parquet"], "exists: choose another name."),
    "overwrite alone": (["run:0", "--overwrite"], "--overwrite goes with --all"),
    "nothing there": (["none", "--all", "--out=x.parquet"], "none is no file and no folder"),
    "one model": (
        ["run/seed1_step0.npz", "--all", "--out=x.parquet"],
        "no file of many checkpoints: a list of them is expected under",
    ),
    "no files": (["empty", "--all", "--out=x.parquet"], "no model files with steps in their names"),
    "heads": (["run", "--all", "--out=x.parquet", "--heads=0"], "--heads is 0"),
    "group": (["run", "--all", "--out=x.parquet", "--measures=papr"], "papr"),
    "task": (["run", "--all", "--out=x.parquet", "--task=ad"], "'ad' is unknown"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir.parquet").mkdir()
    (tmp_path / "empty").mkdir()
    args, sentence = MISTAKES[mistake]
    assert_refused(call(capsys, measure_command.main, *args), sentence)
    assert not (tmp_path / "x.parquet").exists()


def test_a_checkpoint_that_cannot_be_read_or_is_of_another_run_is_named_before_any_is_measured(folder, case, states):
    broken = folder / "seed1_step40.npz"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(InputError, match=r"seed1_step40\.npz"):
        trajectory_table.measure_all(trajectory.find(folder))
    files.save_npz(states[40], case.cfg, broken, case.train_pairs[1:])
    with pytest.raises(InputError, match=r":40 has another split than .*:100"):
        trajectory_table.measure_all(trajectory.find(folder))
    other = random_case(**{**SHAPE, "d_mlp": 6})
    files.save_npz(other.params, other.cfg, broken, case.train_pairs)
    with pytest.raises(InputError, match=r":40 has another shape than .*:100"):
        trajectory_table.measure_all(trajectory.find(folder))
    files.save_npz(states[40], case.cfg, folder / "copy_40.npz")
    with pytest.raises(InputError, match=r"two files of step 40, copy_40\.npz and seed1_step40\.npz"):
        trajectory.find(folder)


def test_a_pipe_in_place_of_a_file_is_told(folder):
    broken = folder / "seed1_step40.npz"
    broken.unlink()
    os.mkfifo(broken)
    with pytest.raises(InputError, match=r"seed1_step40\.npz is no file"):
        trajectory_table.measure_all(trajectory.find(folder))


def test_the_split_must_be_known(tmp_path, case, states):
    for step, params in states.items():
        files.save_npz(params, case.cfg, tmp_path / f"{step}.npz")
    found = trajectory.find(tmp_path)
    with pytest.raises(InputError, match="does not tell the split: give --split"):
        trajectory_table.measure_all(found, groups=["losses"])
    assert trajectory_table.measure_all(found, split="python:0:0.3", groups=["losses"])["test_loss"].null_count == 0
    assert trajectory_table.measure_all(found, split="all", groups=["losses"])["test_loss"].null_count == len(STEPS)


DAMAGED = {
    "no list": ({"checkpoints": 3}, "a list of state dicts is expected"),
    "nothing in it": ({"state_dicts": []}, "a list of state dicts is expected"),
    "a step twice": (
        {"checkpoints": [{}, {}], "checkpoint_epochs": [5, 5]},
        "step 5, of 'checkpoint_epochs', is there",
    ),
    "a half step": ({"checkpoints": [{}], "epochs": [0.5]}, "step 0.5, of 'epochs', is no whole number"),
    "a step below 0": ({"checkpoints": {-1: {}}}, "step -1, of its keys, is no whole number"),
    "a huge step": ({"checkpoints": [{}], "steps": [2**40]}, "is no whole number from 0 to 2147483647"),
    "words for steps": ({"checkpoints": {"first": {}}}, "is no whole number"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_list_of_checkpoints_is_one_sentence(damage):
    held, sentence = DAMAGED[damage]
    with pytest.raises(InputError, match=sentence):
        trajectory.within("run.pth", held)


def test_an_entry_that_is_no_state_dict_is_named_by_its_step(tmp_path, torch, states):
    held = [tensors(torch, states[0]), 7]
    torch.save({"checkpoints": held, "epochs": [0, 10], "train_indices": torch.tensor(PAIRS)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth:10: 'model' is a int, but a state dict is expected"):
        trajectory_table.measure_all(trajectory.find(tmp_path / "a.pth"))
