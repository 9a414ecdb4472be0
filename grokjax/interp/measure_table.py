"""Tables of a measured model, to read in a terminal."""

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from grokjax.errors import one_line
from grokjax.measures import registry
from grokjax.measures.registry import Measure

WIDTH = 100  # of a table's lines
LEAST = 12  # letters of a column that is cut to fit


def table(found: Mapping[str, Any]) -> str:
    """Renders what `measure.measure` returned: one line per measure; lists are summarised."""
    rows = [("measure", "value", "unit", "range", "source")]
    names = found["measured"].get("blocks", {}).get("names", ())
    for name, m in registry.MEASURES.items():
        if found.get(name) is not None:
            unit, range = m.unit, m.range
            if _is_set(m):  # its value is shown as the list of its k
                unit, range = ("block", f"1 … {len(names)}") if names else ("k", f"1 … {found['measured']['p'] // 2}")
            rows.append((name, summary(m, found[name], names), unit, range, m.source))
    return "\n".join([*heading(found["measured"]), "", *listing(rows, found["null"])])


def listing(rows: Sequence[Sequence[str]], null: Mapping[str, str]) -> list[str]:
    """Renders rows in columns, and then the names that were left out, by reason; in lines.

    Where the columns are wider than `WIDTH` together, the widest are wrapped.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > LEAST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [
            textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(row, widths, strict=True)
        ]
        for pieces in itertools.zip_longest(*cells, fillvalue=""):
            padded = (piece.ljust(width) for piece, width in zip(pieces, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
    for reason in dict.fromkeys(null.values()):
        names = [name for name, why in null.items() if why == reason]
        lines += ["", f"left out, since {reason}: {', '.join(names)}."]
    return lines


def _is_set(m: Measure) -> bool:
    """Whether it is a set of frequencies."""
    return m.dtype == "bool" and m.shape == ("freq",)


def heading(about: Mapping[str, Any]) -> list[str]:
    """Renders what was measured and how, as `subject.described` gives it; in lines."""
    keys, split = about["keys"], "not known"
    if about["split"] is not None:
        split = f"{about['split']}: {about['n_train']} of {about['p'] ** 2} pairs are training pairs"
    threshold = f", key_threshold {keys['threshold']}" if "threshold" in keys else ""
    return [
        f"model  {one_line('; '.join([about['model'], about['layout'], *about['notes']]))}",
        f"       P = {about['p']}, n_layers {about['n_layers']}, d_model {about['d_model']}, {_kind(about)}"
        f", d_mlp {about['d_mlp']}, {about['act']}{_more(about)}; {about['dtype']}, computed in {about['computed_in']}",
        f"task   {about['task']}",
        *([f"note   {one_line(about['doubt'])}"] if about.get("doubt") else []),
        f"split  {split}",
        f"keys   {'given' if 'given' in keys else f'''the model's own by key_rule {keys['rule']}{threshold}'''}",
    ]


def _kind(about: Mapping[str, Any]) -> str:
    """The number of heads, that it is an MLP and how pairs enter, or its family."""
    if about["architecture"] not in ("transformer", "mlp"):
        return f"of family {about['architecture']}"
    if about["architecture"] != "mlp":
        return f"n_heads {about['n_heads']}"
    is_one_hot = about["inputs"] == "one_hot"
    return "MLP on one-hot tokens" if is_one_hot else f"MLP on {about['inputs']} {about['embeddings']} embeddings"


def _more(about: Mapping[str, Any]) -> str:
    """In what a transformer differs from the paper's; "" in nothing, or of a table that does not tell."""
    return f"; {about['differs']}" if about.get("differs") else ""


def summary(m: Measure, value, blocks: Sequence[str] = ()) -> str:
    """Renders a value in few words: the largest of many frequencies, the most common or the middle of many neurons.

    Args:
      m: of which it is one.
      value: as `plain` gives it.
      blocks: names of those that lists over frequencies run over; none where they are frequencies.
    """
    if not isinstance(value, list):
        return _number(value)
    if _is_set(m):
        return _few([labelled(k, blocks) for k in value], 12) or "none"
    if m.shape == ("freq",):
        order = sorted(range(len(value)), key=lambda i: -abs(value[i]))
        at = "" if blocks else "k = "
        return _few([f"{_number(value[i])} at {at}{labelled(i + 1, blocks)}" for i in order], 4)
    if m.shape == ("neuron",) and m.dtype == "int32":
        counts = {v: value.count(v) for v in value}
        return _few([f"{labelled(v, blocks)} in {counts[v]}" for v in sorted(counts, key=lambda v: -counts[v])], 4)
    if m.shape == ("neuron",):
        return " … ".join(map(_number, (min(value), float(np.median(value)), max(value))))
    return _few(map(_number, value), 8)


def labelled(k: int, blocks: Sequence[str]) -> str:
    """A frequency as it is, one of a cyclic group too, a block by its number and name; 0 stands for none."""
    is_named = blocks and k and not blocks[-1].startswith("k=")
    return f"{k} ({blocks[k - 1]})" if is_named else str(k)


def _few(items: Iterable[Any], limit: int) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:limit]) + ", …" * (len(texts) > limit)


def _number(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
