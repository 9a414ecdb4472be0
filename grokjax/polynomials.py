"""Polynomials in a and b modulo P, read from text such as "a^2 + a*b + b^2". No JAX.

    sum = ["-"] product {("+" | "-") product}
    product = power {"*" power}
    power = ("a" | "b" | integer | "(" sum ")") ["^" integer]

^ is the power, and x^0 is 1 for every x. All arithmetic is modulo P, powers by repeated squaring, so nothing overflows.
"""

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from grokjax.errors import InputError, shown

LONGEST = 200  # letters
_LETTERS = re.compile(r"[ab0-9 +*^()-]*")

Values = Int[np.ndarray, " N"]


def looks_like_one(text: str) -> bool:
    """Whether a text has the letters of a polynomial alone, so that it can be nothing else."""
    return bool(text.strip()) and bool(_LETTERS.fullmatch(text))


def polynomial(text: str) -> Callable[[Values, Values, int], Values]:
    """Reads a polynomial.

    Args:
      text: of at most `LONGEST` letters.

    Returns:
      Its function of a, b, both integer arrays, and P, to values in [0, P).

    Raises:
      InputError: it is none; says where.

    Example:
      >>> import numpy as np
      >>> polynomial("a^2 - 3*b")(np.array([0, 1, 2]), np.array([0, 1, 0]), 5).tolist()
      [0, 3, 4]
    """
    if len(text) > LONGEST:
        raise InputError(f"task {shown(text)} has {len(text):,} letters, but a polynomial has at most {LONGEST}.")

    def function(a: Values, b: Values, p: int) -> Values:
        return _Reader(text, a, b, p).all()

    function(np.zeros(1, int), np.zeros(1, int), 3)
    return function


class _Reader:
    """Reads and computes at once: every method takes the text on from where it is, and returns values modulo P."""

    def __init__(self, text: str, a: Values, b: Values, p: int):
        self.text, self.at, self.p = text, 0, p
        self.values = {"a": a.astype(np.int64) % p, "b": b.astype(np.int64) % p}

    def all(self) -> Values:
        found = self.sum()
        if self.at < len(self.text):
            raise self.refusal("+, -, * or ^")
        return found

    def sum(self) -> Values:
        sign = -1 if self.take("-") else 1
        total = sign * self.product()
        while operator := self.take(r"[+-]"):
            total = total + self.product() if operator == "+" else total - self.product()
        return total % self.p

    def product(self) -> Values:
        found = self.power()
        while self.take(r"\*"):
            found = found * self.power() % self.p
        return found

    def power(self) -> Values:
        base = self.atom()
        if not self.take(r"\^"):
            return base
        digits = self.take(r"[0-9]+")
        if not digits:
            raise self.refusal("an exponent, which is an integer,")
        found, exponent = np.ones_like(base) % self.p, int(digits)
        while exponent:
            found = found * base % self.p if exponent & 1 else found
            base, exponent = base * base % self.p, exponent >> 1
        return found

    def atom(self) -> Values:
        if self.take(r"\("):
            found = self.sum()
            if not self.take(r"\)"):
                raise self.refusal(")")
            return found
        if name := self.take("[ab]"):
            return self.values[name]
        if digits := self.take("[0-9]+"):
            return np.full_like(self.values["a"], int(digits) % self.p)
        raise self.refusal("a, b, an integer or (")

    def take(self, pattern: str) -> str:
        """What comes next, blanks left out, if it is of this pattern; "" otherwise."""
        found = re.compile(rf" *({pattern}) *").match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[1] if found else ""

    def refusal(self, wanted: str) -> InputError:
        rest = self.text[self.at :].strip()
        place = f"before {shown(rest)}" if rest else "at the end"
        return InputError(f"task {shown(self.text)} is no polynomial in a and b: {wanted} is wanted {place}.")
