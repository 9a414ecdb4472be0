"""What a compiled program does, counted from its HLO text: its kernels, the bytes that they move, their products.

Bytes are those of a kernel's operands and results in the device's memory, the tiles' padding included; what the
compiler keeps in on-chip memory costs nothing. A part of an array that is read through a slice or a gather counts as
far as it is read, an update in place as far as it is written. Loops count as often as they run where the compiler knows
that, else once.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "c64": 64, "c128": 128}  # others say their size
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "add-dependency"),
    *("partition-id", "replica-id", "domain"),
}
FREE_TARGETS = ("AllocateBuffer", "AssumeGatherIndicesInBound")
BRANCHES = ("branch_computations", "true_computation", "false_computation")
CALLS = ("calls", "body", "condition", "to_apply", *BRANCHES)
PARTS = ("slice", "dynamic-slice", "gather")  # read as much as they give
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # in place, by which operand holds what is written


class Array(NamedTuple):
    """An array as the compiler lays it out."""

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...]  # its axes, the one whose elements lie side by side first
    tile: tuple[int, ...]  # over the last axes of a layout, slowest first; empty where nothing is padded
    space: int  # 0 for the device's memory

    @property
    def bytes(self) -> int:
        """What it takes, padding included."""
        sizes = [self.shape[axis] for axis in self.order]
        for i, tile in enumerate(reversed(self.tile[-len(sizes) :] if sizes else ())):
            sizes[i] = -(-sizes[i] // tile) * tile
        alone = math.prod(self.tile) if self.tile and not sizes else 1
        return math.prod(sizes) * alone * bits(self.dtype) // 8

    @property
    def moved(self) -> int:
        """The bytes of the device's memory that reading or writing all of it moves."""
        return 0 if self.space else self.bytes


def bits(dtype: str) -> int:
    """The size of an element."""
    return BITS[dtype] if dtype in BITS else int(re.sub(r"\D", "", dtype))


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    arrays: tuple[Array, ...]  # its result, or of a tuple the elements in a row
    opcode: str
    operands: tuple[str, ...]
    rest: str  # attributes
    number: int  # of a parameter

    def attribute(self, name: str) -> str | None:
        """What is written for it, up to the next one."""
        found = re.search(rf"\b{name}=(\{{[^{{}}]*\}}|[^,\s]+)", self.rest)
        return found[1] if found else None

    def called(self, name: str) -> list[str]:
        """The computations that it names so."""
        return re.findall(r"[^%{},\s]+", self.attribute(name) or "")


Computation = dict[str, Instruction]


class Product(NamedTuple):
    """A matrix product within a kernel."""

    flop: int
    precision: str  # what its line says: highest, high, default or an algorithm
    dtype: str  # of its factors


class Kernel(NamedTuple):
    """What is launched as one."""

    name: str
    opcode: str
    times: int
    bytes: int  # each time
    products: tuple[Product, ...]
    source: str = ""  # the line of the program that it comes from, as JAX names it

    @property
    def ahead(self) -> bool:
        """Whether it is a copy that goes on beside other kernels."""
        return self.opcode.endswith("-start")


