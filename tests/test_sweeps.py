"""From config to runs: axes, groups, overrides, and a sentence for everything that is wrong."""

import contextlib
import json
import math
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from grokjax import config, sweeps
from grokjax.errors import InputError
from grokjax.experiment import load_experiment

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def test_mainline_is_the_papers():
    values = sweeps.expand(config.default()).runs[0].values
    assert {
        k: values[k] for k in ("p", "train_fraction", "learning_rate", "weight_decay", "beta1", "beta2", "eps")
    } == {
        "p": 113,
        "train_fraction": 0.3,
        "learning_rate": 1e-3,
        "weight_decay": 1.0,
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-8,
    }
    assert sweeps.expand(config.default()).runs[0].problem().n_train == 3830


@pytest.mark.parametrize("name", ["mainline.py", "precision.py", "wd_sweep.py"])
@pytest.mark.parametrize("variant", ["", ":small"])
def test_experiments_expand(name, variant):
    _, c = load_experiment(f"{EXPERIMENTS / name}{variant}")
    assert {run.values["p"] for run in sweeps.expand(c).runs} == {53 if variant else 113}


def test_product_with_seeds_fastest():
    sweep = sweeps.expand(tiny.get_config())
    assert [(r.run, r.values["weight_decay"], r.values["seed"]) for r in sweep.runs] == [
        (0, 0.0, 0),
        (1, 0.0, 1),
        (2, 1.0, 0),
        (3, 1.0, 1),
    ]
    assert list(sweep.axes.items()) == [("weight_decay", (0.0, 1.0)), ("seed", (0, 1))]


def test_traced_axes_share_a_group_and_static_ones_form_groups():
    c = tiny.get_config()
    c.sweep.learning_rate = (1e-3, 1e-2)
    c.sweep.beta2 = (0.9, 0.98)
    c.sweep.steps = (20, 40)
    assert len(sweeps.expand(c).groups()) == 1
    c.sweep.p = (5, 7)
    c.sweep.model.d_mlp = (8, 16)
    groups = sweeps.expand(c).groups()
    assert len(groups) == 4
    assert [len({run.problem() for run in group}) for group in groups] == [1] * 4
    assert sorted(run.run for group in groups for run in group) == list(range(4 * 32))


def test_integers_are_taken_for_floats_and_lists_for_tuples():
    c = tiny.get_config()
    c.sweep.weight_decay = [0, 1]
    values = [run.values["weight_decay"] for run in sweeps.expand(c).runs]
    assert values == [0.0, 0.0, 1.0, 1.0]
    assert all(isinstance(v, float) for v in values)


def test_get_sweep_replaces_the_product():
    sweep = sweeps.expand(tiny.get_config(), lambda c: [{"weight_decay": 2}, {"model.d_mlp": 8, "seed": 3}])
    assert [run.values["weight_decay"] for run in sweep.runs] == [2.0, 1.0]
    assert [run.values["model.d_mlp"] for run in sweep.runs] == [16, 8]
    assert list(sweep.axes) == ["weight_decay", "model.d_mlp", "seed"]


def test_split_seed_follows_seed_unless_set():
    c = tiny.get_config()
    runs = sweeps.expand(c).runs
    assert [run.split_seed for run in runs] == [0, 1, 0, 1]
    c.split_seed = 5
    assert {run.split_seed for run in sweeps.expand(c).runs} == {5}


def test_every_experiment_expands():
    from experiments import mainline, wd_sweep

    assert len(sweeps.expand(wd_sweep.get_config()).runs) == 25
    assert len(sweeps.expand(mainline.get_config()).runs) == 5
    for module in (wd_sweep, mainline):
        small = sweeps.expand(module.get_config("small"))
        assert small.runs[0].problem().model.p == 53
        with pytest.raises(InputError, match="known are small"):
            module.get_config("smal")


