"""The stop rule on the device, and the training pairs in blocks, against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from grokjax import sweeps
from grokjax.core import backends
from grokjax.core.problem import State
from grokjax.training import one_run

RUN = sweeps.expand(tiny.get_config()).runs[0]


def followed(losses, stop_loss, stop_evals):
    """Evaluations in a row below the limit, and whether the run has stopped, after each loss."""
    inputs = RUN.inputs()._replace(stop_loss=np.float32(stop_loss), stop_evals=np.int32(stop_evals))
    state, found = State({}, (), inputs), []
    for loss in losses:
        state = one_run.counted(state, jnp.float32(loss))
        found.append((int(state.below), bool(one_run.stopped(state))))
    return found


def test_a_run_stops_after_so_many_evaluations_in_a_row_below():
    losses = [0.75, 0.25, 0.25, 0.75, 0.25, 0.25, 0.25]
    counts = [0, 1, 2, 0, 1, 2, 3]
    assert followed(losses, 0.5, 3) == [(n, n == 3) for n in counts]
    assert followed([0.25], 0.5, 1) == [(1, True)]


def test_a_run_that_has_not_been_evaluated_has_not_stopped():
    assert not one_run.stopped(State({}, (), RUN.inputs()._replace(stop_evals=np.int32(1))))


@pytest.mark.parametrize("loss", [0.5, np.nextafter(np.float32(0.5), np.float32(1)), np.inf, np.nan])
def test_what_is_not_below_the_limit_does_not_count(loss):
    assert followed([0.25, loss], 0.5, 3) == [(1, False), (0, False)]


def test_without_the_rule_a_loss_of_nothing_does_not_count():
    assert RUN.values["stop_loss"] == 0
    assert followed([0.0, -0.0, 0.0], RUN.inputs().stop_loss, 1) == [(0, False)] * 3


def test_a_run_has_the_rule_of_its_config():
    c = tiny.get_config()
    c.sweep.stop_loss, c.sweep.stop_evals = (0.5, 0.25), (2, 7)
    inputs = [
        run.inputs() for run in sweeps.expand(c).runs if run.values["seed"] == 0 if not run.values["weight_decay"]
    ]
    assert [(float(one.stop_loss), int(one.stop_evals)) for one in inputs] == [(0.5, 2), (0.5, 7), (0.25, 2), (0.25, 7)]
    assert (inputs[0].stop_loss.dtype, inputs[0].stop_evals.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(("size", "n_blocks", "length"), [(0, 1, 29), (29, 1, 29), (28, 2, 15), (10, 3, 10), (8, 4, 8)])
def test_blocks_hold_every_training_pair_once(size, n_blocks, length):
    """29 pairs; what fills the last block has weight 0."""
    inputs = RUN.inputs()
    found = backends.blocks(RUN.problem(), inputs, size)
    assert found.labels.shape == found.weights.shape == (n_blocks, length)
    counts = np.ravel(found.weights) == 1
    assert counts.sum() == 29
    assert counts[:29].all()
    np.testing.assert_array_equal(np.ravel(found.labels)[counts], inputs.answers[inputs.train_pairs])
    np.testing.assert_array_equal(inputs.answers, [(a + b) % 7 for a in range(7) for b in range(7)])


def test_the_split_follows_its_own_seed():
    c = tiny.get_config()
    c.split_seed, c.sweep.weight_decay = 3, (1.0,)
    one, other = (run.inputs() for run in sweeps.expand(c).runs)
    np.testing.assert_array_equal(one.train_pairs, other.train_pairs)
    assert (one.seed, other.seed) == (0, 1)
    c.split_seed = 4
    assert set(sweeps.expand(c).runs[0].inputs().train_pairs) != set(one.train_pairs)


def test_a_split_seed_of_0_is_one():
    c = tiny.get_config()
    c.split_seed, c.sweep.weight_decay = 0, (1.0,)
    assert [(run.values["seed"], run.split_seed) for run in sweeps.expand(c).runs] == [(0, 0), (1, 0)]