class Program:
    """A compiled program.

    Attributes:
      computations: by name.
      entry: name of the one that is called.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        self._roots: dict[str, Instruction] = {}
        here: Computation = {}
        for line in text.splitlines():
            if line.endswith("{") and (head := re.match(r"(ENTRY )?%?([^\s(]+) \(", line)):
                here = self.computations[head[2]] = {}
                self.entry = head[2] if head[1] else self.entry
                name = head[2]
            elif line.startswith("  ") and " = " in line:
                one = instruction(line)
                here[one.name] = one
                if line.lstrip().startswith("ROOT "):
                    self._roots[name] = one

    # --- its parts ------------------------------------------------------------------------------------------------

    @functools.cached_property
    def steps(self) -> str:
        """The computation that is one training step: the body of the loop beside the branches that evaluate.

        Raises:
          ValueError: there is not exactly one such loop.
        """
        whiles = [one for one in self._segment().values() if one.opcode == "while"]
        if len(whiles) != 1:
            raise ValueError(f"{len(whiles)} loops lie beside the evaluation, where 1 was expected.")
        return whiles[0].called("body")[0]

    def evaluations(self) -> list[str]:
        """The computations that evaluate: of each such branching the branch that does most."""
        branchings = [one for one in self._segment().values() if one.opcode == "conditional"]
        return [self._busiest(one) for one in branchings]

    def _segment(self) -> Computation:
        """Finds what trains and then evaluates.

        Raises:
          ValueError: nothing does.
        """
        waiting = [self.entry]
        while waiting:
            here = self.computations[waiting.pop(0)]
            if any(one.opcode == "conditional" for one in here.values()):
                return here
            waiting += [body for one in here.values() for body in _within(one)]
        raise ValueError("no loop of this program trains and evaluates.")

    def _busiest(self, one: Instruction) -> str:
        branches = [name for kind in BRANCHES for name in one.called(kind)]
        return max(branches, key=lambda name: sum(kernel.times * kernel.bytes for kernel in self.kernels(name)))

    def kernels(self, computation: str, times: int = 1) -> list[Kernel]:
        """What a computation launches, in order, loops and branches included."""
        found: list[Kernel] = []
        here = self.computations[computation]
        for one in here.values():
            if one.opcode == "conditional":
                found += self.kernels(self._busiest(one), times)
            elif within := _within(one):
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest) if one.opcode == "while" else None
                found += self.kernels(within[0], times * int(trips[1] if trips else 1))
            elif not (one.opcode in FREE or one.opcode.endswith(("-done", "-update")) or _is_free_call(one)):
                products = tuple(self._products(here, one))
                said = re.search(r'op_name="([^"]*)"', one.rest)
                moved, source = self._moved(here, one), said[1] if said else ""
                found.append(Kernel(one.name, one.opcode, times, moved, products, source))
        return found

    def within(self, computation: str) -> Iterator[Instruction]:
        """Every instruction of a computation and of those that it calls."""
        for one in self.computations[computation].values():
            yield one
            for name in CALLS:
                for inside in one.called(name):
                    yield from self.within(inside)

    # --- bytes ----------------------------------------------------------------------------------------------------

    def _moved(self, here: Computation, one: Instruction) -> int:
        """Bytes of the device's memory that a kernel reads and writes."""
        operands = [here[name] for name in dict.fromkeys(one.operands)]
        sizes = {operand.name: sum(array.moved for array in operand.arrays) for operand in operands}
        if one.opcode == "copy-start":  # gives what it writes, what it reads and a flag
            return sum(sizes.values()) + one.arrays[0].moved
        if one.opcode.endswith("-start"):  # gives operands, results and flags
            results = [array for array in one.arrays[len(operands) :] if array.shape]
            written = sum(array.moved for array in results)
            parts = any(part in one.name or part in one.opcode for part in ("slice", "gather"))
            read = sum(array.bytes for array in results) if parts and any(sizes.values()) else sum(sizes.values())
            return read + written
        if one.opcode == "fusion":
            inside = one.called("calls")[0]
            read = sum(self._read(inside, number, sizes[name]) for number, name in enumerate(one.operands))
            sizes_written = self._written(inside, self._roots[inside])
            return read + sum(size for array, size in zip(one.arrays, sizes_written, strict=False) if not array.space)
        return self._plain(one, sizes)

    @staticmethod
    def _plain(one: Instruction, sizes: Mapping[str, int]) -> int:
        result = sum(array.moved for array in one.arrays)
        if one.opcode in PARTS:
            whole, *others = one.operands
            read = min(sizes[whole], sum(array.bytes for array in one.arrays))
            return read + sum(sizes[name] for name in others) + result
        if one.opcode in UPDATES:
            whole, *others = one.operands
            written = sizes[one.operands[UPDATES[one.opcode]]]
            return sum(sizes[name] for name in others) + written
        return sum(sizes.values()) + result

    def _read(self, inside: str, number: int, whole: int) -> int:
        """Bytes of a fusion's parameter that it reads, of so many at most."""
        here = self.computations[inside]
        starts = [one.name for one in here.values() if one.opcode == "parameter" and one.number == number]
        return min(whole, sum(self._used(inside, name, whole) for name in starts))

    def _used(self, inside: str, name: str, whole: int) -> int:
        """Bytes that the users of a value within a fusion read of it."""
        total = 0
        for user in self.computations[inside].values():
            for position, operand in enumerate(user.operands):
                if operand != name:
                    continue
                if user.opcode in PARTS and position == 0:
                    total += sum(array.bytes for array in user.arrays)
                elif user.opcode in UPDATES and position == 0:
                    continue
                elif user.opcode == "bitcast":
                    total += self._used(inside, user.name, whole)
                elif user.opcode == "fusion":
                    total += self._read(user.called("calls")[0], position, whole)
                else:
                    return whole
        return total

    def _written(self, inside: str, root: Instruction) -> list[int]:
        """Bytes that each result of a fusion writes."""
        here = self.computations[inside]
        if root.opcode == "tuple":
            return [self._written(inside, here[name])[0] for name in root.operands]
        if root.opcode == "bitcast":
            return self._written(inside, here[root.operands[0]])
        if root.opcode == "fusion":
            called = root.called("calls")[0]
            return self._written(called, self._roots[called])
        if root.opcode in UPDATES:
            return [sum(array.bytes for array in here[root.operands[UPDATES[root.opcode]]].arrays)]
        return [array.bytes for array in root.arrays]

    # --- products -------------------------------------------------------------------------------------------------

    def _products(self, here: Computation, one: Instruction) -> Iterator[Product]:
        """The matrix products of a kernel."""
        if one.opcode in ("dot", "convolution"):
            flop = _dot_flop(here, one) if one.opcode == "dot" else _convolution_flop(here, one)
            level = (one.called("operand_precision") or ["default"])[0]
            yield Product(flop, one.attribute("algorithm") or level, here[one.operands[0]].arrays[0].dtype)
        for inside in one.called("calls"):
            for inner in self.computations[inside].values():
                yield from self._products(self.computations[inside], inner)


