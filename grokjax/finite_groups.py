"""Finite groups by name, or from a Cayley table of one's own. No JAX.

A group is its Cayley table: entry [a, b] is the number of a∘b, elements being numbered from 0. The order of the
elements is part of it, since the bits of a run depend on it, and depends on no library: residues as they are,
permutations sorted by their images of 0, 1, 2, …, so that the identity is element 0; of a product, the second factor's
elements vary fastest.
Permutations compose from left to right: a∘b takes i to b(a(i)).

Size letters: P elements.
"""

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from grokjax.errors import InputError, one_line, shown

MOST = 9_999  # elements, as P is at most


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """A finite group with its elements in order.

    Attributes:
      name: as `named` takes it.
      table: the number of a∘b at [a, b].
      elements: what each is, in words: a residue, a permutation by its cycles, or a number where nothing is known.
    """

    name: str
    table: Int32[np.ndarray, "P P"]
    elements: tuple[str, ...]

    @property
    def order(self) -> int:
        """The number of elements."""
        return len(self.table)

    @functools.cached_property
    def identity(self) -> int:
        """The number of the element e with e∘a = a∘e = a."""
        return int(np.flatnonzero(np.diag(self.table) == np.arange(self.order))[0])

    @functools.cached_property
    def inverses(self) -> Int32[np.ndarray, " P"]:
        """The number of each element's inverse."""
        return np.argmax(self.table == self.identity, 1).astype(np.int32)

    @functools.cached_property
    def is_addition(self) -> bool:
        """Whether a∘b is a + b mod P, number by number, so that the group's harmonics are frequencies."""
        return np.array_equal(self.table, cyclic_table(self.order))


def cyclic_table(n: int) -> Int32[np.ndarray, "P P"]:
    """a + b mod n at [a, b]."""
    return (np.add.outer(np.arange(n), np.arange(n)) % n).astype(np.int32)


# --- by name --------------------------------------------------------------------------------------------------------

