"""Which cases of a test the default suite runs; the others take as long, show less, and are run with the long ones."""

import pytest


def long_but(kept, values):
    """The cases of a parameter; those not in `kept`, which names keys where values are a dict, are marked long."""
    named = values.items() if isinstance(values, dict) else ((None, value) for value in values)
    found = []
    for name, value in named:
        marks = () if (value if name is None else name) in kept else pytest.mark.long
        found.append(pytest.param(*(value if isinstance(value, tuple) else (value,)), id=name, marks=marks))
    return found
