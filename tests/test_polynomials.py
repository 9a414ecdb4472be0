"""Polynomials from text against Python's own integers, and what is none."""

import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax import tasks
from grokjax.errors import InputError
from grokjax.polynomials import LONGEST, looks_like_one, polynomial

atoms = st.one_of(st.sampled_from(["a", "b"]), st.integers(0, 10**12).map(str))


def larger(inner):
    return st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", "*", " * "]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"(-{text})"),
        st.tuples(inner, st.integers(0, 9)).map(lambda pair: f"({pair[0]})^{pair[1]}"),
    )


texts = st.recursive(atoms, larger, max_leaves=8).filter(lambda text: len(text) <= LONGEST)


@given(texts, st.sampled_from([3, 7, 10, 97, 113]))
def test_values_are_those_of_integers(text, p):
    a, b = np.divmod(np.arange(p * p), p)
    found = polynomial(text)(a, b, p)
    assert found.shape == a.shape
    some = random.Random(text).sample(range(p * p), 9)
    expected = [eval(text.replace("^", "**"), {"a": int(a[i]), "b": int(b[i])}) % p for i in some]
    assert found[some].tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a^2 + a*b + b^2", 7 % 5), ("-a + 3", 2), ("2*a^0", 2), ("a^2*b", 2), ("-a^2", 4), ("a - b - 1", 3), (" a ", 1)],
)
def test_precedence(text, expected):
    assert polynomial(text)(np.array([1]), np.array([2]), 5) == expected


def test_powers_are_by_squaring_modulo_p():
    start = time.perf_counter()
    value = polynomial(f"a^{10**90}")(np.arange(9_973), np.zeros(9_973, int), 9_973)
    assert time.perf_counter() - start < 5
    assert value[2] == pow(2, 10**90, 9_973)
    assert polynomial("a^0")(np.array([0]), np.array([0]), 7) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a**2", "a, b, an integer or ( is wanted before '*2'"),
        ("a b", "+, -, * or ^ is wanted before 'b'"),
        ("2a", "+, -, * or ^ is wanted before 'a'"),
        ("a^-1", "an exponent, which is an integer, is wanted before '-1'"),
        ("a^b", "an exponent, which is an integer, is wanted before 'b'"),
        ("a^2^3", "+, -, * or ^ is wanted before '^3'"),
        ("(a", ") is wanted at the end"),
        ("a + ", "a, b, an integer or ( is wanted at the end"),
        ("a)", "+, -, * or ^ is wanted before ')'"),
        ("()", "a, b, an integer or ( is wanted before ')'"),
    ],
)
def test_what_is_none_is_told_where(text, said):
    with pytest.raises(InputError) as refused:
        polynomial(text)
    assert str(refused.value) == f"task '{text}' is no polynomial in a and b: {said}."


def test_length_is_bounded_and_nesting_with_it():
    deepest = "(" * 99 + "a" + ")" * 99
    assert polynomial(deepest)(np.array([3]), np.array([0]), 7) == 3
    with pytest.raises(InputError, match="has 201 letters, but a polynomial has at most 200"):
        polynomial("a" + "+a" * 100)


@pytest.mark.parametrize("text", ["add", "a/b", "c", "a.b", "__import__('os')", "", "  ", "a\n", "٣*a", "x^2"])
def test_other_text_is_no_polynomial(text):
    assert not looks_like_one(text)


@pytest.mark.parametrize("p", [5, 8, 11])
def test_as_a_task(p):
    assert np.array_equal(tasks.answers("a^2 + a*b + b^2", p), tasks.answers("quadratic", p))
    assert np.array_equal(tasks.answers("a*b", p), np.outer(np.arange(p), np.arange(p)).ravel() % p)
    directions = {"a + b": 1, "3*a - 3*b": -1, "(a + b)^2": 1, "a^2 - b^2": None, "a": None, "5": 1}
    if p == 8:
        directions["(a + b)^2"] = 1
    assert {text: tasks.get(text).direction_at(p) for text in directions} == directions


def test_what_is_neither_a_name_nor_a_polynomial_is_unknown():
    with pytest.raises(InputError, match=r"task 'ad' is unknown: did you mean 'add'\?"):
        tasks.get("ad")
    with pytest.raises(InputError, match=r"task 'ab' is no polynomial"):
        tasks.get("ab")


def test_a_name_that_is_registered_comes_first(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    tasks.register(lambda a, b, p: a * 0 + 1, name="ab")
    assert set(tasks.answers("ab", 5)) == {1}