def _within(one: Instruction) -> list[str]:
    """The computations of a loop or a call, whose kernels are kernels of their own."""
    if one.opcode == "while":
        return one.called("body")
    return one.called("to_apply") if one.opcode == "call" else []


def _is_free_call(one: Instruction) -> bool:
    return one.opcode == "custom-call" and (one.attribute("custom_call_target") or "").strip('"') in FREE_TARGETS


def _axes(one: Instruction, name: str) -> list[int]:
    return [int(axis) for axis in one.called(name)]


def _dot_flop(here: Computation, one: Instruction) -> int:
    left = here[one.operands[0]].arrays[0].shape
    return 2 * math.prod(one.arrays[0].shape) * math.prod(left[axis] for axis in _axes(one, "lhs_contracting_dims"))


def _convolution_flop(here: Computation, one: Instruction) -> int:
    """Of the taps that meet an element of the input; a TPU's products are convolutions whose other taps meet holes."""
    left, right = (here[name].arrays[0].shape for name in one.operands)
    of_left, of_right, of_result = re.split("_|->", one.attribute("dim_labels") or "")
    window = dict(part.split("=") for part in re.findall(r"\w+=[^\s}]+", (one.attribute("window") or "")))
    result = one.arrays[0].shape
    pairs = result[of_result.index("b")] * result[of_result.index("f")] * right[of_right.index("i")]
    spatial = [label for label in of_result if label.isdigit()]
    for i, label in enumerate(spatial):
        taken = {name: window[name].split("x")[i] for name in window}
        n_in, n_out, n_taps = left[of_left.index(label)], result[of_result.index(label)], right[of_right.index(label)]
        pairs *= _meetings(n_in, n_out, n_taps, taken)
    return 2 * pairs


def _meetings(n_in: int, n_out: int, n_taps: int, window: Mapping[str, str]) -> int:
    """Pairs of an output position and a tap along an axis, whose input is an element and neither a hole nor padding."""
    stride, holes, spread = (int(window.get(name, 1)) for name in ("stride", "lhs_dilate", "rhs_dilate"))
    before = int(window.get("pad", "0_0").split("_")[0])
    end = (n_in - 1) * holes
    places = (out * stride + tap * spread - before for out in range(n_out) for tap in range(n_taps))
    return sum(0 <= place <= end and place % holes == 0 for place in places)


# --- reading --------------------------------------------------------------------------------------------------------

ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")


def array(found: re.Match) -> Array:
    """Reads one as in f32[8,132]{1,0:T(8,128)S(1)}."""
    dtype, shape, order, how = found.groups(default="")
    numbers = tuple(int(n) for n in shape.split(",") if n)
    axes = tuple(int(n) for n in order.split(",") if n) or tuple(reversed(range(len(numbers))))
    tile, space = re.search(r"T\(([\d,]+)\)", how), re.search(r"S\((\d+)\)", how)
    return Array(
        dtype, numbers, axes, tuple(int(n) for n in tile[1].split(",")) if tile else (), int(space[1]) if space else 0
    )


def instruction(line: str) -> Instruction:
    """Reads a line of a computation."""
    name, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    last = _closing(rest, len(opcode))
    within = rest[len(opcode) + 1 : last]
    operands = tuple(re.findall(r"%([^\s,()]+)", within))
    number = int(within) if opcode == "parameter" else -1
    return Instruction(
        name.lstrip("%"), tuple(map(array, ARRAY.finditer(kind))), opcode, operands, rest[last + 1 :], number
    )


def _closing(text: str, opening: int) -> int:
    """The index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    raise ValueError(f"no parenthesis closes that of {text[:80]!r}.")


def total(kernels: Sequence[Kernel]) -> tuple[int, int, int]:
    """How many there are, the bytes that they move, and the FLOP of their products."""
    return (
        sum(kernel.times for kernel in kernels),
        sum(kernel.times * kernel.bytes for kernel in kernels),
        sum(kernel.times * product.flop for kernel in kernels for product in kernel.products),
    )
