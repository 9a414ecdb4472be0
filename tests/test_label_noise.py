"""Label noise: which answers are drawn anew, that they are trained on, and what the columns say of them."""

import jax
import numpy as np
import pytest
import tiny
from cases import random_case

import grokjax
from grokjax import sweeps, tasks
from grokjax.core import backends
from grokjax.measures.shared import Shared

P, N_TRAIN = 23, 200
ANSWERS, PAIRS = tasks.answers("add", P), np.sort(np.random.default_rng(0).permutation(P * P)[:N_TRAIN])


def noisy(share, seed=0):
    return np.asarray(tasks.with_noise(ANSWERS, PAIRS.astype(np.int32), P, share, seed))


def changed(share, seed=0):
    return set(np.flatnonzero(noisy(share, seed) != ANSWERS))


def test_the_share_is_drawn_of_training_pairs_alone():
    assert changed(0.0) == set()
    for share in (0.1, 0.5, 1.0):
        there = changed(share)
        assert there <= set(PAIRS)
        # A drawn answer is the task's once in P: at most as many as the share says, at least that less 4 σ.
        n = round(share * N_TRAIN)
        assert n - n / P - 4 * np.sqrt(n / P) <= len(there) <= n
    drawn = noisy(1.0)[PAIRS]
    assert set(drawn) == set(range(P))


def test_more_noise_keeps_the_less_and_each_seed_has_its_own():
    assert changed(0.1) < changed(0.3) < changed(1.0)
    where = np.array(sorted(changed(0.1)))
    assert np.array_equal(noisy(0.1)[where], noisy(1.0)[where])
    assert len(changed(0.3) & changed(0.3, seed=1)) < 0.6 * len(changed(0.3))


def one_run(**fields):
    c = tiny.get_config()
    c.steps, c.label_noise = 60, 0.4
    c.sweep.seed = c.sweep.weight_decay = None
    c.update(fields)
    return c


def test_a_run_draws_by_its_split_s_seed_and_trains_on_what_it_drew():
    runs = [sweeps.expand(one_run(seed=seed, split_seed=split)).runs[0] for seed, split in ((0, 5), (1, 5), (5, 6))]
    first, second, other = (run.inputs() for run in runs)
    assert np.array_equal(first.answers, second.answers)
    assert not np.array_equal(first.answers, other.answers)
    assert np.array_equal(first.task_answers, tasks.answers("add", 7))
    _, labels = backends.batch(runs[0].problem(), first)
    assert np.array_equal(labels, first.answers[first.train_pairs])
    test = np.setdiff1d(np.arange(49), first.train_pairs)
    assert np.array_equal(first.answers[test], first.task_answers[test])


def test_without_noise_nothing_is_in_the_state():
    run = sweeps.expand(one_run(label_noise=0.0)).runs[0]
    assert run.inputs().task_answers is None
    assert not run.problem().label_noise
    c = one_run()
    c.sweep.label_noise = (0.0, 0.1, 0.2)
    assert [len(runs) for runs in sweeps.expand(c).groups()] == [1, 2]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*hardly better than a guess")  # after so few steps
def test_columns_are_by_the_answers_that_they_say(tmp_path):
    c = one_run()
    c.sweep.label_noise = (0.0, 0.4)
    status, said = tiny.train(c, tmp_path)
    assert status == 0, said
    frame = grokjax.read_metrics(tmp_path)
    last = frame[frame.step == 60].set_index("run")
    assert last.corrupted_acc.isna().tolist() == [True, False]
    run = sweeps.expand(c).runs[1]
    inputs, params = run.inputs(), grokjax.load_params(tmp_path, 1)
    given, _ = backends.XLA.forward(run.problem().model, params)
    top, train = np.argmax(given, 1), np.isin(np.arange(49), inputs.train_pairs)
    wrong = train & (inputs.answers != inputs.task_answers)
    log = given - jax.nn.logsumexp(given, axis=1)[:, None]
    expected = {
        "train_acc": np.mean((top == inputs.answers)[train]),
        "test_acc": np.mean((top == inputs.task_answers)[~train]),
        "train_loss": -np.mean(log[np.arange(49), inputs.answers][train]),
        "test_loss": -np.mean(log[np.arange(49), inputs.task_answers][~train]),
        "corrupted_acc": np.mean((top == inputs.answers)[wrong]),
        "corrupted_true_acc": np.mean((top == inputs.task_answers)[wrong]),
        "uncorrupted_acc": np.mean((top == inputs.task_answers)[train & ~wrong]),
    }
    measured = grokjax.measure(f"{tmp_path}:1", groups=("label_noise",))
    for name, value in expected.items():
        np.testing.assert_allclose(last[name][1], value, rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(measured[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert grokjax.read_runs(tmp_path).label_noise.tolist() == [0.0, 0.4]


@pytest.mark.parametrize("name", ["excluded_loss_per_freq_K", "restricted_loss_P"])
def test_the_circuit_s_losses_look_at_the_answers_of_their_pairs(name):
    """Excluded loss is one of training, restricted loss one of the task."""
    case = random_case(7)
    other = np.asarray(tasks.with_noise(case.answers, case.train_pairs, 7, 0.5, 0))
    clean, given = case.shared(), case.shared(trained_answers_N=other)
    trained = Shared(case.cfg, 1, case.params, case.train_pairs, other)
    wanted = trained if name.startswith("excluded") else clean
    np.testing.assert_allclose(getattr(given, name), getattr(wanted, name), rtol=1e-5)
    assert not np.allclose(getattr(trained, name), getattr(clean, name), rtol=1e-3)
