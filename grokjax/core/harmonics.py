"""The harmonics of any finite group: the real isotypic blocks of the functions on it.

A block holds the functions that translations of the argument, from the left and from the right, mix among themselves:
the constant, and for every other real irreducible representation the span of its matrix entries. An irreducible
representation of dimension d that is of real or of quaternionic type makes a block of dimension d², a pair of complex
conjugate ones makes one block of dimension 2d². Of Z_P they are the frequencies of `core.fourier`, in closed form. See
Chughtai et al. 2023 for the role that they play in networks.

Size letters: P elements, K blocks but the constant's, C conjugacy classes (each with that of the inverses), D dimension
of a block.
"""

import dataclasses
import functools
import string

import numpy as np
from jaxtyping import Float64, Int32

from grokjax.core import fourier
from grokjax.core.fourier import Harmonics
from grokjax.errors import InputError
from grokjax.finite_groups import Group

REAL, COMPLEX, QUATERNIONIC = "real", "complex", "quaternionic"


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks(Harmonics):
    """The blocks of a group, the constant first; `basis` and `sizes` as for `Harmonics`.

    Of a cyclic group, as residues under addition, the others are in order of frequency; otherwise in order of the
    dimension of the representations, and then of their characters, larger values first, class by class in order of the
    classes' first elements. The functions of a block are the projections of single elements' indicators, made
    orthonormal one after another, each time of the element (the first of them, to 1e-6) of which most is left.

    Attributes:
      names: of each block: the dimension of the representation and a letter, such as "4a", or of a frequency "k=3".
      dims: of the complex irreducible representations of each block, one or two of them.
      kinds: "real", "complex" or "quaternionic".
      characters: of the real irreducible representation: χ, 2 Re χ of a complex pair, 2χ of a quaternionic one.
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    kinds: tuple[str, ...]
    characters: Float64[np.ndarray, "1+K P"]


@functools.lru_cache(64)
def of_group(group: Group) -> Blocks:
    """The blocks of a group."""
    return _cyclic(group.order) if group.is_addition else _by_classes(group)


@functools.cache
def _cyclic(p: int) -> Blocks:
    made, frequencies = fourier.harmonics(p), np.arange(1, fourier.n_freqs(p) + 1)
    waves = np.cos(2 * np.pi * (np.outer(frequencies, np.arange(p)) % p) / p)
    sizes_K = np.array(made.sizes[1:], int)
    return Blocks(
        made.basis,
        made.sizes,
        names=("1", *(f"k={k}" for k in frequencies)),
        dims=(1,) * len(made.sizes),
        kinds=(REAL, *(COMPLEX if size == 2 else REAL for size in sizes_K)),
        characters=np.concatenate([np.ones((1, p)), sizes_K[:, None] * waves]),
    )


# --- from the Cayley table ------------------------------------------------------------------------------------------


def classes(group: Group) -> Int32[np.ndarray, " P"]:
    """The number of each element's class: all that is conjugate to it or to its inverse, in order of first elements."""
    class_P = np.full(group.order, -1, np.int32)
    for g in range(group.order):
        if class_P[g] < 0:
            conjugates = group.table[group.table[:, g], group.inverses]
            number = class_P.max() + 1
            class_P[conjugates] = class_P[group.inverses[conjugates]] = number
    return class_P


def _central_characters(group: Group, class_P: Int32[np.ndarray, " P"]) -> Float64[np.ndarray, "C C"]:
    """For each block, by row, what the sum of each class multiplies its functions by.

    The sums of classes commute and are symmetric, and their common eigenspaces are the blocks; on functions of the
    class alone a block is one eigenvector.
    """
    sizes_C = np.bincount(class_P)
    n = len(sizes_C)
    # counts[c, i, j]: x in class c for which x⁻¹g is in class j, g being the first of class i.
    counts = np.zeros((n, n, n))
    for i in range(n):
        g = int(np.argmax(class_P == i))
        np.add.at(counts[:, i], (class_P, class_P[group.table[group.inverses, g]]), 1)
    scale_C = np.sqrt(sizes_C)
    sums = counts * scale_C[None, :, None] / scale_C[None, None, :]
    for attempt in range(1, 20):
        # The blocks are told apart by one weighted sum; the last digits come from every class's own quotient.
        weights_C = np.sin((np.arange(n) + attempt) ** 2) / sizes_C
        _, vectors = np.linalg.eigh(np.tensordot(weights_C, sums, 1))
        found = np.einsum("ib,cij,jb->bc", vectors, sums, vectors)
        if np.abs(sums @ vectors - vectors * found.T[:, None]).max() < 1e-8 * group.order:
            return found
    raise InputError(f"group {group.name}: its blocks are too close to tell apart.")


def _by_classes(group: Group) -> Blocks:
    n, class_P = group.order, classes(group)
    sizes_C = np.bincount(class_P)
    ratios = _central_characters(group, class_P) / sizes_C  # χ(g) / χ(1), real parts
    sizes = np.round(n / np.sum(sizes_C * ratios**2, 1)).astype(int)
    parts = (sizes / n)[:, None] * ratios[:, class_P]  # [block, g]: P_B has it at (g h, h)
    squares = group.table[np.arange(n), np.arange(n)]
    signs = np.round(np.sum(parts[:, squares], 1) / np.sqrt(sizes)).astype(int)  # d, 0 or -d, over the root of D
    kinds = [{1: REAL, 0: COMPLEX, -1: QUATERNIONIC}[sign] for sign in signs]
    dims = np.round(np.sqrt(np.where(signs == 0, sizes / 2, sizes))).astype(int)

    def place(b):
        return dims[b], *(-np.round(ratios[b], 6))

    order = sorted(range(len(sizes)), key=place)  # no character of dimension 1 is larger than the constant
    basis = np.concatenate([_orthonormal(parts[b], group, sizes[b]) for b in order])
    basis.setflags(write=False)
    doubled = np.where(signs == 1, dims, 2 * dims)
    return Blocks(
        basis,
        tuple(int(sizes[b]) for b in order),
        names=_names([int(dims[b]) for b in order]),
        dims=tuple(int(dims[b]) for b in order),
        kinds=tuple(kinds[b] for b in order),
        characters=np.stack([doubled[b] * ratios[b][class_P] for b in order]),
    )


def _orthonormal(part_P: Float64[np.ndarray, " P"], group: Group, size: int) -> Float64[np.ndarray, "D P"]:
    """Orthonormal functions of one block, of which `part_P` is the projection of the identity's indicator."""
    rows, left_P = np.zeros((size, group.order)), np.full(group.order, part_P[group.identity])
    for j in range(size):
        h = int(np.argmax(left_P > left_P.max() - 1e-6))
        row = part_P[group.table[:, group.inverses[h]]]
        for _ in range(2):  # the second time takes off what rounding left
            row = row - (rows[:j] @ row) @ rows[:j]
        rows[j] = row / np.linalg.norm(row)
        left_P -= rows[j] ** 2
    return rows


def _names(dims: list[int]) -> tuple[str, ...]:
    """Each dimension with letters, a to z and on with aa: "1a", "1b", "4a"."""
    letters = [*string.ascii_lowercase, *(x + y for x in string.ascii_lowercase for y in string.ascii_lowercase)]
    letters += [f"_{i}" for i in range(len(dims))]
    return tuple(f"{d}{letters[dims[:i].count(d)]}" for i, d in enumerate(dims))
