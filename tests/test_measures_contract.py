"""What every registered measure must keep to, whatever it measures: one suite for all of them."""

import math
import re

import jax
import numpy as np
import pytest
from cases import QUICK, hyperparameters, random_case

from grokjax.core import optimizers
from grokjax.core.problem import Inputs, Problem, State
from grokjax.errors import InputError
from grokjax.measures import registry
from grokjax.training import one_run

MEASURES = dict(registry.MEASURES)
every_measure = pytest.mark.parametrize("m", MEASURES.values(), ids=MEASURES)
DTYPES = {"float": np.float32, "int32": np.int32, "bool": np.bool_}

CASE = random_case(7, fraction=0.2)  # which holds out a pair of every sum
CFG, N_TRAIN = CASE.cfg, len(CASE.train_pairs)
PROBLEM = Problem(CFG, n_train=N_TRAIN)
# Two ordinary models, and one whose weights have all decayed to zero.
MODELS = {
    "random": CASE.params,
    "another": random_case(7, seed=1).params,
    "zero": {key: np.zeros_like(value) for key, value in CASE.params.items()},
}


NOISY = CASE.answers.copy()  # with label noise on three training pairs
NOISY[CASE.train_pairs[:3]] = (NOISY[CASE.train_pairs[:3]] + 1) % CFG.p


def state(params) -> State:
    """A run with these weights, about to take a step of full length."""
    h = hyperparameters(warmup_steps=0)
    inputs = Inputs(np.uint32(0), h, CASE.train_pairs, NOISY, task_answers=CASE.answers)
    return State(params, optimizers.build("adamw", h).init(params), inputs)


def shared(state):
    return one_run.shared(PROBLEM, state.inputs, state.params, state.opt_state)


compiled = jax.jit(jax.vmap(lambda state: registry.compute(MEASURES, shared(state))), compiler_options=QUICK)


def side_by_side(names) -> dict[str, dict[str, np.ndarray]]:
    """All measures of some models under jit and vmap, by model and measure."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *(state(MODELS[name]) for name in names))
    values = {key: np.asarray(value) for key, value in compiled(stacked).items()}
    return {name: {key: value[i] for key, value in values.items()} for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def values():
    return side_by_side(["random", "another", "zero"])


@every_measure
def test_metadata(m):
    assert m.name.isidentifier()
    assert MEASURES[m.name] is m
    assert m.group
    assert m.unit
    assert m.source
    assert m.description.endswith(".")
    assert m.dtype in DTYPES
    assert set(m.shape) <= set(registry.DIMS)
    assert m.count_of is None or (m.count_of in registry.COUNTS and m.dtype == "int32")
    assert m.when_null.endswith("the run diverged")
    if m.dtype != "bool":
        low, high = bounds(m)
        assert low < high


def test_what_is_read_over_all_pairs_says_so():
    """Of a task of one's own that leaves pairs out it is null: the frequencies of a neuron, a key rule or a product."""
    found = {name for name, measure in MEASURES.items() if measure.whole_grid}
    neurons = {"neuron_fve", "neuron_freq", "neurons_over_85", "neurons_per_freq"}
    assert found == neurons | {"key_freqs_neurons", "n_key_freqs_neurons", "logit_block_norm", "products_loss"}


@every_measure
def test_declared_shape_and_dtype(m, values):
    value = values["random"][m.name]
    assert value.shape == tuple(registry.DIMS[dim](PROBLEM) for dim in m.shape)
    assert value.dtype == DTYPES[m.dtype]


@every_measure
def test_finite_and_in_the_declared_range(m, values):
    for model in ("random", "another"):
        value = registry.counts_to_shares(MEASURES, {m.name: values[model][m.name]}, PROBLEM)[m.name]
        assert np.all(np.isfinite(value))
        if m.dtype != "bool":
            low, high = bounds(m)
            assert np.all(value >= low - 1e-6)
            assert np.all(value <= high + 1e-6)


def bounds(m):
    """The two ends of the range as numbers, for the models here."""
    ends = re.fullmatch(r"[\[(](.+), (.+)[\])]", m.range)
    assert ends, f"'{m.range}' is not written as [low, high]"
    names = {"P": CFG.p, "d_mlp": CFG.d_mlp, "n_layers": CFG.n_layers, "inf": math.inf, "log": math.log}
    written = [end.replace("∞", "inf").replace("log 3", "log(3)").replace("s d_", "s * d_") for end in ends.groups()]
    return [eval(end, {"__builtins__": {}}, names) for end in written]


