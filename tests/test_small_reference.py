"""The project's own reference model, which is always at hand: a model that adds modulo 53 and has just grokked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import make_small_reference
import numpy as np
import pytest

from grokjax.interp import measure
from grokjax.measures.registry import MEASURES

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
