"""Which cases of a test the default suite runs; the others take as long, show less, and are run with the long ones.

Of those again CI leaves out the exhaustive ones.
"""

import pytest

EXHAUSTIVE = (pytest.mark.long, pytest.mark.exhaustive)


def long_but(kept, values, exhaustive=()):
    """The cases of a parameter; those not in `kept`, which names keys where values are a dict, are marked long, and
    those in `exhaustive` exhaustive as well.
    """
    named = values.items() if isinstance(values, dict) else ((None, value) for value in values)
    found = []
    for name, value in named:
        key = value if name is None else name
        marks = EXHAUSTIVE if key in exhaustive else () if key in kept else pytest.mark.long
        found.append(pytest.param(*(value if isinstance(value, tuple) else (value,)), id=name, marks=marks))
    return found
