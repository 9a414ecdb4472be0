"""Blocks of finite groups against orthogonality, invariance, known dimensions, and the closed form of Z_P."""

import collections

import numpy as np
import oracle_groups
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax import finite_groups
from grokjax.core import fourier, harmonics
from grokjax.core.harmonics import COMPLEX, QUATERNIONIC, REAL
from grokjax.finite_groups import Group, named

# Sizes of blocks, worked out from the groups' character tables.
SIZES = {
    "S_3": (1, 1, 4),
    "S_4": (1, 1, 4, 9, 9),
    "S_5": (1, 1, 16, 16, 25, 25, 36),
    "A_4": (1, 2, 9),
    "A_5": (1, 9, 9, 16, 25),
    "Q_8": (1, 1, 1, 1, 4),
    "D_4": (1, 1, 1, 1, 4),
    "D_5": (1, 1, 4, 4),
    "D_59": (1, 1, *[4] * 29),
    "Z_2 x Z_4": (1, 1, 1, 1, 2, 2),
    "S_3 x Z_7": (1, 1, 2, 2, 2, 2, 2, 2, 4, 8, 8, 8),
    "Q_8 x Z_3": (1, 1, 1, 1, 2, 2, 2, 2, 4, 8),
    "Z_12": (1, 2, 2, 2, 2, 2, 1),
    "Z_113": (1, *[2] * 56),
}


def relabelled(group: Group, order) -> Group:
    """The same group, its elements numbered otherwise: element i is the one that was order[i]."""
    order = np.asarray(order)
    return Group("relabelled", np.argsort(order)[group.table[np.ix_(order, order)]].astype(np.int32), ())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_known_ones(name):
    blocks = harmonics.of_group(named(name))
    assert blocks.sizes == SIZES[name] if name.startswith("Z_1") else sorted(blocks.sizes) == sorted(SIZES[name])
    for size, dim, kind in zip(blocks.sizes, blocks.dims, blocks.kinds, strict=True):
        assert size == dim**2 * (2 if kind == COMPLEX else 1)
    assert len(set(blocks.names)) == len(blocks.names)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *[("Q_8", {QUATERNIONIC: 1, REAL: 4}), ("D_4", {REAL: 5}), ("A_4", {REAL: 2, COMPLEX: 1}), ("S_5", {REAL: 7})],
        *[("Q_8 x Z_3", {REAL: 4, QUATERNIONIC: 1, COMPLEX: 5}), ("Z_5", {REAL: 1, COMPLEX: 2})],
    ],
)
def test_types_are_the_known_ones(name, kinds):
    """Q_8 and D_4 have one character table, and are told apart by the type of their last block alone."""
    assert collections.Counter(harmonics.of_group(named(name)).kinds) == kinds


@pytest.mark.parametrize("name", SIZES)
def test_characters_are_orthogonal_and_their_squares_tell_the_type(name):
    group = named(name)
    blocks, n = harmonics.of_group(group), group.order
    norms = np.array([{REAL: 1, COMPLEX: 2, QUATERNIONIC: 4}[kind] for kind in blocks.kinds])
    np.testing.assert_allclose(blocks.characters @ blocks.characters.T / n, np.diag(norms), atol=1e-10)
    squares = np.diag(group.table)
    indicator = [{REAL: 1, COMPLEX: 0, QUATERNIONIC: -2}[kind] for kind in blocks.kinds]
    np.testing.assert_allclose(blocks.characters[:, squares].mean(1), indicator, atol=1e-10)


@pytest.mark.parametrize("name", SIZES)
def test_projections_are_invariant_from_both_sides_and_make_up_the_identity(name):
    group = named(name)
    blocks = harmonics.of_group(group)
    basis, starts = blocks.basis, np.cumsum((0, *blocks.sizes))
    np.testing.assert_allclose(basis @ basis.T, np.eye(group.order), atol=1e-12)
    by_character = oracle_groups.projections(blocks, group)
    rng = np.random.default_rng(0)
    some = rng.choice(group.order, min(group.order, 5), replace=False)
    for b, by_hand in enumerate(by_character):
        rows = basis[starts[b] : starts[b + 1]]
        projection = rows.T @ rows
        np.testing.assert_allclose(projection, by_hand, atol=1e-10)
        for x in some:
            for moved in (group.table[x], group.table[:, x]):
                np.testing.assert_allclose(projection[np.ix_(moved, moved)], projection, atol=1e-10)


@pytest.mark.parametrize("name", ["S_3", "A_4", "Q_8", "D_6", "Z_2 x Z_4", "Z_9"])
def test_there_is_a_block_for_each_class_with_its_inverses(name):
    group = named(name)
    sets = set()
    for g in range(group.order):
        conjugates = {int(group.table[group.table[h, g], group.inverses[h]]) for h in range(group.order)}
        sets.add(frozenset(conjugates | {int(group.inverses[x]) for x in conjugates}))
    assert len(harmonics.of_group(group).sizes) == len(sets)
    class_P = harmonics.classes(group)
    assert {frozenset(np.flatnonzero(class_P == c).tolist()) for c in range(class_P.max() + 1)} == sets


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 12, 30, 53, 113])
def test_class_sums_of_a_cyclic_group_give_its_frequencies(n):
    group = named(f"Z_{n}")
    closed, found = harmonics.of_group(group), harmonics._by_classes(group)
    assert closed.basis is fourier.basis(n)
    assert sorted(found.sizes) == sorted(closed.sizes)
    of = [int(np.argmax(closed.characters @ chi)) for chi in found.characters]
    assert sorted(of) == list(range(len(closed.sizes)))
    np.testing.assert_allclose(found.characters, closed.characters[of], atol=1e-11)
    assert [closed.kinds[b] for b in of] == list(found.kinds)


