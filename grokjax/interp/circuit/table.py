"""The table of the paper's claims, with a model's numbers beside the paper's."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from grokjax.interp.circuit import text
from grokjax.interp.circuit.registry import NUMBERS, numbers
from grokjax.interp.measure_table import heading, listing
from grokjax.measures.paper import NANDA

# What the table of a group's blocks shows of each: the number, and how it is printed.
BY_BLOCK: dict[str, tuple[str, Callable[[Any], str]]] = {
    "logits": ("logit_share", text.percent_text),
    "neurons": ("neurons_per_freq", str),
    "loss without": ("loss_without_block", text.loss_text),
    "at neurons": ("loss_without_freq", text.loss_text),
    "|W_L|": ("freq_norm_W_L", "{:.3g}".format),
}

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

    Returns:
      Of a group that is read by blocks in its words, and without the paper's numbers, which are of a + b.
    """
    in_blocks = bool(text.blocks_of(found))

    def here(name: str) -> str:
        return "–" if text.absent(found.get(name)) else NUMBERS[name].show(name, found)

    return [
        Row(name, claim, "" if in_blocks else f.paper, here(name), f.source)
        for name, f in numbers(in_blocks).items()
        if (claim := f.claim_for(in_blocks))
    ]


def block_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A row for each block of a group, of what `analyse` returned, under a row of names."""
    blocks = text.blocks_of(found)
    cells = [["block", "dim", "type", "functions", "key", *BY_BLOCK]]
    for i, about in enumerate(zip(*(blocks[x] for x in ("dims", "kinds", "sizes")), strict=True)):
        is_key = "key" if i + 1 in (found["key_freqs"] or ()) else ""
        values = [show(found[of][i]) if found[of] is not None else "–" for of, show in BY_BLOCK.values()]
        cells.append([text.label(i + 1, found), *map(str, about), is_key, *values])
    return cells


def table(found: Mapping[str, Any]) -> str:
    """The text of what `analyse` returned: one line per claim."""
    top, of_rows = heading(found["measured"]), rows(found)
    if text.blocks_of(found):
        top += [f"source {NANDA}, for a group's blocks; see Chughtai et al. 2023"]
        cells: list[Sequence[str]] = [
            ("claim", "this model", "source"),
            *((row.claim, row.here, _short(row.source)) for row in of_rows),
        ]
        return "\n".join([*top, "", *listing(block_rows(found), {}), "", *listing(cells, found["null"])])
    top += [f"source {NANDA}; its figures are of its mainline model"]
    cells = [("claim", "paper", "this model", "source")]
    cells += [(row.claim, row.paper, row.here, _short(row.source)) for row in of_rows]
    return "\n".join([*top, "", *listing(cells, found["null"])])


def _short(source: str) -> str:
    """A source without what the heading says and without remarks."""
    return re.sub(r" \(.*\)", "", source.removeprefix(f"{NANDA}, "))
