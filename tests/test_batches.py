"""Minibatches: epochs are permutations, steps those of a loop by hand, and bits the run's own wherever it goes on."""

import functools

import jax
import numpy as np
import oracle
import oracle_mlp
import pytest
import tiny
from cases import QUICK
from doubles import StopAfter
from launches import assert_equal_sweeps
from tiers import long_but

import grokjax
from grokjax import sweeps
from grokjax.core import backends, batches
from grokjax.errors import InputError
from grokjax.training import layouts, one_run, tune
from grokjax.training.layouts import Layout
from grokjax.training.population import Population

SIZE = 8  # of 29 pairs: four batches, of which the last one has five


def get_config(size=SIZE):
    c = tiny.get_config()
    c.batch_size = size
    return c


RUNS = sweeps.expand(get_config()).runs
PROBLEM = RUNS[0].problem()


def epochs(problem, inputs, numbers):
    """The pairs of some epochs' batches, of the last one those that count."""
    found = []
    for number in numbers:
        pairs = batches.epoch(problem, inputs, number)
        weights = [batches.prepared(problem, inputs, pairs[i], i).weights_B for i in range(len(pairs))]
        found.append([np.asarray(one)[np.asarray(w) == 1] for one, w in zip(pairs, weights, strict=True)])
    return found


@pytest.mark.parametrize("size", [1, 8, 28, 29])
def test_an_epoch_is_a_permutation_of_the_training_pairs(size):
    problem, inputs = sweeps.expand(get_config(size)).runs[0].problem(), RUNS[0].inputs()
    assert (problem.n_train, batches.per_epoch(problem)) == (29, {1: 29, 8: 4, 28: 2, 29: 1}[size])
    found = epochs(problem, inputs, range(3))
    for one in found:
        assert [len(batch) for batch in one] == [size] * (29 // size) + [29 % size] * (29 % size > 0)
        np.testing.assert_array_equal(np.sort(np.concatenate(one)), inputs.train_pairs)
    orders = [np.concatenate(one).tolist() for one in found]
    assert len(set(map(tuple, orders))) == 3


def test_orders_are_of_the_run_s_seed():
    orders = [np.concatenate(epochs(PROBLEM, RUNS[0].inputs()._replace(seed=np.uint32(s)), [0])[0]) for s in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert np.any(orders[0] != orders[2])


def test_a_batch_s_loss_is_the_mean_over_its_pairs():
    inputs = RUNS[0].inputs()
    params = jax.jit(functools.partial(one_run.init, PROBLEM), compiler_options=QUICK)(inputs).params
    for place in (0, 3):
        pairs_B = epochs(PROBLEM, inputs, [0])[0][place]
        batch = batches.prepared(PROBLEM, inputs, batches.epoch(PROBLEM, inputs, 0)[place], place)
        logits, _ = oracle.forward(params, pairs_B)
        expected = oracle.mean_loss(logits, inputs.answers[pairs_B])
        assert backends.loss(PROBLEM, params, *batch) == pytest.approx(expected, rel=1e-5)


def test_steps_are_those_of_a_loop_by_hand():
    """An MLP under SGD with momentum, in float64: gradients by the chain rule, pair by pair."""
    c = get_config(10)
    c.model.architecture, c.optimizer, c.warmup_steps, c.sweep.weight_decay = "mlp", "sgd", 3, (0.3,)
    run = sweeps.expand(c).runs[1]
    problem, inputs, n_steps = run.problem(), run.inputs(), 8
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, inputs)
        state = jax.jit(functools.partial(one_run.init, problem), compiler_options=QUICK)(inputs)
        train = jax.jit(functools.partial(one_run.train, problem), compiler_options=QUICK)
        found = train(state, n_steps)
    assert int(found.step) == n_steps
    params = {name: np.array(x, np.float64) for name, x in state.params.items()}
    momentum = {name: np.zeros_like(x) for name, x in params.items()}
    for step in range(n_steps):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(run.values["seed"]), 2), step // 3)
        order = np.asarray(jax.random.permutation(key, run.inputs().train_pairs))
        pairs = order[step % 3 * 10 : step % 3 * 10 + 10]
        grads = oracle_mlp.gradient(params, pairs, inputs.answers[pairs])
        rate = oracle.warmup(step, float(np.float32(run.values["learning_rate"])), 3)
        decay, beta = (float(np.float32(run.values[name])) for name in ("weight_decay", "beta1"))
        for name in params:
            momentum[name] = beta * momentum[name] + grads[name] + decay * params[name]
            params[name] = params[name] - rate * momentum[name]
    for name in params:
        np.testing.assert_allclose(found.params[name], params[name], rtol=1e-9, atol=1e-11, err_msg=name)
        assert np.any(np.abs(params[name] - np.asarray(state.params[name])) > 1e-4)


