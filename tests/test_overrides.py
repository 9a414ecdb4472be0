"""Overrides on the command line: values as people write them, and a sentence for what is none; nothing is ever run."""

import numpy as np
import pytest
import tiny

from grokjax import config, sweeps
from grokjax.cli import overrides
from grokjax.errors import InputError

LINSPACE, LOGSPACE = np.linspace(0, 1, 11), np.logspace(-2, 1, 7)


def axis(text, path="weight_decay"):
    """The values of an axis as the command line gives them to the sweep."""
    c = tiny.get_config()
    c.sweep.seed = c.sweep.weight_decay = None
    overrides.override(c, {f"sweep.{path}": text})
    return sweeps.expand(c).axes.get(path)


def test_a_value_may_be_the_next_argument(capsys):
    split = overrides.split_overrides
    assert split(["--config.steps", "5", "-v", "--config.task=add"]) == ({"steps": "5", "task": "add"}, ["-v"])
    assert split(["--config.steps", "-1"]) == ({"steps": "-1"}, [])
    for args in (["--config.steps"], ["--config.steps", "--workdir=x"]):
        with pytest.raises(SystemExit) as stopped:
            split(args)
        assert stopped.value.code == 2
        assert capsys.readouterr().err == "error: --config.steps needs a value, such as --config.steps=…. See --help.\n"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", (1.0,)),
        ("0.3,1", (0.3, 1.0)),
        ("(0.3, 1.0)", (0.3, 1.0)),
        ("[0.3, 1]", (0.3, 1.0)),
        ("[1e-3]", (1e-3,)),
        ("linspace(0, 1, 11)", tuple(LINSPACE.tolist())),
        ("np.logspace(-2, 1, 7)", tuple(LOGSPACE.tolist())),
        ("numpy.logspace(-2, 1, num=7)", tuple(LOGSPACE.tolist())),
        ("geomspace(0.01, 10, 4)", (0.01, 0.1, 1.0, 10.0)),
        ("0, logspace(-2, 0, 3)", (0.0, 0.01, 0.1, 1.0)),
        ("(0.5, *range(1, 3))", (0.5, 1.0, 2.0)),
        ("[range(2), 5, linspace(6, 7, 2)]", (0.0, 1.0, 5.0, 6.0, 7.0)),
        ("None", None),
    ],
)
def test_the_values_of_an_axis(text, values):
    assert axis(text) == values
    assert values is None or {type(value) for value in axis(text)} == {float}


def test_axes_of_whole_numbers_and_of_names():
    assert axis("range(10)", "seed") == tuple(range(10))
    assert axis("range(2, 8, 3)", "seed") == (2, 5)
    assert axis("1,2_0,3", "seed") == (1, 20, 3)
    assert axis("2e2, 400", "steps") == (200, 400)
    assert axis("logspace(2, 4, 3)", "steps") == (100, 1_000, 10_000)
    assert axis("add,subtract", "task") == axis("('add', 'subtract')", "task") == ("add", "subtract")
    assert axis("add", "task") == axis("['add']", "task") == ("add",)
    assert axis("None, 3", "split_seed") == (None, 3)


@pytest.mark.parametrize(
    "text",
    [
        *("(((", "(1,", "a, b", "1 2", "open('x')", "__import__('os')", "exit()", "range", "range(0.5)", "range()"),
        *("linspace(0)", "linspace(0, 1, -1)", "linspace('a', 1)", "logspace(-2", "x.y.range(3)(4)", "range(3).count"),
        *("[i for i in range(3)]", "lambda: 0", "-" * 3_000 + "1", "[" * 3_000, "linspace(1, 2, 3) + 1"),
        *("0, open('x')", "0, eval(1, 2)", "(0, *[1])()", "linspace(0, 1, 10**9)", "linspace(0, 1, num=1000000000)"),
        *("1 if 1 else 2", "np.load('x')", "concatenate((1, 2))"),
    ],
)
def test_what_is_no_axis_is_a_sentence_and_never_run(text):
    with pytest.raises(InputError, match=r"does not parse: an axis is values .*range\(10\), or logspace"):
        axis(text)


@pytest.mark.parametrize("text", ["a b", "__import__('os').getcwd()"])
def test_what_are_no_names_is_a_sentence(text):
    with pytest.raises(InputError, match=r"does not parse: an axis is names"):
        axis(text, "task")


def test_an_axis_has_not_too_many_values():
    for text in ("range(1000000000)", "0, range(1000000000)"):
        with pytest.raises(InputError, match="but 100,000 are the most"):
            axis(text)
    with pytest.raises(InputError, match="is empty, but an axis needs at least one value"):
        axis("range(0)", "seed")


@pytest.mark.parametrize("text", ["20000", "20_000", "2e4", "20000.0"])
def test_whole_numbers_as_people_write_them(text):
    assert overrides.parsed("steps", text) == 20_000
    assert type(overrides.parsed("steps", text)) is int


@pytest.mark.parametrize(
    ("path", "text", "right"),
    [
        ("steps", "2.5", "an integer"),
        ("steps", "1e400", "an integer"),
        ("steps", "None", "an integer"),
        ("steps", "fast", "an integer"),
        ("learning_rate", "fast", "a number"),
        ("measures", "('paper'", "a tuple"),
        ("slots", "(1, 2)", "an integer"),
        ("weight_decay", "(1,2)", "a number; for an axis give --config.sweep.weight_decay=(1,2)"),
        ("beta1", "(0.5,)", "a number; for an axis give --config.sweep.beta1=(0.5,)"),
        ("seed", "range(3)", "an integer; for an axis give --config.sweep.seed=range(3)"),
        ("task", "add,subtract", "a string; for an axis give --config.sweep.task=add,subtract"),
    ],
)
def test_what_is_no_value_is_a_sentence(path, text, right):
    with pytest.raises(InputError) as refused:
        overrides.parsed(path, text)
    assert str(refused.value) == f"--config.{path}={text} does not parse: config.{path} must be {right}."


def test_fields_of_other_kinds():
    assert overrides.parsed("split_seed", "3") == 3
    assert overrides.parsed("split_seed", "None") is None
    assert overrides.parsed("learning_rate", "1") == 1.0
    assert overrides.parsed("task", "subtract") == "subtract"
    assert overrides.parsed("measures", "paper,clock") == ("paper", "clock")
    assert overrides.parsed("measures", "('paper', 'clock')") == ("paper", "clock")
    assert overrides.parsed("measures", "paper") == overrides.parsed("measures", "('paper',)") == ("paper",)
    assert overrides.parsed("measures", "()") == ()
    c = config.default()
    c.split_seed = 3
    overrides.override(c, {"split_seed": "None", "model.d_mlp": "2e2", "sweep.model.act": "gelu"})
    assert (c.split_seed, c.model.d_mlp, c.sweep.model.act) == (None, 200, ("gelu",))
