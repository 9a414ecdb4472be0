"""What lists over frequencies run over, in words: frequencies, or the blocks of the groups that a sweep is read by."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from grokjax import tasks

Columns = Mapping[str, Mapping[str, str]]  # metadata of the metrics' fields


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of one sweep.

    Attributes:
      blocks: by group, as the metrics' metadata has them; empty where every run is read by the frequencies of Z_P.
    """

    blocks: Mapping[str, Mapping[str, Sequence[Any]]]

    @property
    def in_blocks(self) -> bool:
        """Whether some run is read by blocks that are no frequencies."""
        return any(not str(of["names"][-1]).startswith("k=") for of in self.blocks.values())

    def __call__(self, text: str) -> str:
        """A text about frequencies, or the same about blocks."""
        if self.in_blocks:
            for one, other in WORDS.items():
                text = text.replace(one, other)
        return text

    def names(self, row: Mapping[Any, Any]) -> Sequence[str] | None:
        """The names of the blocks of a run, a row of its fields; None where it is read by frequencies."""
        found = self.blocks.get(_group(row))
        return found["names"] if found and self.in_blocks else None

    def keys(self, row: Mapping[Any, Any]) -> list[str]:
        """The final keys of a run: "3", or "3 (4a)" of a block."""
        names = self.names(row)
        return [f"{k} ({names[k - 1]})" if names else str(k) for k in map(int, row["key_freqs"])]

    def facts(self) -> str:
        """The blocks of each group with the numbers of functions; "" where there are none."""
        return "; ".join(f"{name}: {_listed(of['names'], of['sizes'])}" for name, of in self.blocks.items())


WORDS = {
    "Fourier norms of": "Block norms of",
    "Fourier norms over": "Block norms over",
    "Fourier norms are": "Block norms are",
    "Fourier norms": "block norms",
    "Frequencies": "Blocks",
    "frequencies": "blocks",
    "frequency": "block",
}
MOST = 12  # blocks of a group that are listed


def of_columns(columns: Columns) -> Words:
    """The words of a table, from the metadata of its columns."""
    held = next((about["blocks"] for about in columns.values() if about.get("blocks")), "{}")
    return Words(json.loads(held))


def _group(row: Mapping[Any, Any]) -> str:
    """The name of the group by whose blocks a run would be read."""
    task = str(row.get("task"))
    if task in tasks.UNITS:
        return tasks.units(int(row["p"]))
    return str(row.get("group")) if task == tasks.GROUP else task.removeprefix(f"{tasks.GROUP} ")


def _listed(names: Sequence[str], sizes: Sequence[int]) -> str:
    held = [f"{name} ({size})" for name, size in zip(names, sizes, strict=True)]
    return ", ".join(held[:MOST]) + f", … {len(held)} in all" * (len(held) > MOST)
