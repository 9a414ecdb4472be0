"""What each figure of the reverse engineering is, and those of models beside the paper's."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.markdown import table
from grokjax.interp.circuit import table as table_lib
from grokjax.interp.circuit.analysis import analyse
from grokjax.interp.circuit.registry import NUMBERS
from grokjax.measures.paper import NANDA

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def definitions() -> str:
    """What each figure is, in the order of the table."""
    lines = []
    for name, f in NUMBERS.items():
        if f.claim or f.in_group:
            traits = ["of groups alone"] if f.of_blocks else []
            traits += [f"unit {f.unit}"] if f.unit != "1" else []
            traits += [f"list over {dim}" for dim in f.shape] if f.dtype != "bool" else []
            lines.append(f"* `{name}` {f.description} *{'; '.join([*traits, f.source])}.*")
    return "\n".join(lines)


def figures(models: Sequence[str]) -> str:
    """The table of claims for some models, each file in a column."""
    tables = [table_lib.rows(analyse(model)) for model in models]
    header = ["claim", "paper", *(f"`{Path(model).stem}`" for model in models), "source"]
    body = [
        [rows[0].claim, rows[0].paper, *(row.here for row in rows), rows[0].source.removeprefix(f"{NANDA}, ")]
        for rows in zip(*tables, strict=True)
    ]
    return table(header, body)


def same(one: str, other: str) -> bool:
    """Whether two texts are the same but for numbers that differ by at most 1 %."""
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(map(float, NUMBER.findall(one)), map(float, NUMBER.findall(other)), strict=True)
    return all(abs(x - y) <= 0.01 * abs(y) for x, y in pairs)
