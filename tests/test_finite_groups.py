"""Finite groups by name and by Cayley table: their order, their elements, and what a table that is none is told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax import finite_groups
from grokjax.errors import InputError
from grokjax.finite_groups import named

ORDERS = {
    **{"Z_1": 1, "Z_113": 113, "D_1": 2, "D_2": 4, "D_3": 6, "D_59": 118, "S_1": 1, "S_4": 24, "S_5": 120, "A_2": 1},
    **{"A_4": 12, "A_5": 60, "Q_8": 8, "S_3 x Z_7": 42, "Q_8 x Z_3 x Z_5": 120},
}


@pytest.mark.parametrize("name", ORDERS)
def test_named_groups_are_groups_of_their_order(name):
    group = named(name)
    assert group.order == finite_groups.order(name) == ORDERS[name] == len(set(group.elements))
    assert group.name == name
    assert group.identity == 0
    assert np.array_equal(finite_groups.checked(group.table, "it"), group.table)
    every = np.arange(group.order)
    assert (group.table[every, group.inverses] == 0).all()
    assert not group.table.flags.writeable


def test_permutations_compose_from_left_to_right_as_sympy_s():
    from sympy.combinatorics import Permutation, SymmetricGroup

    group = named("S_4")
    elements = sorted(SymmetricGroup(4).generate(), key=lambda x: x.array_form)
    for a, b in ((1, 2), (5, 17), (23, 8)):
        assert elements[a] * elements[b] == elements[group.table[a, b]]
        images = [elements[b].array_form[elements[a].array_form[i]] for i in range(4)]
        assert Permutation(images) == elements[group.table[a, b]]
    assert group.elements[:4] == ("()", "(2 3)", "(1 2)", "(1 2 3)")
    assert elements[3] == Permutation(3)(1, 2, 3)


def test_the_order_of_elements_does_not_change():
    """On purpose: bits of runs depend on it."""
    digests = {
        name: finite_groups.digest(named(name).table) for name in ("S_4", "S_5", "A_5", "D_59", "Q_8", "S_3 x Z_7")
    }
    assert digests == {
        "S_4": "8e5ae93019d5",
        "S_5": "1f2968875db1",
        "A_5": "931b73c5daa0",
        "D_59": "eb518df799a2",
        "Q_8": "38c63c126ff6",
        "S_3 x Z_7": "69659cb1226d",
    }


def test_a_dihedral_group_has_its_reflections_and_quaternions_have_one_involution():
    for name, involutions in (("D_59", 59), ("D_4", 5), ("Q_8", 1), ("Z_8", 1)):
        table = named(name).table
        assert np.sum(np.diag(table) == 0) - 1 == involutions


def test_only_residues_under_addition_are_addition():
    assert named("Z_12").is_addition
    assert not named("Z_3 x Z_4").is_addition
    assert not named("S_3").is_addition
    assert named("Z_2 x Z_3").elements == ("0, 0", "0, 1", "0, 2", "1, 0", "1, 1", "1, 2")


@pytest.mark.parametrize(
    "name", ["S5", "S_0", "Q_16", "E_8", "S_3 x", "S_3xZ_2", "", "Z_-3", "S_3 x  Z_2", "Z_٣", "Z_3\n"]
)
def test_what_is_no_group_is_told_what_there_is(name):
    with pytest.raises(
        InputError, match=r"config\.group is .*, but it must be Z_n, D_n \(of order 2n\), S_n, A_n or Q_8"
    ):
        named(name)


@pytest.mark.parametrize("name", ["S_8", "S_999999999", "Z_10000", "D_5000", "Z_100 x Z_100", "A_8 x Z_2"])
def test_large_groups_are_refused_before_they_are_made(name):
    with pytest.raises(InputError, match="more than 9,999 elements: choose a smaller one"):
        named(name)
    assert finite_groups.order("A_7") == math.factorial(7) // 2


# --- Cayley tables --------------------------------------------------------------------------------------------------


def saved(path, table):
    np.save(path / "mine.npy", table)
    return str(path / "mine.npy")


@given(st.sampled_from(["S_3", "Z_6", "Q_8", "A_4"]), st.randoms(use_true_random=False))
def test_renumbered_tables_are_groups(name, random):
    table = named(name).table
    order = np.array(random.sample(range(len(table)), len(table)))
    moved = np.argsort(order)[table[np.ix_(order, order)]]
    assert np.array_equal(finite_groups.checked(moved, "it"), moved)


@given(st.sampled_from(["S_3", "Z_5", "Q_8", "A_4"]), st.integers(0, 10**6), st.integers(1, 100))
def test_one_wrong_entry_makes_no_group(name, where, by):
    table = np.array(named(name).table)
    n = len(table)
    table.flat[where % n**2] = (table.flat[where % n**2] + 1 + by % (n - 1)) % n
    with pytest.raises(InputError, match=r"it (is not associative|has no identity|has no inverse)"):
        finite_groups.checked(table, "it")


NOT_ASSOCIATIVE = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]]  # a loop


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([[0, 1], [1, 2]], "is not closed: 1∘1 is 2, but it must be from 0 to 1."),
        ([[0, 1], [-1, 0]], "is not closed: 1∘0 is -1, but it must be from 0 to 1."),
        ([[1, 0], [1, 0]], "has no identity: 0 is nearest to one, but 0∘0 is 1 and 0∘0 is 1, where both must be 0."),
        ([[0, 1], [1, 1]], "has no inverse of 1: no b has 1∘b and b∘1 both 0, the identity."),
        (NOT_ASSOCIATIVE, "is not associative: (1∘1)∘2 is 2, but 1∘(1∘2) is 4."),
        ([[0, 1, 2], [1, 2, 0]], "is int64 [2, 3], but it must be [P, P]."),
        ([[0.0, 1.0], [1.0, 0.0]], "is float64, but a Cayley table holds integers, the number of a∘b at [a, b]."),
        (np.zeros((0, 0), int), "has 0 rows, but a group has from 1 to 9,999 elements here."),
    ],
)
def test_a_table_that_is_no_group_s_is_told_where(table, said, tmp_path):
    name = saved(tmp_path, np.array(table))
    with pytest.raises(InputError) as refused:
        named(name)
    assert str(refused.value) == f"config.group: {name} {said}"


def test_the_file_is_read_and_remembered_by_its_digest(tmp_path):
    name = saved(tmp_path, named("Q_8").table.astype(np.uint8))
    full = finite_groups.recorded(name)
    assert full == f"{name}@{finite_groups.digest(named('Q_8').table)}"
    assert finite_groups.recorded(full) == full
    assert np.array_equal(named(full).table, named("Q_8").table)
    assert named(full).elements == tuple("01234567")
    assert finite_groups.recorded("S_3") == "S_3"


def test_another_table_than_was_recorded_is_refused(tmp_path):
    name = f"{saved(tmp_path, named('Z_4').table)}@0123456789ab"
    with pytest.raises(InputError, match=r"holds the table \w{12}, but '0123456789ab' is wanted: restore that one"):
        named(name)


@pytest.mark.parametrize("content", [None, b"", b"no array", b"\x93NUMPY\x01\x00 half"])
def test_a_file_that_cannot_be_read(content, tmp_path):
    path = tmp_path / "mine.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine.npy cannot be read \((No such file or directory|it is no array)"):
        named(str(path))


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "mine.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        named(str(tmp_path / "mine.npy"))
