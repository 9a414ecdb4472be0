"""Every field's bounds, its default, and what a refusal says: whole sentences."""

import copy
import math

import numpy as np
import pytest
import tiny

from grokjax import config, sweeps, tasks
from grokjax.errors import InputError

SMALL, LARGE = 5e-324, math.nextafter(1, 0)  # next to 0 and below 1
ABOVE = "greater than 0"
NOT_BELOW = "0 or more"
SHARE = "in (0, 1)"
BELOW_2_31 = "less than 2³¹"
F32 = "at most 3.4e+38, as float32 holds it"

# By field: values just inside its bounds, and values just outside with what the sentence asks for.
BOUNDS = {
    "p": ([3, 9_999], {2: "from 3 to 9999", 10_000: "from 3 to 9999"}),
    "train_fraction": ([SMALL, LARGE], {0.0: SHARE, 1.0: SHARE}),
    "batch_size": ([0, 2**31 - 1], {-1: NOT_BELOW, 2**31: BELOW_2_31}),
    "seed": ([0, 2**32 - 1], {-1: "in [0, 2³²)", 2**32: "in [0, 2³²)"}),
    "split_seed": ([None, 0, 2**32 - 1], {-1: "in [0, 2³²)", 2**32: "in [0, 2³²)"}),
    "label_noise": ([0.0, 1.0], {-SMALL: "in [0, 1]", 1.1: "in [0, 1]"}),
    "init_scale": ([SMALL, 3.4e38], {0.0: ABOVE, 3.5e38: F32}),
    "model.n_layers": ([1, 100], {0: "from 1 to 100", 101: "from 1 to 100"}),
    "model.d_model": ([1, 100_000], {0: "from 1 to 100,000", 100_001: "from 1 to 100,000"}),
    "model.n_heads": ([1, 10_000], {0: "from 1 to 10,000", 10_001: "from 1 to 10,000"}),
    "model.d_head": ([None, 1, 100_000], {0: "from 1 to 100,000", 100_001: "from 1 to 100,000"}),
    "model.n_ctx": ([2, 3], {1: "3 or 2", 4: "3 or 2"}),
    "model.attention_rate": ([0.0, 1.0], {-SMALL: "in [0, 1]", 1.0000001: "in [0, 1]"}),
    "model.dropout": ([0.0, LARGE], {-SMALL: "in [0, 1)", 1.0: "in [0, 1)"}),
    "model.d_mlp": ([1, 1_000_000], {0: "from 1 to 1,000,000", 1_000_001: "from 1 to 1,000,000"}),
    "learning_rate": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "weight_decay": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "beta1": ([0.0, LARGE], {-SMALL: "in [0, 1)", 1.0: "in [0, 1)"}),
    "beta2": ([0.0, LARGE], {-SMALL: "in [0, 1)", 1.0: "in [0, 1)"}),
    "grokfast_alpha": ([0.0, LARGE], {-SMALL: "in [0, 1)", 1.0: "in [0, 1)"}),
    "grokfast_lamb": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "l1": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "l2": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "muon_beta": ([0.0, LARGE], {-SMALL: "in [0, 1)", 1.0: "in [0, 1)"}),
    "muon_learning_rate": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "schedule_end": ([0.0, 1.0], {-SMALL: "in [0, 1]", 1.1: "in [0, 1]"}),
    "eps": ([SMALL, 3.4e38], {0.0: ABOVE, 3.5e38: F32}),
    "warmup_steps": ([0, 2**31 - 1], {-1: NOT_BELOW, 2**31: BELOW_2_31}),
    "steps": ([1, 2**31 - 1], {0: "in [1, 2³¹)", 2**31: "in [1, 2³¹)"}),
    "stop_loss": ([0.0, 3.4e38], {-SMALL: NOT_BELOW, 3.5e38: F32}),
    "stop_evals": ([1, 2**31 - 1], {0: ABOVE, 2**31: BELOW_2_31}),
    "eval_every": ([1, 2**31 - 1], {0: ABOVE, 2**31: BELOW_2_31}),
    "key_threshold": ([SMALL, LARGE], {0.0: SHARE, 1.0: SHARE}),
    "snapshot_every": ([1, 2**31 - 1], {0: ABOVE, 2**31: BELOW_2_31}),
    "slow_every": ([1, 2**31 - 1], {0: ABOVE, 2**31: BELOW_2_31}),
    # A setting never reaches a float32.
    "checkpoint_every_minutes": ([SMALL, 1e300], {0.0: ABOVE}),
    "checkpoint_every_steps": ([0, 2**31 - 1], {-1: NOT_BELOW, 2**31: BELOW_2_31}),
    "keep_final_state": ([0, 1], {-1: "0 or 1", 2: "0 or 1"}),
    "slots": ([0, 2**31 - 1], {-1: NOT_BELOW, 2**31: BELOW_2_31}),
}
OPEN = {"task", "group", "loss", "optimizer", "model.architecture", "start_from"}  # which may be one's own
CHOICES = {
    "split": ("jax", "python"),
    "model.inputs": ("concatenated", "summed", "one_hot"),
    "model.embeddings": ("separate", "shared"),
    "model.act": ("relu", "gelu", "quadratic"),
    "model.attention_dir": ("causal", "bidirectional"),
    "model.normalization_type": ("LN",),
    "model.unembed": ("own", "tied"),
    "gradient_transform": ("none", "grokfast", "orthograd"),
    "decay_to": ("zero", "init"),
    "norm_constraint": ("none", "init"),
    "schedule": ("constant", "cosine", "linear"),
    "key_rule": ("W_L", "W_E", "neurons", "logits"),
    "precision": ("float32", "tensorfloat32", "bfloat16_6x", "bfloat16_3x", "bfloat16"),
}


