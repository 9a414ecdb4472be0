"""Tasks against double loops, splits against their definitions, and what bad tasks are told."""

import random

import numpy as np
import pytest
from cases import REFERENCE, needs_reference

from grokjax import tasks
from grokjax.errors import InputError

BY_HAND = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "quadratic": lambda a, b: a**2 + a * b + b**2,
}


@pytest.fixture
def scratch(monkeypatch):
    """A registry that the test may write to."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    return tasks.TASKS


@pytest.mark.parametrize("p", [5, 7, 13, 113])
@pytest.mark.parametrize("name", BY_HAND)
def test_answers_equal_a_double_loop(name, p):
    expected = [BY_HAND[name](a, b) % p for a in range(p) for b in range(p)]
    answers = tasks.answers(name, p)
    assert answers.dtype == np.int32
    assert answers.tolist() == expected


def test_every_task_but_random_and_division_is_checked_by_hand():
    assert set(tasks.TASKS) - {"random", "divide"} == set(BY_HAND)


@pytest.mark.parametrize("p", [3, 7, 97])
def test_division_undoes_multiplication_and_has_no_pair_with_b_zero(p):
    quotients = tasks.answers("divide", p).reshape(p, p)
    for b in range(1, p):
        assert (quotients[:, b] * b % p).tolist() == list(range(p))
    assert tasks.get("divide").nonzero_b
    assert tasks.n_pairs(p, nonzero_b=True) == p * p - p


@pytest.mark.parametrize("split", tasks.SPLITS)
def test_a_split_without_zeros_takes_the_others_in_the_same_order(split):
    p, seed = 11, 4
    n = tasks.n_train(p, 0.5, nonzero_b=True)
    assert n == 55
    # So many of all pairs that exactly n of them have another b.
    whole = [tasks.train_pairs(p, (k + 0.5) / p**2, seed, split) for k in range(n, p * p)]
    expected = next(pairs[pairs % p != 0] for pairs in whole if np.sum(pairs % p != 0) == n)
    assert np.array_equal(tasks.train_pairs(p, 0.5, seed, split, nonzero_b=True), expected)


@pytest.mark.parametrize("name", [*BY_HAND, "group Z_7"])
def test_direction_says_what_the_answer_depends_on(name):
    p, direction = 7, tasks.get(name).direction
    answers = tasks.answers(name, p).reshape(p, p)

    def depends_on_sum_alone(sign):
        return all(
            answers[a, b] == answers[c, d]
            for a in range(p)
            for b in range(p)
            for c in range(p)
            for d in range(p)
            if (a + sign * b - c - sign * d) % p == 0
        )

    assert [s for s in (1, -1) if depends_on_sum_alone(s)] == ([] if direction is None else [direction])


@pytest.mark.parametrize(("direction", "right"), [(1, -1), (-1, 1)])
def test_a_direction_that_is_not_the_answers_is_refused(direction, right, scratch):
    tasks.register(lambda a, b, p: a * b + a, name="neither", direction=direction)
    tasks.register(lambda a, b, p: 3 * (a + right * b), name="other", direction=direction)
    tasks.register(lambda a, b, p: (a + direction * b) ** 2, name="as_it_says", direction=direction)
    for name in ("neither", "other"):
        with pytest.raises(InputError, match=f"task '{name}' has direction=.*give {right:+d}".replace("+", r"\+")):
            tasks.answers(name, 7)
    assert len(tasks.answers("as_it_says", 7)) == 49


def test_random_answers_depend_on_the_seed_alone_and_fill_the_range():
    one, same, other = (tasks.answers("random", 23, seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert np.mean(one == other) < 0.15  # 1/23 by chance
    assert set(one.tolist()) == set(range(23))
    counts = np.bincount(one, minlength=23)
    assert counts.max() < 3 * counts.mean()
    assert tasks.get("random").draws
    assert not tasks.get("add").draws


@pytest.mark.parametrize(
    ("p", "fraction", "n"), [(113, 0.3, 3830), (113, 0.5, 6384), (5, 0.5, 12), (53, 0.3, 842), (10, 0.29, 28)]
)
def test_split_size_is_rounded_down(p, fraction, n):
    # 0.29 * 100 is 28.999… in floating point: the paper's code rounds that down too.
    assert tasks.n_train(p, fraction) == n
    for split in tasks.SPLITS:
        assert tasks.train_pairs(p, fraction, 0, split).shape == (n,)


@pytest.mark.parametrize("split", tasks.SPLITS)
def test_train_pairs_are_sorted_distinct_and_repeatable(split):
    p = 31
    pairs = tasks.train_pairs(p, 0.4, 5, split)
    assert pairs.dtype == np.int32
    assert np.all(np.diff(pairs) > 0)
    assert pairs[0] >= 0
    assert pairs[-1] < p * p
    assert np.array_equal(pairs, tasks.train_pairs(p, 0.4, 5, split))
    other = tasks.train_pairs(p, 0.4, 6, split)
    assert 0.3 < np.mean(np.isin(pairs, other)) < 0.5
    # Spread over the whole grid, not a corner of it.
    assert abs(np.mean(pairs) / (p * p) - 0.5) < 0.05


@pytest.mark.parametrize("seed", [0, 1, 598])
def test_python_split_is_the_released_code_s_shuffle(seed):
    p, state = 23, random.getstate()
    pairs = [(a, b) for a in range(p) for b in range(p)]
    random.seed(seed)
    random.shuffle(pairs)
    random.setstate(state)
    expected = sorted(a * p + b for a, b in pairs[: int(0.3 * len(pairs))])
    assert tasks.train_pairs(p, 0.3, seed, "python").tolist() == expected
    assert random.getstate() == state  # Python's global generator is left alone


@needs_reference
@pytest.mark.parametrize(
    ("name", "seed"),
    [("released_wd0.1", 1), ("mod113_step400", 0), ("mod113_step4000", 0), ("mod113_step10000", 0)],
)
def test_python_split_meets_the_reference_models(name, seed):
    mask = np.load(REFERENCE / f"{name}.npz")["train_mask"]
    assert np.array_equal(np.flatnonzero(mask), tasks.train_pairs(113, 0.3, seed, "python"))


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(InputError, match=r"task 'ad' is unknown: did you mean 'add'\?.*multiply.*subtract"):
        tasks.answers("ad", 7)
    with pytest.raises(InputError, match=r"config.split 'torch' is unknown.*jax, python"):
        tasks.train_pairs(7, 0.3, 0, "torch")


@pytest.mark.parametrize("p", [4, 9, 12, 121])
def test_multiply_needs_a_prime(p):
    with pytest.raises(InputError, match=f"config.p is {p}, but task 'multiply' needs a prime"):
        tasks.answers("multiply", p)
    assert tasks.answers("add", p).shape == (p * p,)


def test_is_prime():
    sieve = [n for n in range(2, 400) if not any(n % d == 0 for d in range(2, n))]
    assert [n for n in range(400) if tasks.is_prime(n)] == sieve


def test_a_new_task_is_one_function(scratch):
    @tasks.register
    def a_plus_2b(a, b, p):
        return a + 2 * b

    @tasks.register(name="twice", direction=1)
    def double(a, b, p):
        return 2 * (a + b)

    assert tasks.answers("a_plus_2b", 5).tolist() == [(a + 2 * b) % 5 for a in range(5) for b in range(5)]
    assert tasks.get("a_plus_2b").direction is None
    assert tasks.answers("twice", 5).tolist() == [2 * (a + b) % 5 for a in range(5) for b in range(5)]
    assert tasks.get("twice").direction == 1
    assert "double" not in tasks.TASKS
    assert double(1, 2, 5) == 6  # the function itself is handed back unchanged


def test_negative_answers_are_taken_modulo_p(scratch):
    tasks.register(lambda a, b, p: -1 - a - b, name="negative")
    assert tasks.answers("negative", 5).tolist() == [(-1 - a - b) % 5 for a in range(5) for b in range(5)]


def test_a_clash_of_names_is_refused(scratch):
    with pytest.raises(InputError, match=r"task 'add' is already defined in .*tasks\.py: choose another name"):
        tasks.register(lambda a, b, p: a, name="add")
    assert tasks.answers("add", 5)[1] == 1


def test_loading_the_same_file_twice_is_no_clash(scratch):
    source = "def mine(a, b, p):\n    return a\n"
    for _ in range(2):
        namespace = {}
        exec(compile(source, "experiment.py", "exec"), namespace)
        tasks.register(namespace["mine"])
    exec(compile(source, "another.py", "exec"), namespace)
    with pytest.raises(InputError, match=r"task 'mine' is already defined in experiment\.py"):
        tasks.register(namespace["mine"])


@pytest.mark.parametrize("direction", [0, 2, "sum"])
def test_a_direction_is_a_sign(scratch, direction):
    with pytest.raises(InputError, match=r"direction is .*must be \+1, -1 or None"):
        tasks.register(lambda a, b, p: a, name="odd", direction=direction)
    assert "odd" not in tasks.TASKS


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda a, b, p: a[:-1], r"int64\[24\]"),
        (lambda a, b, p: a.reshape(p, p), r"int64\[5, 5\]"),
        (lambda a, b, p: 3, r"int64\[\]"),
        (lambda a, b, p: a / 2, r"float64\[25\]"),
        (lambda a, b, p: a == b, r"bool\[25\]"),
    ],
)
def test_a_task_that_gives_no_integer_per_pair_is_refused(scratch, function, what):
    tasks.register(function, name="bad")
    with pytest.raises(InputError, match=rf"task 'bad' returned {what}, but it must return one integer per pair"):
        tasks.answers("bad", 5)


def test_a_large_modulus_is_checked_without_calling_the_task(scratch):
    """Below 1 025 the function is called, above it only its need of a prime is looked at."""
    called = []
    tasks.register(lambda a, b, p: called.append(p) or a, name="seen", needs_prime=True)
    tasks.check("seen", 1_021)
    tasks.check("seen", 1_031)
    assert called == [1_021]
    with pytest.raises(InputError) as refused:
        tasks.check("seen", 1_027)  # 13 · 79
    assert str(refused.value) == "config.p is 1027, but task 'seen' needs a prime."
    tasks.register(lambda a, b, p: 1 / 0, name="failing")
    with pytest.raises(InputError) as refused:
        tasks.check("failing", 1_024)
    assert str(refused.value) == "task 'failing' failed with ZeroDivisionError: division by zero"
    tasks.check("failing", 1_025)
