"""The project's own reference model, which is always at hand: a model that adds modulo 53 and has just grokked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import make_small_reference
import numpy as np
import oracle
import oracle_later
import pytest
from cases import QUICK, Case
from foreign import equal, released

from grokjax import tasks
from grokjax.interp import measure
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.measures.registry import MEASURES
from grokjax.measures.shared import KEY_RULES, Shared

MODEL = make_small_reference.FILES.with_suffix(".npz")
LISTED = json.loads(make_small_reference.FILES.with_suffix(".json").read_text())
GROUPS = ("losses", "paper")
ROOT = Path(__file__).parent.parent


def compare(found, loss, other):
    """Every listed value to a relative tolerance, of a list's largest; counts and sets exactly."""
    for name, expected in LISTED.items():
        if MEASURES[name].dtype == "float":
            tolerance = loss if "loss" in name else other
            atol = tolerance * np.max(np.abs(expected)) if name == "trig_coef_all" else 0
            np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=atol, err_msg=name)
        else:
            assert found[name] == pytest.approx(expected, rel=1e-11), name


def test_in_float32():
    found = measure.measure(MODEL, groups=GROUPS)
    assert found["measured"]["computed_in"] == "float32"
    compare(found, loss=1e-5, other=1e-5)


def test_in_float64(tmp_path):
    """In a process of its own: JAX takes its widest float when it starts. The list has 12 digits."""
    out = tmp_path / "measures.json"
    command = [sys.executable, "-m", "grokjax", "measure", str(MODEL), f"--measures={','.join(GROUPS)}", f"--out={out}"]
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    found = json.loads(out.read_text())
    assert found["measured"]["computed_in"] == "float64"
    compare(found, loss=1e-10, other=1e-10)


def test_the_list_is_what_the_definitions_say():
    again = make_small_reference.values()
    assert again.keys() == LISTED.keys()
    for name, value in again.items():
        np.testing.assert_allclose(value, LISTED[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_model_is_in_the_middle_of_something():
    """Losses far apart, some far below float32's resolution near 1, and a circuit of few keys."""
    assert LISTED["train_loss"] < 1e-6 < 1e-4 < LISTED["test_loss"]
    assert LISTED["restricted_loss"] < LISTED["train_loss"] < 1 < LISTED["excluded_loss"]
    assert LISTED["key_freqs"] == [1, 18, 22]


def test_its_pairs_are_those_of_its_seed():
    pairs = load_checkpoint(MODEL).train_pairs
    np.testing.assert_array_equal(pairs, tasks.train_pairs(53, 0.4, 0))
    assert len(pairs) == 1_123


def test_in_the_layout_of_the_paper_s_file(tmp_path):
    """The same model as the released code would have saved it, with its axes turned and a logit for "="."""
    own = load_checkpoint(MODEL)
    np.savez(tmp_path / "paper.npz", train_indices=own.train_pairs, **released(own.params))
    read = load_checkpoint(tmp_path / "paper.npz")
    assert read.cfg == own.cfg
    equal(read.params, own.params)
    np.testing.assert_array_equal(read.train_pairs, own.train_pairs)
    assert read.notes[:1] == ("the column of '=' in W_U was dropped",)
    assert read.split == "train_indices in the file"
    found = measure.measure(tmp_path / "paper.npz", groups=("losses",))
    for name in ("train_loss", "test_loss", "train_acc", "test_acc"):
        assert found[name] == pytest.approx(LISTED[name], rel=1e-5), name


def test_every_rule_for_keys_finds_what_its_definition_finds():
    own = load_checkpoint(MODEL)
    case = Case(own.cfg, "add", own.params, own.train_pairs, tasks.answers("add", 53))

    def compute(params):
        s = Shared(case.cfg, 1, params, case.train_pairs, case.answers)
        return {rule: s.keys_by(rule) for rule in KEY_RULES}, MEASURES["trig_share"].function(s)

    found, share = jax.jit(compute, compiler_options=QUICK)(own.params)
    params = {name: x.astype(np.float64) for name, x in own.params.items()}
    logits, acts = oracle.forward(params, np.arange(53**2))
    expected = oracle_later.key_sets(params, logits, oracle_later.neuron_shares(acts))
    assert {rule: set((np.flatnonzero(mask) + 1).tolist()) for rule, mask in found.items()} == expected
    assert expected["W_E"] == expected["neurons"] == {1, 18, 22}
    assert float(share) == pytest.approx(oracle_later.trig_share(logits), rel=1e-4)
