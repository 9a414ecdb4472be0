"""From config to runs: axes, groups, overrides, and a sentence for everything that is wrong."""

import contextlib
import itertools
import json
import math
from pathlib import Path

import numpy as np
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


def test_arrays_ranges_and_generators_are_axes():
    for tree in (tiny.get_config(), tiny.get_config().to_dict()):
        sweep, model = tree["sweep"], tree["sweep"]["model"]
        sweep["seed"], sweep["weight_decay"] = range(3), np.linspace(0, 1, 2)
        sweep["beta1"], model["d_mlp"] = (x / 10 for x in (8, 9)), np.logspace(1, 2, 2)
        assert dict(sweeps.expand(tree).axes) == {
            "seed": (0, 1, 2),
            "weight_decay": (0.0, 1.0),
            "beta1": (0.8, 0.9),
            "model.d_mlp": (10, 100),
        }
    c = tiny.get_config()
    c.steps, c.learning_rate = 2e4, np.float32(0.5)
    assert (c.steps, c.learning_rate) == (20_000, 0.5)
    c.sweep.seed = itertools.count()
    with pytest.raises(InputError, match="100,000 are the most"):
        sweeps.expand(c)
    with pytest.raises(InputError, match=r"^config field 'sead' is unknown: did you mean 'seed'"):
        c.sweep.sead  # noqa: B018


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
    ("optimizer", "lion", r"config\.optimizer 'lion' is unknown: known are adam, adamw, muon, sgd"),
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


def refusal(c, get_sweep=None):
    with pytest.raises(InputError) as refused:
        sweeps.expand(c, get_sweep)
    return str(refused.value)


def test_axes_that_are_none():
    tree = tiny.get_config().to_dict()
    for given_, sentence in [
        (3, "config.sweep is 3, but it must hold axes, such as config.sweep.seed = (0, 1)."),
        ({"seed": 3}, "config.sweep.seed is 3, but it must be a tuple of values, such as (3,)."),
        ({"seed": []}, "config.sweep.seed is empty, but an axis needs at least one value."),
        ({"seed": [-1]}, "a value of config.sweep.seed is -1, but it must be in [0, 2³²)."),
    ]:
        assert refusal(with_sweep(tree, given_)) == sentence
    settings = [path for path, field in config.FIELDS.items() if field.kind == config.SETTING]
    known = ", ".join(sorted(set(config.FIELDS) - set(settings)))
    for path in settings:
        said = refusal(with_sweep(tree, {path: (1, 2)}))
        assert said.startswith(f"sweep axis '{path}' is unknown: ")
        assert said.endswith(f"known are {known}.")
        assert refusal(tiny.get_config(), lambda c, path=path: [{path: 1}]).startswith(
            f"get_sweep(config), run 0: field '{path}' is unknown: "
        )
    assert refusal(tiny.get_config(), lambda c: [{"seed": 1}, 3]) == (
        "get_sweep(config) returned 3 for run 1, but it must be a dict of overrides."
    )
    assert refusal(tiny.get_config(), lambda c: [{"seed": 1}, {"seed": -1}]) == (
        "seed of run 1 is -1, but it must be in [0, 2³²)."
    )
    assert refusal(tiny.get_config(), lambda c: 3) == (
        "get_sweep(config) failed with TypeError: 'int' object is not iterable. It must return a list of dicts."
    )


def with_sweep(tree, axes):
    """A config as plain dicts, with another sweep."""
    return {name: value for name, value in tree.items() if name != "sweep"} | {"sweep": axes}


def test_the_most_runs_and_groups(monkeypatch):
    assert (sweeps.MOST_RUNS, sweeps.MOST_GROUPS) == (100_000, 10_000)
    monkeypatch.setattr(sweeps, "MOST_RUNS", 4)
    c = tiny.get_config()
    assert len(sweeps.expand(c).runs) == 4
    assert len(sweeps.expand(c, lambda c: [{"seed": i} for i in range(4)]).runs) == 4
    assert refusal(c, lambda c: [{"seed": i} for i in range(5)]) == (
        "get_sweep(config) returned more than 4 runs: make several sweeps of it."
    )
    c.sweep.seed = (0, 1, 2)
    assert refusal(c) == (
        "config.sweep has 3 seed × 2 weight_decay runs, but 4 are the most: make several sweeps of it."
    )
    monkeypatch.setattr(sweeps, "MOST_GROUPS", 2)
    c.sweep.seed = (0,)
    c.sweep.weight_decay = (0.0,)
    c.sweep.p = (5, 7)
    assert len(sweeps.expand(c).groups()) == 2
    c.sweep.p = (5, 7, 11)
    assert refusal(c) == ("the sweep has 3 groups, each to be compiled, but 2 are the most: make several sweeps of it.")


def test_axes_vary_in_the_order_of_the_fields_and_seeds_fastest():
    c = tiny.get_config()
    c.sweep = config.default().sweep
    c.sweep.split_seed, c.sweep.seed, c.sweep.weight_decay, c.sweep.p = (8, 9), (1, 0), (1.0, 0.0), (7, 5)
    sweep = sweeps.expand(c)
    assert list(sweep.axes.items()) == [
        ("p", (7, 5)),
        ("weight_decay", (1.0, 0.0)),
        ("seed", (1, 0)),
        ("split_seed", (8, 9)),
    ]
    found = [tuple(run.values[path] for path in sweep.axes) for run in sweep.runs]
    assert found == [(p, wd, s, t) for p in (7, 5) for wd in (1.0, 0.0) for s in (1, 0) for t in (8, 9)]
    assert [run.run for run in sweep.runs] == list(range(16))
    assert [[run.run for run in group] for group in sweep.groups()] == [list(range(8)), list(range(8, 16))]


def test_only_takes_the_first_and_the_last():
    sweep = sweeps.expand(tiny.get_config())
    assert [run.run for run in sweeps.only(sweep, [0, 3]).runs] == [0, 3]
    for numbers, sentence in [
        ([], "--only names no run: give run numbers separated by commas, such as 3,17."),
        ([-1], "--only names run -1, but this sweep's runs are 0 to 3."),
        ([4], "--only names run 4, but this sweep's runs are 0 to 3."),
    ]:
        with pytest.raises(InputError) as refused:
            sweeps.only(sweep, numbers)
        assert str(refused.value) == sentence
