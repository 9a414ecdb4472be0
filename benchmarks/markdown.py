"""Figures as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def table(header: Sequence[str], rows: Sequence[Sequence[object]], numbers: int = 0) -> str:
    """Makes a table.

    Args:
      header: names of the columns.
      rows: their cells.
      numbers: how many columns, the last ones, are right-aligned.
    """
    rule = ["---"] * (len(header) - numbers) + ["--:"] * numbers
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)


def number(value: float) -> str:
    """Writes three digits, as a plain decimal."""
    if not value:
        return "0"
    return f"{value:,.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"


def ranged(figure: Mapping[str, Any], factor: float = 1.0, unit: str = "") -> str:
    """Writes a spread: median (min – max)."""
    middle, low, high = (number(factor * figure[name]) for name in ("median", "min", "max"))
    return f"{middle}{unit} ({low} – {high})"


def percent(share: float) -> str:
    """Writes a share with two digits."""
    value = 100 * share
    return f"{value:.{0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2}f} %"
