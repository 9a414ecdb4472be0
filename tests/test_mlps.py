"""MLPs from files and snapshots: ours and the released code's names, back and forth; what does not fit is named."""

import contextlib
import functools
import io

import jax
import numpy as np
import oracle
import oracle_mlp
import pytest
import test_mlp
import tiny
from commands import assert_refused, call

import grokjax
from grokjax.cli import circuit, export
from grokjax.core import model
from grokjax.errors import InputError
from grokjax.interp import files, mlps
from grokjax.interp.checkpoint import ASSUMED_ACT, from_arrays, load_checkpoint

P = test_mlp.P


def drawn(**shape):
    """An MLP's shape and parameters in float32, with heads that count for nothing."""
    cfg = test_mlp.config_of(**shape)
    params, _ = test_mlp.drawn(cfg)
    return cfg, {name: x.astype(np.float32) for name, x in params.items()}


def released(params):
    """As the code of Chughtai et al. 2023 holds them."""
    short = {"embed.W_E": "W_x", "embed_b.W_E": "W_y", "blocks.0.mlp.W_in": "W", "unembed.W_U": "W_U"}
    return {short[name]: x for name, x in params.items()}


@pytest.mark.parametrize("shape", test_mlp.SHAPES.values(), ids=test_mlp.SHAPES)
def test_its_shape_is_read_from_its_arrays(shape):
    cfg, params = drawn(**shape)
    for arrays in (params, {f"_orig_mod.net.{name}": x for name, x in params.items()}):
        read = from_arrays(arrays, act=cfg.act)
        assert read.cfg.is_mlp
        assert model.shapes(read.cfg) == model.shapes(cfg)
        assert (read.cfg.inputs, read.cfg.embeddings, read.cfg.act) == (cfg.inputs, cfg.embeddings, cfg.act)
        jax.tree.map(np.testing.assert_array_equal, read.params, params)
    assert read.notes == ("the prefix '_orig_mod.net.' was dropped from the names",)


def test_the_released_code_s_names_are_known(tmp_path):
    _, params = drawn()
    np.savez(tmp_path / "released.npz", **released(params))
    read = load_checkpoint(tmp_path / "released.npz")
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    assert (read.format, read.cfg.inputs, read.cfg.embeddings) == (
        "Chughtai et al. 2023's released MLP",
        "concatenated",
        "separate",
    )
    with pytest.warns(UserWarning, match="hardly better than a guess"):
        found = grokjax.measure(read, task="group Z_7", groups=["paper"])
    both = np.concatenate([params["embed.W_E"], params["embed_b.W_E"]], 1)
    np.testing.assert_allclose(found["freq_norm_W_E"], oracle.fourier_norms(both)[1], rtol=1e-5)
    np.testing.assert_allclose(found["sum_sq_W_U"], np.sum(params["unembed.W_U"] ** 2), rtol=1e-5)
    assert found["null"]["sum_sq_W_pos"] == "the model has no W_pos"


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return functools.partial(call, capsys, export.main)


@pytest.mark.parametrize("shape", test_mlp.SHAPES.values(), ids=test_mlp.SHAPES)
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz"])
def test_exports_read_back_and_run_as_they_say(run, torch, shape, name):
    cfg, params = drawn(**shape)
    files.save_npz(params, cfg, "mine.npz", np.arange(9))
    status, said, err = run("mine.npz", name, f"--act={cfg.act}")
    assert (status, err) == (0, f"written: {name}\n")
    read = load_checkpoint(name)
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    assert read.cfg.act == cfg.act
    assert read.train_pairs.tolist() == list(range(9))
    if name.endswith(".npz"):
        return
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(said, names)
    expected, _, _ = oracle_mlp.forward(params, 1, 2, cfg.act, cfg.inputs)
    np.testing.assert_allclose(names["logits"], expected, rtol=1e-4, atol=1e-5)


def test_mistakes_are_one_sentence(run, capsys):
    cfg, params = drawn()
    files.save_npz(params, cfg, "mine.npz")
    assert_refused(run("mine.npz", "out.pth", "--bridge"), "mine.npz is an MLP, of which TransformerLens has none")
    status, said, _ = call(capsys, circuit.main, "mine.npz")
    assert status == 0
    assert "left out, since the model is not one layer as the paper has it: attention_to_equals" in said


MISTAKES = {
    "a shape": ({"unembed.W_U": np.zeros((5, P), "f")}, r"unembed\.W_U has shape \[5, 7\], but \[6, 7\] is expected"),
    "inputs": ({"blocks.0.mlp.W_in": np.zeros((9, 6), "f")}, r"W_in has shape \[9, 6\], but \[10, 6\] is expected"),
    "a bias": (
        {"blocks.0.mlp.b_in": np.zeros((6, 1), "f")},
        r"blocks\.0\.mlp\.b_in is float32\[6, 1\], but it must be a vector",
    ),
    "integers": (
        {"embed.W_E": np.zeros((P, 5), int)},
        r"embed\.W_E is int64\[7, 5\], but it must be a matrix of floats",
    ),
    "numbers": ({"embed.W_E": np.full((P, 5), np.nan)}, r"embed\.W_E has numbers that are not finite"),
    "tokens": ({"embed.W_E": np.zeros((2, 5), "f")}, r"embed\.W_E has 2 tokens, so that P is 2, but it must be from 3"),
    "a layer": ({"blocks.2.mlp.W_in": np.zeros((6, 6), "f")}, r"has no array blocks\.1\.mlp\.W_in \[6, 6\]"),
    "a stranger": ({"extra.W": np.zeros((6, 6), "f")}, r"has an array extra\.W, which is no part of grokjax's MLP"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_is_named(name):
    change, sentence = MISTAKES[name]
    with pytest.raises(InputError, match=sentence):
        from_arrays(drawn()[1] | change)


def test_transformers_are_none():
    cfg = model.ModelConfig(p=P, d_model=4, n_heads=2, d_mlp=6)
    arrays = {name: np.zeros(shape, "f") for name, shape in model.shapes(cfg).items()}
    assert not mlps.fits(arrays)
    assert not from_arrays(arrays).cfg.is_mlp


def test_a_snapshot_is_the_run_s_and_an_export_of_it_knows_its_task(tmp_path, run):
    c = test_mlp.mlp_config()
    c.sweep.seed, c.measures, c.model.act = (3,), (), "gelu"
    assert tiny.train(c, tmp_path / "sweep")[0] == 0
    read = load_checkpoint(f"{tmp_path / 'sweep'}:0:40")
    assert (read.cfg.is_mlp, read.cfg.act, read.task, len(read.train_pairs)) == (True, "gelu", "group S_3", 28)
    status, _, err = run(f"{tmp_path / 'sweep'}:0:40", "mine.npz")
    assert (status, err) == (0, "written: mine.npz\n")
    again = load_checkpoint("mine.npz")
    assert (again.task, again.cfg) == ("group S_3", read.cfg)
    assert ASSUMED_ACT not in again.notes
    one, other = (grokjax.measure(checkpoint, groups=["losses"]) for checkpoint in (read, again))
    assert one["test_loss"] == other["test_loss"]
