"""Trajectories: files and folders of many checkpoints become a metrics table."""

import numpy as np
import pandas as pd
import pytest

from grokjax.cli import measure as measure_command
from grokjax.cli import phases as phases_command
from grokjax.errors import InputError
from grokjax.interp import trajectory
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.interp.measure import measure

torch = pytest.importorskip("torch")
P, STEPS = 7, (0, 100, 20)


def state(seed: int) -> dict:
    draw = np.random.default_rng(seed)
    shapes = {"embed.W_E": (P + 1, 8), "pos_embed.W_pos": (3, 8), "unembed.W_U": (8, P)}
    shapes |= {f"blocks.0.attn.W_{x}": (2, 8, 4) for x in "QKV"} | {"blocks.0.attn.W_O": (2, 4, 8)}
    mlp = {"W_in": (8, 16), "b_in": (16,), "W_out": (16, 8), "b_out": (8,)}
    shapes |= {f"blocks.0.mlp.{name}": shape for name, shape in mlp.items()}
    return {name: torch.tensor(draw.normal(size=shape), dtype=torch.float32) for name, shape in shapes.items()}


@pytest.fixture
def demo(tmp_path):
    path = tmp_path / "demo.pth"
    states = [state(step) for step in STEPS]
    content = {"model": states[-1], "checkpoints": states, "checkpoint_epochs": list(STEPS)}
    content |= {"train_indices": torch.arange(15), "test_indices": torch.arange(15, 49), "config": {"act_fn": "relu"}}
    torch.save(content, path)
    return path


def test_the_demos_file_becomes_a_table_that_phases_reads(demo, tmp_path, capsys):
    out = tmp_path / "metrics.parquet"
    measure_command.main([str(demo), "--all", f"--out={out}", "--measures=paper"])
    found = pd.read_parquet(out)
    assert found["step"].tolist() == sorted(STEPS)
    assert set(found["run"]) == {0}
    for step in STEPS:
        alone = measure(trajectory.entry(demo, step), groups=["paper"])
        row = found[found["step"] == step].iloc[0]
        np.testing.assert_allclose(row["test_loss"], alone["test_loss"], rtol=1e-5)
        np.testing.assert_allclose(row["restricted_loss_online"], alone["restricted_loss"], rtol=1e-5)
    keys = measure(trajectory.entry(demo, 100), groups=["paper"])["key_freqs"]
    last = measure(trajectory.entry(demo, 0), keys=keys, groups=["paper"])
    np.testing.assert_allclose(found["restricted_loss"][0], last["restricted_loss"], rtol=1e-5)
    phases_command.main([str(out)])
    assert "memorised" in capsys.readouterr().out


def test_state_dicts_with_epochs_and_folders_are_read_in_order_of_step(tmp_path):
    torch.save({"state_dicts": [state(s) for s in STEPS], "epochs": list(STEPS)}, tmp_path / "full.pth")
    assert list(trajectory.entries(tmp_path / "full.pth")) == sorted(STEPS)
    folder = tmp_path / "folder"
    folder.mkdir()
    for step in STEPS:
        torch.save(state(step), folder / f"model_{step}.pth")
    assert list(trajectory.entries(folder)) == sorted(STEPS)
    table = trajectory.measure_all(folder, split="python:0:0.3", groups=["losses"])
    assert table["step"].to_pylist() == sorted(STEPS)
    with pytest.raises(InputError, match="--split"):
        trajectory.measure_all(folder, groups=["losses"])


def test_a_step_that_is_not_there_names_the_nearest(demo):
    with pytest.raises(InputError, match="no checkpoint of step 30: the nearest are 0 and 20"):
        trajectory.entry(demo, 30)


def test_one_checkpoint_is_named_by_its_step(demo):
    found = load_checkpoint(f"{demo}:20")
    np.testing.assert_array_equal(found.params["embed.W_E"], state(20)["embed.W_E"].numpy())
    assert found.train_pairs.tolist() == list(range(15))


def test_phases_reads_curves_without_a_model_and_epochs(tmp_path):
    losses = {"train_losses": [2.0, 1.0, 0.5], "test_losses": [2.0, 3.0, 1.0]}
    torch.save(losses, tmp_path / "curves.pth")
    frame = pd.DataFrame({"epoch": range(3), "train_loss": losses["train_losses"], "test_loss": losses["test_losses"]})
    frame.to_csv(tmp_path / "curves.csv", index=False)
    frame.to_json(tmp_path / "curves.jsonl", orient="records", lines=True)
    for name in ("curves.pth", "curves.csv", "curves.jsonl"):
        found = phases_command.read(str(tmp_path / name))
        assert found["step"].tolist() == [0, 1, 2]
        assert found["test_loss"].tolist() == losses["test_losses"]