BAD = [
    ("steps", 0, r"config\.steps is 0, but it must be in \[1"),
    ("steps", 210, r"config\.steps is 210, but it must be a multiple of eval_every, 20"),
    ("p", 2, r"config\.p is 2, but it must be from 3"),
    ("train_fraction", 1.0, r"config\.train_fraction is 1\.0, but it must be in \(0, 1\)"),
    ("train_fraction", 1e-9, "leaves 0 of 49 pairs"),
    ("learning_rate", -1.0, r"config\.learning_rate is -1\.0, but it must be 0 or more"),
    ("learning_rate", math.nan, r"config\.learning_rate is nan, but it must be finite"),
    ("weight_decay", math.inf, r"config\.weight_decay is inf, but it must be finite"),
    ("beta2", 1.0, r"config\.beta2 is 1\.0, but it must be in \[0, 1\)"),
    ("task", "ad", "task 'ad' is unknown: did you mean 'add'"),
    ("split", "torch", r"config\.split is 'torch', but it must be one of jax, python"),
    ("optimizer", "lion", r"config\.optimizer is 'lion', but it must be one of adamw, sgd"),
    ("precision", "fp8", r"config\.precision is 'fp8'"),
    ("measures", ("papr",), "group 'papr' is unknown: did you mean 'paper'"),
    ("seed", -1, r"config\.seed is -1"),
    ("slots", -1, r"config\.slots is -1"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD, ids=[f"{f}={v}" for f, v, _ in BAD])
def test_bad_fields(field, value, message):
    c = tiny.get_config()
    with c.ignore_type():
        c[field] = value
    with pytest.raises(InputError, match=message):
        sweeps.expand(c)


def test_bad_combinations_and_axes():
    c = tiny.get_config()
    c.model.n_heads = 3
    with pytest.raises(InputError, match=r"d_model is 8, but it must be divisible by model\.n_heads, 3"):
        sweeps.expand(c)
    c = tiny.get_config()
    c.task, c.p = "multiply", 9
    with pytest.raises(InputError, match=r"config\.p is 9, but task 'multiply' needs a prime"):
        sweeps.expand(c)
    c = tiny.get_config()
    c.sweep.weight_decay = ()
    with pytest.raises(InputError, match=r"config\.sweep\.weight_decay is empty"):
        sweeps.expand(c)
    c.sweep.weight_decay = (0.0, "much")
    with pytest.raises(InputError, match=r"a value of config\.sweep\.weight_decay is 'much', but it must be a number"):
        sweeps.expand(c)
    c.sweep.weight_decay = (1.0, 1.0)
    with pytest.raises(InputError, match="runs 0 and 2 of the sweep are the same"):
        sweeps.expand(c)
    with pytest.raises(InputError, match="field 'weight_dcay' is unknown: did you mean 'weight_decay'"):
        sweeps.expand(tiny.get_config(), lambda c: [{"weight_dcay": 1.0}])
    with pytest.raises(InputError, match="returned no runs"):
        sweeps.expand(tiny.get_config(), lambda c: [])


def test_a_swept_value_is_checked_in_every_combination():
    c = tiny.get_config()
    c.sweep.model.n_heads = (2, 3)
    with pytest.raises(InputError, match=r"divisible by model\.n_heads, 3"):
        sweeps.expand(c)


def test_unknown_fields_are_refused_by_name():
    c = tiny.get_config().unlock()
    c.wieght_decay = 1.0
    with pytest.raises(InputError, match="config field 'wieght_decay' is unknown: did you mean 'weight_decay'"):
        sweeps.expand(c)


def test_only():
    sweep = sweeps.expand(tiny.get_config())
    assert [run.run for run in sweeps.only(sweep, [3, 1]).runs] == [1, 3]
    with pytest.raises(InputError, match="run 4, but this sweep's runs are 0 to 3"):
        sweeps.only(sweep, [4])


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.binary()


@given(st.sampled_from(list(config.FIELDS)), ANYTHING)
def test_any_value_gives_a_field_or_a_sentence(path, value):
    with contextlib.suppress(InputError):
        assert config.coerce(path, value) is None or isinstance(config.coerce(path, value), config.FIELDS[path].type)


def test_resolved_values_are_json():
    for run in sweeps.expand(tiny.get_config()).runs:
        json.dumps(dict(run.values), allow_nan=False)