def refusal(path, value, **more):
    with pytest.raises(InputError) as refused:
        config.coerce(path, value, **more)
    return str(refused.value)


@pytest.mark.parametrize("path", BOUNDS)
def test_bounds(path):
    inside, outside = BOUNDS[path]
    for value in inside:
        assert config.coerce(path, value) == value
    for value, right in outside.items():
        assert refusal(path, value) == f"config.{path} is {value!r}, but it must be {right}."


@pytest.mark.parametrize("path", CHOICES)
def test_choices(path):
    for value in CHOICES[path]:
        assert config.coerce(path, value) == value
    assert refusal(path, "other") == f"config.{path} is 'other', but it must be one of {', '.join(CHOICES[path])}."


def test_every_field_is_looked_at():
    assert OPEN | {*BOUNDS, *CHOICES, "measures"} == set(config.FIELDS)


@pytest.mark.parametrize("path", BOUNDS)
def test_numbers_are_numbers(path):
    kind = config.FIELDS[path].type
    article = {int: "an integer", float: "a number"}[kind]
    wrong = (
        [True, False, "1", (1,)]
        + ([1.0] if kind is int else [])
        + ([] if path in ("split_seed", "model.d_head") else [None])
    )
    for value in wrong:
        assert refusal(path, value) == f"config.{path} is {value!r}, but it must be {article}."
    if kind is float:
        for value in (math.inf, -math.inf, math.nan):
            assert refusal(path, value) == f"config.{path} is {value}, but it must be finite."


def test_whole_numbers_are_taken_for_floats_and_lists_for_tuples():
    assert type(config.coerce("weight_decay", 1)) is float
    assert refusal("weight_decay", 10**400) == "config.weight_decay is inf, but it must be finite."
    assert refusal("checkpoint_every_minutes", 10**301) == (
        "config.checkpoint_every_minutes is inf, but it must be finite."
    )
    assert config.coerce("checkpoint_every_minutes", 10**299) == 1e299
    assert config.coerce("measures", ["paper"]) == ("paper",)
    assert refusal("measures", "paper") == "config.measures is 'paper', but it must be a tuple."
    assert refusal("task", ["add"]) == "config.task is ['add'], but it must be a string."
    assert refusal("p", 2, label="--p") == "--p is 2, but it must be from 3 to 9999."


MAINLINE = {
    "task": "add",
    "group": None,
    "p": 113,
    "train_fraction": 0.3,
    "split": "jax",
    "batch_size": 0,
    "seed": 0,
    "split_seed": None,
    "label_noise": 0.0,
    "start_from": None,
    "init_scale": 1.0,
    "model.architecture": "transformer",
    "model.inputs": "concatenated",
    "model.embeddings": None,
    "model.n_layers": 1,
    "model.d_model": 128,
    "model.n_heads": 4,
    "model.d_head": None,
    "model.d_mlp": 512,
    "model.act": "relu",
    "model.n_ctx": 3,
    "model.attention_rate": 1.0,
    "model.attention_dir": "causal",
    "model.normalization_type": None,
    "model.unembed": "own",
    "model.dropout": 0.0,
    "loss": "cross_entropy",
    "optimizer": "adamw",
    "gradient_transform": "none",
    "grokfast_alpha": 0.98,
    "grokfast_lamb": 2.0,
    "l1": 0.0,
    "l2": 0.0,
    "decay_to": "zero",
    "norm_constraint": "none",
    "learning_rate": 1e-3,
    "weight_decay": 1.0,
    "beta1": 0.9,
    "beta2": 0.98,
    "muon_beta": 0.95,
    "muon_learning_rate": 0.02,
    "eps": 1e-8,
    "warmup_steps": 10,
    "schedule": "constant",
    "schedule_end": 0.0,
    "steps": 40_000,
    "stop_loss": 0.0,
    "stop_evals": 3,
    "eval_every": 100,
    "measures": ("paper",),
    "key_rule": "W_L",
    "key_threshold": 0.25,
    "snapshot_every": 1_000,
    "slow_every": 1_000,
    "checkpoint_every_minutes": 5.0,
    "checkpoint_every_steps": 0,
    "keep_final_state": 0,
    "slots": 0,
    "precision": "float32",
}
SMALLER = {
    "p": 53,
    "train_fraction": 0.5,
    "model.d_model": 64,
    "model.d_mlp": 256,
    "learning_rate": 3e-3,
    "steps": 2_500,
    "eval_every": 50,
    "snapshot_every": 250,
}