def test_characters_of_small_groups_by_hand():
    s5, points = named("S_5"), np.array([x.array_form for x in _permutations(5)])
    fixed = np.sum(points == np.arange(5), 1)
    signs = np.array([x.signature() for x in _permutations(5)])
    characters = harmonics.of_group(s5).characters
    for known in (np.ones(120), signs, fixed - 1, signs * (fixed - 1)):
        assert np.abs(characters - known).max(1).min() < 1e-11
    a5 = harmonics.of_group(named("A_5")).characters[1]  # of dimension 3: φ and 1 - φ on the two classes of 5-cycles
    values = collections.Counter(np.round(a5, 9))
    golden = oracle_groups.GOLDEN
    assert values == {3.0: 1, -1.0: 15, 0.0: 20, round(golden, 9): 12, round(1 - golden, 9): 12}
    assert sorted(np.round(harmonics.of_group(named("Q_8")).characters[-1], 9)) == [-4, *[0] * 6, 4]


def _permutations(n):
    from sympy.combinatorics import SymmetricGroup

    return sorted(SymmetricGroup(n).generate(), key=lambda x: x.array_form)


@st.composite
def abelian(draw):
    """A product of cyclic groups of at most 120 elements."""
    factors = [draw(st.integers(2, 120))]
    while np.prod(factors) <= 60 and draw(st.booleans()):
        factors.append(draw(st.integers(2, 120 // int(np.prod(factors)))))
    return " x ".join(f"Z_{n}" for n in factors)


@given(abelian(), st.randoms(use_true_random=False))
def test_abelian_groups_have_a_block_for_each_element_with_its_inverse(name, random):
    whole = named(name)
    group = relabelled(whole, random.sample(range(whole.order), whole.order))
    blocks = harmonics._by_classes(group)
    own = int(np.sum(np.diag(group.table) == group.identity))  # elements that are their own inverses
    assert blocks.sizes.count(1) == own
    assert blocks.sizes.count(2) == (group.order - own) // 2
    assert set(blocks.dims) == {1}
    # Complex characters are homomorphisms; of 2 Re χ this says f(x)f(y) = f(xy) + f(xy⁻¹).
    products, quotients = group.table, group.table[:, group.inverses]
    for chi, size in zip(blocks.characters, blocks.sizes, strict=True):
        f = 2 * chi / size
        np.testing.assert_allclose(np.outer(f, f), f[products] + f[quotients], atol=1e-9)


@given(st.sampled_from(["S_3", "S_4", "A_4", "A_5", "Q_8", "D_9", "S_3 x Z_4"]), st.randoms(use_true_random=False))
def test_numbering_moves_nothing_but_the_elements(name, random):
    whole = named(name)
    order = random.sample(range(whole.order), whole.order)
    one, other = harmonics.of_group(whole), harmonics.of_group(relabelled(whole, order))
    assert sorted(one.sizes) == sorted(other.sizes)
    for chi, kind in zip(other.characters, other.kinds, strict=True):
        errors = np.abs(one.characters[:, order] - chi).max(1)
        assert errors.min() < 1e-9
        assert one.kinds[int(np.argmin(errors))] == kind
    np.testing.assert_allclose(other.characters[0], 1, atol=1e-12)


@pytest.mark.parametrize("name", ["S_4", "Q_8 x Z_3"])
def test_order_and_signs_are_fixed(name):
    group = named(name)
    one, other = harmonics._by_classes(group), harmonics._by_classes(group)
    assert np.array_equal(one.basis, other.basis)
    assert list(one.dims) == sorted(one.dims)
    # The first function of a block is its projection of the first element's indicator, which is positive there.
    starts = np.cumsum((0, *one.sizes[:-1]))
    np.testing.assert_allclose(one.basis[starts, 0], np.sqrt(np.array(one.sizes) / group.order), atol=1e-12)


def test_a_group_of_720_elements():
    group = named("S_6")
    blocks = harmonics.of_group(group)
    assert sorted(blocks.dims) == [1, 1, 5, 5, 5, 5, 9, 9, 10, 10, 16]
    np.testing.assert_allclose(blocks.basis @ blocks.basis.T, np.eye(720), atol=1e-12)


def test_names_go_on_after_z():
    names = harmonics.of_group(named("Z_2 x Z_2 x Z_2 x Z_2 x Z_2")).names
    assert names[:2] == ("1a", "1b")
    assert names[25:28] == ("1z", "1aa", "1ab")
    assert finite_groups.order("Z_2 x Z_2 x Z_2 x Z_2 x Z_2") == len(names) == 32