@pytest.fixture(scope="module")
def derivatives():
    """The gradient and the next update, which take long to compile operation by operation."""
    both = jax.jit(lambda state: (shared(state).grads, shared(state).updates), compiler_options=QUICK)
    return both(state(CASE.params))


@every_measure
def test_same_alone_as_compiled_with_all_others_under_vmap(m, values, derivatives):
    def alone(state):
        s = shared(state)
        s.grads, s.updates = derivatives
        return m.function(s)

    # The slow ones are programs of their own; the others run operation by operation.
    got = np.asarray((jax.jit(alone, compiler_options=QUICK) if m.slow else alone)(state(CASE.params)))
    expected = values["random"][m.name]
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if m.dtype != "float":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5 * np.max(np.abs(expected)))


@every_measure
def test_tells_some_models_apart(m, values):
    if m.dtype == "float":
        one, another, zero = (values[model][m.name] for model in ("random", "another", "zero"))
        assert not np.array_equal(one, another) or not np.array_equal(one, zero)


@every_measure
def test_null_only_where_declared(m, values):
    """Where everything is zero: either a number, or NaN as `undefined` says."""
    if not m.undefined:
        assert np.all(np.isfinite(values["zero"][m.name]))


def test_a_run_does_not_feel_its_neighbours_nor_compile_anew(values):
    again = side_by_side(["zero", "another", "random"])
    assert compiled._cache_size() == 1
    for model in MODELS:
        for name, value in again[model].items():
            np.testing.assert_array_equal(value, values[model][name], err_msg=name)


def test_without_direction_measures_of_the_sum_are_left_out():
    columns = registry.in_step(("paper",))
    case = random_case(5, task="quadratic")
    names = jax.eval_shape(lambda params: registry.compute(columns, case.shared()), case.params).keys()
    assert set(columns) - set(names) == {column for column, m in columns.items() if m.needs_sum}
    assert any(m.needs_sum for m in columns.values())


def test_keyed_measures_are_named_online_in_the_step(monkeypatch):
    monkeypatch.setattr(registry, "MEASURES", MEASURES)  # without those of experiments that other tests load
    names = set(registry.in_step(registry.groups())) | set(registry.in_step(registry.groups(), slow=True))
    assert names == {m.name + "_online" if m.keyed else m.name for m in MEASURES.values()}


@pytest.fixture
def scratch(monkeypatch):
    """A registry that the test may write to."""
    monkeypatch.setattr(registry, "MEASURES", dict(registry.MEASURES))
    return registry.MEASURES


COLUMN = {"unit": "1", "description": "Nothing.", "source": "this test"}


def test_a_new_measure_is_one_function(scratch):
    @registry.measure("mine", **COLUMN)
    def n_train_pairs(s):
        return s.train_pairs_B.shape[0]

    assert registry.groups()[-1] == "mine"
    assert registry.compute(registry.in_step(("mine",)), CASE.shared())["n_train_pairs"] == N_TRAIN


def test_a_clash_of_names_is_refused(scratch):
    with pytest.raises(InputError, match=r"measure 'train_loss' is already defined in .*\.py: choose another"):
        registry.measure("mine", name="train_loss", **COLUMN)(lambda s: 0)
    assert scratch["train_loss"] is MEASURES["train_loss"]


def test_loading_the_same_file_twice_is_no_clash(scratch):
    for _ in range(2):
        namespace = {}
        exec(compile("def mine(s):\n    return 0\n", "experiment.py", "exec"), namespace)
        registry.measure("mine", **COLUMN)(namespace["mine"])
    assert scratch["mine"].function is namespace["mine"]


def test_unknown_names_are_answered_with_the_known(scratch):
    with pytest.raises(InputError, match="group 'papers' is unknown: did you mean 'paper'"):
        registry.of_groups(("papers",))
    with pytest.raises(InputError, match="measure 'mine': dimension 'freqs' is unknown: did you mean 'freq'"):
        registry.measure("mine", name="mine", shape=("freqs",), **COLUMN)(lambda s: 0)
    assert "mine" not in scratch