def test_defaults_are_pinned_in_order():
    """On purpose: a default is the experiment, and the order is that of columns and axes."""
    assert list(config.FIELDS) == list(MAINLINE)
    assert config.flat(config.default()) == MAINLINE
    assert config.flat(config.small()) == MAINLINE | SMALLER


def test_kinds_are_pinned():
    """On purpose: what may be swept, and what is compiled anew."""
    kinds = {kind: [path for path, f in config.FIELDS.items() if f.kind == kind] for kind in ("traced", "setting")}
    assert kinds["setting"] == [
        *("measures", "key_rule", "key_threshold", "snapshot_every", "slow_every"),
        *("checkpoint_every_minutes", "checkpoint_every_steps", "keep_final_state", "slots"),
    ]
    assert kinds["traced"] == [
        *("seed", "split_seed", "label_noise", "init_scale", "model.attention_rate", "model.dropout"),
        *("grokfast_alpha", "grokfast_lamb", "l1", "l2", "learning_rate"),
        *("weight_decay", "beta1", "beta2", "muon_beta", "muon_learning_rate", "eps"),
        *("warmup_steps", "schedule_end", "steps", "stop_loss", "stop_evals"),
    ]
    assert [path for path, f in config.FIELDS.items() if f.on is not None] == [
        *("label_noise", "start_from", "model.attention_rate", "model.dropout", "l1", "l2")
    ]
    assert config.OPERATIONAL == ("checkpoint_every_minutes", "checkpoint_every_steps", "keep_final_state")
    sweep = config.leaves(config.default().sweep, "the sweep")
    assert list(sweep) == sorted(path for path in config.FIELDS if path not in kinds["setting"])
    assert set(sweep.values()) == {None}


# --- fields against each other ---------------------------------------------------------------------------------------


def checked(**changed):
    """What `check` says of the mainline with some fields changed, by dotted path with __ for the dot."""
    values = MAINLINE | {path.replace("__", "."): value for path, value in changed.items()}
    try:
        sweeps.check(values)
    except InputError as error:
        return str(error)
    return ""


def test_cadences_are_multiples_of_eval_every():
    assert checked() == ""
    for path in ("steps", "snapshot_every", "slow_every"):
        assert checked(**{path: 200}) == ""
        assert checked(**{path: 150}) == f"config.{path} is 150, but it must be a multiple of eval_every, 100."


def test_some_pairs_are_left_to_train_and_to_test_on(monkeypatch):
    # Of P = 5 there are 25 pairs: 0.04 is one of them, the next float below it none.
    assert checked(p=5, train_fraction=0.04) == ""
    below = math.nextafter(0.04, 0)
    assert checked(p=5, train_fraction=below) == (
        f"config.train_fraction is {below}, which leaves 0 of 25 pairs to train on."
    )
    assert tasks.n_train(5, 0.99) == 24
    assert checked(p=5, train_fraction=0.99) == ""
    # No float below 1 leaves none of so few to test on, so that the check is asked as if one did.
    monkeypatch.setattr(tasks, "n_train", lambda p, fraction, nonzero_b: p * p)
    assert (
        checked(p=5, train_fraction=0.99) == "config.train_fraction is 0.99, which leaves 25 of 25 pairs to train on."
    )


def test_heads_divide_the_width():
    assert checked(model__n_heads=128) == ""
    assert checked(model__n_heads=3) == (
        "config.model.d_model is 128, but it must be divisible by model.n_heads, 3, unless model.d_head is set."
    )
    assert checked(model__n_heads=3, model__d_head=40) == ""


def test_heads_are_a_transformer_s():
    assert checked(model__n_heads=3, model__architecture="mlp") == ""


def test_batches_are_of_training_pairs():
    assert checked(batch_size=3_830) == ""
    assert checked(batch_size=3_831) == "config.batch_size is 3831, but it must be at most 3830, the training pairs."


