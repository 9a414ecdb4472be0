"""The table of the paper's claims, with a model's numbers beside the paper's."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from grokjax.interp.circuit import text
from grokjax.interp.circuit.registry import NUMBERS
from grokjax.interp.measure_table import heading, listing
from grokjax.measures.paper import NANDA

# --- the table ------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A claim of the paper with its number and a model's, as text; "" where the paper has none, "–" where the model.

    Attributes:
      number: the name in `registry.NUMBERS`.
      claim: what is claimed.
      paper: the paper's number for its mainline model.
      here: this model's.
      source: paper and section.
    """

    number: str
    claim: str
    paper: str
    here: str
    source: str


def rows(found: Mapping[str, Any]) -> list[Row]:
    """The table of claims.

    Args:
      found: what `analyse` returned, or a row of circuit.parquet (`frame.loc[i]`).
    """
    return [
        Row(name, f.claim, f.paper, "–" if text.absent(found.get(name)) else f.show(name, found), f.source)
        for name, f in NUMBERS.items()
        if f.claim
    ]


def table(found: Mapping[str, Any]) -> str:
    """The text of what `analyse` returned: one line per claim."""
    top = [*heading(found["measured"]), f"source {NANDA}; its figures are of its mainline model"]
    cells = [("claim", "paper", "this model", "source")]
    cells += [(row.claim, row.paper, row.here, _short(row.source)) for row in rows(found)]
    return "\n".join([*top, "", *listing(cells, found["null"])])


def _short(source: str) -> str:
    """A source without what the heading says and without remarks."""
    return re.sub(r" \(.*\)", "", source.removeprefix(f"{NANDA}, "))