KNOWN = "Z_n, D_n (of order 2n), S_n, A_n or Q_8, a product of these such as 'S_3 x Z_7', or a Cayley table, 'mine.npy'"
ORDERS: dict[str, Callable[[int], int]] = {
    "Z": lambda n: n,
    "D": lambda n: 2 * n,
    "S": lambda n: math.factorial(min(n, 20)),  # no more is allowed by far
    "A": lambda n: max(1, math.factorial(min(n, 20)) // 2),
    "Q": lambda n: n,
}


def order(name: str) -> int:
    """The order of a group by name, known before the group is made.

    Raises:
      InputError: it is none of those that `named` takes, or has more than `MOST` elements.
    """
    if is_file(name):
        return named(name).order
    found = math.prod(ORDERS[family](n) for family, n in _factors(name))
    if found > MOST:
        raise InputError(f"config.group is {shown(name)}, which has more than {MOST:,} elements: choose a smaller one.")
    return found


def named(name: str) -> Group:
    """Makes a group.

    Args:
      name: Z_n (residues under addition), D_n (of a polygon with n corners; of order 2n), S_n, A_n, Q_8 (quaternions),
        a product of these, "S_3 x Z_7", or the path of a Cayley table, which ends in .npy and may be followed by @ and
        the first digits of its digest, as `recorded` writes it.

    Raises:
      InputError: it is none of these, or its table is that of no group.
    """
    # What a file holds may change, but not under its digest.
    return _of_file(name) if is_file(name) and "@" not in name else _kept(name)


@functools.lru_cache(64)
def _kept(name: str) -> Group:
    if is_file(name):
        return _of_file(name)
    order(name)
    made = [_factor(family, n) for family, n in _factors(name)]
    return functools.reduce(_product, made) if len(made) > 1 else made[0]


def of_order(n: int) -> list[str]:
    """The names of groups of an order: those of the families, and products of two; few enough to try each."""
    divisors = [d for d in range(2, n // 2 + 1) if n % d == 0]
    pairs = ((one, other) for d in divisors for one in _of_family(d) for other in _of_family(n // d))
    return [*_of_family(n), *(f"{one} x {other}" for one, other in pairs)]


def _of_family(n: int) -> list[str]:
    numbers = {"Z": range(2, n + 1), "D": range(3, n + 1), "S": range(3, 9), "A": range(4, 9), "Q": [8]}
    return [f"{family}_{m}" for family, some in numbers.items() for m in some if ORDERS[family](m) == n]


def recorded(name: str) -> str:
    """The name that says all: of a Cayley table's file with its digest, so that another table is not taken for it."""
    if not is_file(name) or "@" in name:
        return name
    return f"{name}@{digest(named(name).table)}"


def digest(table: Int32[np.ndarray, "P P"]) -> str:
    """The first digits of the SHA-256 of a table as little-endian int32, row by row."""
    return hashlib.sha256(np.ascontiguousarray(table, "<i4").tobytes()).hexdigest()[:12]


def is_file(name: str) -> bool:
    """Whether this names the file of a Cayley table."""
    return name.partition("@")[0].endswith(".npy")


def _factors(name: str) -> list[tuple[str, int]]:
    parts = [re.fullmatch(r"([ZDSAQ])_([1-9]\d{0,8})", part) for part in re.split(r" [x×] ", name)]
    if not all(parts) or any(part and part[1] == "Q" and part[2] != "8" for part in parts):
        raise InputError(f"config.group is {shown(name)}, but it must be {KNOWN}.")
    return [(part[1], int(part[2])) for part in parts if part]


def _factor(family: str, n: int) -> Group:
    name = f"{family}_{n}"
    if family == "Z":
        return Group(name, _frozen(cyclic_table(n)), tuple(map(str, range(n))))
    images_PxX = _permutations(family, n)
    n_points, points = images_PxX.shape[1], 1
    while len(np.unique(images_PxX[:, :points], axis=0)) < len(images_PxX):
        points += 1
    # The images of the first points tell an element; written as one number, elements are in its order.
    places = n_points ** np.arange(points)[::-1]
    codes_P = images_PxX[:, :points] @ places
    rows = [np.searchsorted(codes_P, images_PxX[:, a[:points]] @ places) for a in images_PxX]
    return Group(name, _frozen(np.array(rows)), tuple(map(_cycles, images_PxX)))


def _permutations(family: str, n: int) -> np.ndarray:
    """The images of every permutation of a group, sorted."""
    from sympy import combinatorics  # takes half a second, and few sweeps need it

    if family == "Q":
        # i and j by right multiplication on 1, i, -1, -i, j, k, -j, -k.
        generators = ([1, 2, 3, 0, 7, 4, 5, 6], [4, 5, 6, 7, 2, 3, 0, 1])
        made = combinatorics.PermutationGroup([combinatorics.Permutation(images) for images in generators])
    else:
        kinds = {"S": "SymmetricGroup", "A": "AlternatingGroup", "D": "DihedralGroup"}
        made = getattr(combinatorics, kinds[family])(n)
    return np.array(sorted(element.array_form for element in made.generate()))


def _cycles(images: np.ndarray) -> str:
    """A permutation by its cycles, such as (0 1)(2 3); () for the identity."""
    found, seen = "", set()
    for start in range(len(images)):
        cycle = []
        while start not in seen:
            seen.add(start)
            cycle.append(str(start))
            start = int(images[start])
        found += f"({' '.join(cycle)})" if len(cycle) > 1 else ""
    return found or "()"


def _product(one: Group, other: Group) -> Group:
    n = other.order
    a, b = np.divmod(np.arange(one.order * n), n)
    table = one.table[np.ix_(a, a)] * n + other.table[np.ix_(b, b)]
    elements = tuple(f"{x}, {y}" for x in one.elements for y in other.elements)
    return Group(f"{one.name} x {other.name}", _frozen(table), elements)


def _frozen(table: np.ndarray) -> Int32[np.ndarray, "P P"]:
    table = table.astype(np.int32)
    table.flags.writeable = False
    return table


# --- from a file ----------------------------------------------------------------------------------------------------


def _of_file(name: str) -> Group:
    place, _, wanted = name.partition("@")
    said = f"config.group: {one_line(place)}"
    try:
        with Path(place).open("rb") as file:
            given = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        why = getattr(error, "strerror", None) or "it is no array of numbers in NumPy's .npy format"
        raise InputError(f"{said} cannot be read ({why}).") from None
    table = _frozen(checked(given, said))
    if wanted and digest(table) != wanted:
        raise InputError(f"{said} holds the table {digest(table)}, but {shown(wanted)} is wanted: restore that one.")
    return Group(name, table, tuple(map(str, range(len(table)))))


def checked(given: np.ndarray, said: str) -> np.ndarray:
    """A Cayley table that is a group's.

    Args:
      given: what may be one.
      said: what to call it in messages.

    Raises:
      InputError: it is not square, not closed, has no identity, an element has no inverse, or it is not associative;
        with the first elements that show it.
    """
    if not isinstance(given, np.ndarray) or given.ndim != 2 or given.shape[0] != given.shape[1]:
        raise InputError(
            f"{said} is {getattr(given, 'dtype', 'no array')} {list(np.shape(given))}, but it must be [P, P]."
        )
    if given.dtype.kind not in "iu":
        raise InputError(f"{said} is {given.dtype}, but a Cayley table holds integers, the number of a∘b at [a, b].")
    n = len(given)
    if not 1 <= n <= MOST:
        raise InputError(f"{said} has {n:,} rows, but a group has from 1 to {MOST:,} elements here.")
    outside = np.argwhere((given < 0) | (given >= n))
    if len(outside):
        a, b = outside[0]
        raise InputError(f"{said} is not closed: {a}∘{b} is {given[a, b]}, but it must be from 0 to {n - 1}.")
    table = given.astype(np.int32)
    identity = _identity(table, said)
    is_identity = table == identity
    for a, has_inverse in enumerate(np.any(is_identity & is_identity.T, 1)):
        if not has_inverse:
            raise InputError(f"{said} has no inverse of {a}: no b has {a}∘b and b∘{a} both {identity}, the identity.")
    _refuse_unassociative(table, said)
    return table


def _identity(table: np.ndarray, said: str) -> int:
    every = np.arange(len(table))
    fits = (table == every) & (table == every[:, None]).T  # [e, a]: e∘a = a = a∘e
    found = np.flatnonzero(fits.all(1))
    if len(found):
        return int(found[0])
    e = int(np.argmax(fits.sum(1)))
    a = int(np.argmin(fits[e]))
    raise InputError(
        f"{said} has no identity: {e} is nearest to one, but {e}∘{a} is {table[e, a]} and {a}∘{e} is {table[a, e]}, "
        f"where both must be {a}."
    )


def _refuse_unassociative(table: np.ndarray, said: str) -> None:
    # It is enough to look at middle elements that make all others: what associates in the middle is closed under ∘.
    for b in _generators(table):
        differs = np.argwhere(table[table[:, b]] != table[:, table[b]])
        if len(differs):
            a, c = differs[0]
            left, right = table[table[a, b], c], table[a, table[b, c]]
            raise InputError(f"{said} is not associative: ({a}∘{b})∘{c} is {left}, but {a}∘({b}∘{c}) is {right}.")


def _generators(table: np.ndarray) -> list[int]:
    """Elements from which ∘ makes all others, each the first that those before it do not make."""
    made: Bool[np.ndarray, " P"] = np.zeros(len(table), bool)
    chosen = []
    while not made.all():
        chosen.append(int(np.argmin(made)))
        made[chosen[-1]] = True
        n = 0
        while n < made.sum():
            n, have = made.sum(), np.flatnonzero(made)
            made[table[np.ix_(have, have)]] = True
    return chosen