def test_the_most_parameters(monkeypatch):
    """Of the mainline: 230 tokens and positions, W_U, and a block, counted by hand."""
    n = 117 * 128 + 113 * 128 + 4 * 128 * 128 + 2 * 128 * 512 + 512 + 128
    assert sweeps.MOST_PARAMETERS == 10**10
    monkeypatch.setattr(sweeps, "MOST_PARAMETERS", n)
    assert checked() == ""
    monkeypatch.setattr(sweeps, "MOST_PARAMETERS", n - 1)
    assert checked() == f"config.model has {n:,} parameters, but {n - 1:,} are the most: make it smaller."


def test_logits_give_keys_to_tasks_of_the_sum_alone():
    assert checked(key_rule="logits") == checked(key_rule="logits", task="subtract") == ""
    assert checked(key_rule="neurons", task="quadratic") == ""
    assert checked(key_rule="logits", task="quadratic") == (
        "config.key_rule is 'logits', but task 'quadratic' is no function of a + b or a - b: "
        "choose W_L, W_E or neurons."
    )


def test_tasks_and_groups_of_measures_are_looked_up():
    assert checked(task="multiply", p=9) == "config.p is 9, but task 'multiply' needs a prime."
    assert checked(task="multiply", p=9_999) == "config.p is 9999, but task 'multiply' needs a prime."
    assert checked(task="multiply", p=9_973) == checked(task="add", p=9_999) == ""
    assert checked(task="ad").startswith("task 'ad' is unknown: did you mean 'add'? known are ")
    assert checked(measures=("papr",)).startswith("config.measures: group 'papr' is unknown: did you mean 'paper'? ")


def test_a_config_that_lacks_a_field():
    c = tiny.get_config().unlock()
    del c.model["act"]
    with pytest.raises(InputError) as refused:
        sweeps.expand(c)
    assert str(refused.value) == "config.model.act is missing: start from grokjax.config.default()."


def test_a_field_that_is_none_is_told_where_it_is_set():
    """In Python, before anything is expanded, in a sentence; a copy does so too."""
    for c in (config.default(), copy.deepcopy(config.small())):
        with pytest.raises(InputError, match=r"^config field 'weight_decy' is unknown: did you mean"):
            c.weight_decy = 1.0
        with pytest.raises(InputError, match=r"^config field 'sed' is unknown: did you mean 'seed'"):
            c.sweep.sed = (0, 1)
        with pytest.raises(InputError, match="known are act, architecture, attention_dir, attention_rate, d_head,"):
            c.model["d_ff"] = 64
        c.sweep.model.d_mlp = (8, 16)
        assert c.sweep.model.d_mlp == (8, 16)
        with pytest.raises(InputError, match=r"^config field 'stps' is unknown: did you mean 'steps'"):
            _ = c.stps
        assert not hasattr(c, "stps")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("measures", "paper", "config.measures is 'paper', but it must be a tuple, such as ('paper',)."),
        ("steps", "many", "config.steps is 'many', but it must be an integer."),
        ("split_seed", "x", "config.split_seed is 'x', but it must be an integer."),
        ("model.d_mlp", "x", "config.model.d_mlp is 'x', but it must be an integer."),
        ("model", 3, "config.model is 3, but it holds fields: set those."),
        ("sweep.seed", 3, "config.sweep.seed is 3, but it must be a tuple of values, such as (3,)."),
        (
            "sweep.model.act",
            "relu",
            "config.sweep.model.act is 'relu', but it must be a tuple of values, such as ('relu',).",
        ),
    ],
)
def test_a_value_of_another_type_is_told_where_it_is_set(name, value, sentence):
    *parents, leaf = name.split(".")
    at = config.default()
    for parent in parents:
        at = at[parent]
    with pytest.raises(InputError) as refused:
        setattr(at, leaf, value)
    assert str(refused.value) == sentence


def test_values_as_people_have_them_in_python():
    """NumPy's, ranges, generators; None for no axis or no value."""
    c = config.default()
    c.steps, c.weight_decay, c.split_seed = 2e4, 1, np.int64(3)
    assert (c.steps, c.weight_decay, c.split_seed) == (20_000, 1.0, 3)
    assert {type(c.steps), type(c.split_seed)} == {int}
    c.sweep.weight_decay, c.sweep.seed, c.sweep.steps = np.logspace(0, 1, 2), range(3), (n * 1e2 for n in (1, 2))
    axes = sweeps.expand(c).axes
    assert axes == {"weight_decay": (1.0, 10.0), "seed": (0, 1, 2), "steps": (100, 200)}
    assert {type(value) for values in axes.values() for value in values} == {int, float}
    c.sweep.weight_decay = c.sweep.steps = c.split_seed = None
    assert list(sweeps.expand(c).axes) == ["seed"]
    assert sweeps.expand(c).base["split_seed"] is None
