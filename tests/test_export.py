"""`grokjax.export`: what it writes and prints; a mistake is one sentence."""

import functools

import numpy as np
import pytest
from cases import random_case
from commands import assert_refused, call
from foreign import SHAPE, H, equal

from grokjax.cli import export
from grokjax.interp import files
from grokjax.interp.checkpoint import ASSUMED_ACT, load_checkpoint


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


@pytest.fixture
def run(tmp_path, case, capsys, monkeypatch):
    """The command in this process, with a model at model.npz."""
    monkeypatch.chdir(tmp_path)
    files.save_npz(case.params, case.cfg, "model.npz", case.train_pairs)
    return functools.partial(call, capsys, export.main)


def test_export_and_back(run, torch, case):
    for args in (("lens.pth",), ("bridge.pth", "--bridge"), ("arrays.npz",), ("arrays", "--npz")):
        status, out, err = run("model.npz", *args)
        assert (status, err) == (0, f"note: {ASSUMED_ACT}.\nwritten: {args[0]}\n")
        assert f"load('{args[0]}'" in out
        read = load_checkpoint(args[0], n_heads=H)
        equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, case.train_pairs)
    status, _, _ = run("lens.pth", "again.pth", "--act=gelu")
    assert status == 0


def test_what_export_prints_describes_the_model(run, torch, case):
    _, out, _ = run("model.npz", "lens.pth", "--act=gelu")
    for part in ("n_layers=1", "d_vocab=8", "d_vocab_out=7", "n_ctx=3", "act_fn='gelu'", "normalization_type=None"):
        assert part in out
    compile(out, "recipe", "exec")


EXPORT_MISTAKES = {
    "no model": (["nowhere.npz", "out.npz"], "nowhere.npz is no file"),
    "no place": (["model.npz", "nowhere/out.npz"], "nowhere/out.npz cannot be written (No such file or directory)"),
    "exists": (["model.npz", "model.npz"], "model.npz exists: choose another name, or --overwrite"),
    "a directory": (["model.npz", "."], "exists: choose another name."),
    "both": (["model.npz", "out.npz", "--bridge"], "--bridge is for PyTorch files"),
    "heads": (["model.npz", "out.npz", "--heads=0"], "--heads is 0, but it must be 1 or more"),
    "act": (["model.npz", "out.npz", "--act=tanh"], "--act 'tanh' is unknown"),
    "arguments": (["model.npz"], "required: out"),
    "flag": (["model.npz", "out.npz", "--bridg3"], "--bridg3"),
}


@pytest.mark.parametrize("name", EXPORT_MISTAKES)
def test_export_mistakes_are_one_sentence(run, tmp_path, name):
    args, sentence = EXPORT_MISTAKES[name]
    before = sorted(tmp_path.iterdir())
    assert_refused(run(*args), sentence)
    assert sorted(tmp_path.iterdir()) == before
