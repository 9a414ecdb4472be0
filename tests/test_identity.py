"""Identities of runs: the same for what trains the same weights, another for anything else, and for good."""

import shutil

import numpy as np
import pytest
import tiny

from grokjax import config, sweeps, tasks
from grokjax.config import FIELDS, SETTING
from grokjax.identity import NAMED, identity, needs_answers
from grokjax.store import files
from grokjax.store.metrics import read_part, read_runs

# Of directories that are there: no version may have others for them.
KNOWN = {
    "7f252ba76e82c50f": {},
    "50438a66b27b70ff": {"seed": 3, "weight_decay": 0.3},
    "9af83de695c0a304": {"task": "subtract", "p": 53, "split_seed": 7, "stop_loss": 0.01},
    "6b8d457da3c7af3c": {"task": "group", "group": "S_4", "p": 24, "model.n_layers": 2},
    "add2c916782ae9d3": {"task": "a^2 + a*b", "optimizer": "sgd"},
}
OTHERS = {  # a value that differs from the default, of each field that weights depend on
    "task": "subtract",
    "group": "S_4",
    "p": 97,
    "train_fraction": 0.4,
    "split": "python",
    "seed": 1,
    "split_seed": 1,
    "init_scale": 0.5,
    "model.n_layers": 2,
    "model.d_model": 64,
    "model.n_heads": 2,
    "model.d_mlp": 64,
    "model.act": "gelu",
    "optimizer": "sgd",
    "learning_rate": 1e-2,
    "weight_decay": 0.3,
    "beta1": 0.8,
    "beta2": 0.9,
    "eps": 1e-7,
    "warmup_steps": 0,
    "stop_loss": 0.1,
    "precision": "bfloat16",
}


@pytest.mark.parametrize(("known", "values"), KNOWN.items())
def test_no_version_changes_an_identity(known, values):
    assert identity(values) == known


@pytest.mark.parametrize("path", OTHERS)
def test_what_weights_depend_on_counts(path):
    assert identity({path: OTHERS[path]}) != identity({})
    assert identity({path: FIELDS[path].default}) == identity({})


def test_all_are_told_apart():
    assert len({identity({path: value}) for path, value in OTHERS.items()}) == len(OTHERS)


def test_every_field_is_one_or_the_other():
    idle = {path for path, field in FIELDS.items() if field.kind == SETTING} | {"steps", "stop_evals", "eval_every"}
    defaults = {path: FIELDS[path].default for path in FIELDS}
    for path in idle:
        other = ("always",) if FIELDS[path].type is tuple else "W_E" if FIELDS[path].type is str else 1
        assert identity(defaults | {path: other}) == identity({}), path


def test_a_stop_rule_counts_with_its_evaluations():
    rule = {"stop_loss": 0.1}
    assert len({identity(rule | more) for more in ({}, {"stop_evals": 2}, {"eval_every": 50})}) == 3
    assert identity({"stop_evals": 2, "eval_every": 50}) == identity({})


def test_values_that_come_to_the_same_are_the_same():
    assert identity({"seed": 4, "split_seed": 4}) == identity({"seed": 4, "split_seed": None}) == identity({"seed": 4})
    assert identity({"weight_decay": 0.1}) == identity({"weight_decay": float(np.float32(0.1))})
    assert identity({"learning_rate": -0.0}) == identity({"learning_rate": 0.0})
    table = {"task": "group", "p": 6}
    assert identity(table | {"group": "a.npy@12ab"}) == identity(table | {"group": "b/a.npy@12ab"})
    assert identity(table | {"group": "a.npy@12ab"}) != identity(table | {"group": "a.npy@12ac"})


def test_own_tasks_are_known_by_their_answers(monkeypatch):
    assert {name for name in tasks.TASKS if not needs_answers({"task": name})} <= NAMED
    assert NAMED - {"group"} <= {
        name for name, task in tasks.TASKS.items() if task.function.__module__ == tasks.__name__
    }
    own = {"task": "a_plus_two_b", "p": 7}
    assert identity(own) is None
    assert identity(own, "00ff") != identity(own, "00fe")
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    tasks.register(lambda a, b, p: a + 2 * b, name="a_plus_two_b")
    c = config.small()
    c.task, c.p = "a_plus_two_b", 7
    (run,) = sweeps.expand(c).runs
    assert run.identity == identity(run.values, tasks.fingerprint("a_plus_two_b", 7))


def test_a_polynomial_is_known_by_its_name():
    assert not needs_answers({"task": "a^2 + a*b"})
    assert identity({"task": "a^2 + a*b"}) not in (None, identity({}))


def test_runs_have_it_and_tables_of_earlier_versions_get_it(tmp_path):
    c = tiny.get_config()
    c.steps = 20
    assert tiny.train(c, tmp_path / "new")[0] == 0
    runs = read_runs(tmp_path / "new")
    assert runs["identity"].tolist() == [run.identity for run in sweeps.expand(c).runs]
    assert runs["identity"].nunique() == 4
    old = shutil.copytree(tmp_path / "new", tmp_path / "old")
    files.write_parquet(read_part(old / "runs.parquet").drop_columns(["identity", "group"]), old / "runs.parquet")
    assert read_runs(old)["identity"].tolist() == runs["identity"].tolist()
