"""What does the precision of the loss do to memorising, grokking and the stability of training?"""

import pandas as pd

from benchmarks.markdown import table
from studies import text

NAMES = {
    "cross_entropy": "exact",
    "cross_entropy_float32": "log-softmax, float32",
    "cross_entropy_bfloat16": "log-softmax, bfloat16",
    "cross_entropy_float16": "log-softmax, float16",
}


def page(record: pd.DataFrame) -> str:
    """What the record says, as Markdown."""
    if not len(record):
        return "No run is in yet."
    said = (
        f"{len(record)} of {int(record['total'].max())} runs are in; times are Kaplan–Meier medians over seeds, of the "
        "evaluation that a run reaches, with bootstrap intervals."
    )
    return "\n\n".join([said, *(_decay(record, decay) for decay in sorted(record["weight_decay"].unique()))])


def _decay(record: pd.DataFrame, decay: float) -> str:
    record = record[record["weight_decay"] == decay]
    header = ["loss", "grok", "step to 99 % test accuracy", "step to half of the pairs collapsed"]
    header += ["pairs collapsed at the end", "runs with slingshots", "slingshots in a run"]
    rows = [_row(NAMES[loss], record[record["loss"] == loss]) for loss in NAMES if (record["loss"] == loss).any()]
    return f"Weight decay {decay:g}:\n\n" + table(header, rows, numbers=len(header) - 1)


def _row(name: str, runs: pd.DataFrame) -> list[str]:
    grokked, collapsed = runs["grokked_by"].notna(), runs["collapsed_by"].notna()
    budget = runs["last_step"].max()
    return [
        name,
        text.share(int(grokked.sum()), len(runs)),
        text.time(runs["grokked_by"].fillna(runs["last_step"]), grokked, budget),
        text.time(runs["collapsed_by"].fillna(runs["last_step"]), collapsed, budget),
        f"{runs['softmax_collapse'].median():.0%}",
        text.share(int((runs["slingshots"] > 0).sum()), len(runs)),
        text.number(float(runs["slingshots"].median()), 2),
    ]
