"""Where do runs memorise only, grok, or generalise at once? Weight decay against the share of training pairs."""

import numpy as np
import pandas as pd

from benchmarks.markdown import table
from grokjax.phases.survival import rising, threshold
from studies import text


def page(record: pd.DataFrame) -> str:
    """What the record says, as Markdown."""
    if not len(record):
        return "No run is in yet."
    shares, decays = sorted(record["train_fraction"].unique()), sorted(record["weight_decay"].unique())
    parts = [_runs(record), _classes(record, shares, decays)]
    return "\n\n".join([*parts, _critical_shares(record, decays), _critical_decays(record, shares)])


def _runs(record) -> str:
    least = record.groupby(["train_fraction", "weight_decay"]).size().min()
    grokked, budget = record["grokked_by"].notna().sum(), record["steps"].max()
    of_all = f"{len(record):,} of {record['total'].max():,} runs are in"
    return (
        f"{of_all}, {least} seeds or more in each cell; {grokked:,} reached 99 % test accuracy within {budget:,} steps."
    )


def _cells(record, shares, decays, cell) -> str:
    rows = []
    for decay in decays[::-1]:
        of_decay = record[record["weight_decay"] == decay]
        rows.append([text.number(decay, 2), *(cell(of_decay[of_decay["train_fraction"] == share]) for share in shares)])
    return table(["λ", *(f"{share:.0%}" for share in shares)], rows, numbers=len(shares) + 1)


def _classes(record, shares, decays) -> str:
    def cell(runs) -> str:
        classes = runs["run_class"].value_counts()
        return f"{classes.idxmax()} {classes.max()}/{len(runs)}" if len(classes) else "–"

    return "The commonest class of run (docs/phases.md) in each cell:\n\n" + _cells(record, shares, decays, cell)


def _critical(record, by, along, values) -> list[list[object]]:
    rows: list[list[object]] = []
    for value in values:
        runs = record[(record[by] == value) & (record[along] > 0)]
        runs = runs[rising(runs[along].to_numpy(), runs["grokked_by"].notna().to_numpy())]
        grokked = runs["grokked_by"].notna().to_numpy()
        found = threshold(runs[along].to_numpy(), grokked, runs["grokked_by"].to_numpy()).critical
        told = f"{value:.0%}" if by == "train_fraction" else text.number(value, 2)
        rows.append([told, len(runs), "–" if np.isnan(found.value) else text.estimate(found), found.warning])
    return rows


def _critical_shares(record, decays) -> str:
    p = int(record["p"].iloc[0])
    rows = _critical(record, "weight_decay", "train_fraction", decays)
    published = np.log(p) / p
    return (
        "Critical share, at which half of the runs generalise within the budget, by logistic regression, with "
        f"bootstrap intervals (P log P of the P² pairs would be {published:.3f}). Each fit is of the shares up to the "
        "one at which most runs do:\n\n" + table(["λ", "runs", "critical share", "note"], rows)
    )


def _critical_decays(record, shares) -> str:
    rows = _critical(record, "train_fraction", "weight_decay", shares)
    return "Critical weight decay likewise, without λ = 0, which has no logarithm:\n\n" + table(
        ["share", "runs", "λ_c", "note"], rows
    )