LAYOUTS = {"one lane": Layout(3, 1, 1, 1), "three lanes": Layout(3, 3, 3, 1)}


@pytest.mark.parametrize("layout", long_but(["one lane"], LAYOUTS))
def test_bits_depend_on_neither_slot_nor_dispatch_nor_where_a_run_goes_on(layout):
    """Resumed in the middle of epochs and in another slot, beside runs that are at other steps."""
    whole = Population(PROBLEM, layout)
    whole.start({0: RUNS[0].inputs(), 1: RUNS[1].inputs()})
    whole.advance([0, 1], 1, 30)
    expected = jax.tree.map(np.asarray, whole.take([0, 1]))
    assert np.any(expected.params["embed.W_E"][0] != expected.params["embed.W_E"][1])
    pieces = Population(PROBLEM, layout)
    pieces.start({2: RUNS[1].inputs()})
    pieces.advance([2], 1, 3)
    pieces.start({0: RUNS[0].inputs()})
    for n_steps in (5, 1, 0, 7):
        pieces.advance([0, 2], 1, n_steps, evaluate=False)
    assert pieces.take([0, 2]).step.tolist() == [13, 16]
    saved = jax.tree.map(np.asarray, pieces.take([0, 2]))
    again = Population(PROBLEM, layout)
    again.start({2: RUNS[3].inputs()})
    again.restore(saved, [1, 0])
    again.advance([0, 1, 2], 1, 14)
    jax.tree.map(np.testing.assert_array_equal, again.take([0]), jax.tree.map(lambda x: x[1:], expected))
    again.advance([1], 1, 3)
    jax.tree.map(np.testing.assert_array_equal, again.take([1]), jax.tree.map(lambda x: x[:1], expected))


@pytest.mark.long
def test_one_batch_of_all_pairs_is_the_full_batch():
    """To rounding: the order of the sum over the pairs differs."""
    both = [sweeps.expand(get_config(size)).runs[0] for size in (29, 0)]
    found = []
    for run in both:
        trained = functools.partial(one_run.train, run.problem())
        state = one_run.init(run.problem(), run.inputs())
        assert (state.step is None) == (run.values["batch_size"] == 0)
        found.append(jax.jit(trained, compiler_options=QUICK)(state, 5).params)
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_sweep_goes_on_with_the_bits_of_one_that_was_not_stopped(tmp_path, monkeypatch):
    """Stopped again and again, inside segments of evaluations and inside epochs."""
    c = get_config()
    c.sweep.weight_decay, c.steps = None, 60
    assert tiny.train(c, tmp_path / "whole")[0] == 0
    monkeypatch.setattr("grokjax.training.scheduler.DISPATCH_SECONDS", 1e-6)
    monkeypatch.setattr("grokjax.training.scheduler.Group._size", lambda group: (1, *_odd(20 - group.offset)))
    status, stops = 143, 0
    while status == 143:
        status, said = tiny.train(c, tmp_path / "stopped", stop=StopAfter(3))
        stops += status == 143
        assert stops < 50, said
    assert status == 0
    assert stops > 2
    assert_equal_sweeps(tmp_path / "whole", tmp_path / "stopped")


def _odd(left):
    """Steps of a dispatch that cuts segments and epochs, and whether it ends the segment."""
    n_steps = min(7, left)
    return n_steps, n_steps == left


@pytest.mark.parametrize("size", [30, 500])
def test_a_batch_of_more_pairs_than_there_are_is_refused(size):
    with pytest.raises(InputError, match=rf"config\.batch_size is {size}, but it must be at most 29, the"):
        sweeps.expand(get_config(size))


def test_train_one_takes_batches():
    c = get_config()
    c.sweep.weight_decay = c.sweep.seed = None
    state = grokjax.train_one(c, seed=1, weight_decay=0.0, steps=20)
    pop = Population(PROBLEM, LAYOUTS["one lane"])
    pop.start({0: RUNS[1].inputs()})
    pop.advance([0], 1, 20)
    for name, x in pop.take([0]).params.items():
        np.testing.assert_allclose(state.params[name], x[0], rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_follows_from_smaller_steps():
    full = sweeps.expand(get_config(0)).runs
    assert backends.unsuited(PROBLEM).startswith("full batches")
    assert not backends.on_cpu(PROBLEM, 1, 1).n_parts
    assert tune.operations(RUNS) == pytest.approx(tune.operations(full) * SIZE / 29)
    assert tune.signature(PROBLEM, jax.devices()[0]) != tune.signature(full[0].problem(), jax.devices()[0])
    wide = [sweeps.expand(get_config(size)).runs[0].problem() for size in (8, 29, 0)]
    small, whole, all_pairs = (layouts.needed_bytes(problem, layouts.together(problem, 10_000)) for problem in wide)
    assert small < whole
    assert all_pairs <= whole
