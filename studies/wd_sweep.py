"""The paper's own setting: weight decay and the time to grok at P = 113, over seeds."""

import numpy as np
import pandas as pd

from benchmarks.markdown import table
from grokjax.phases.survival import threshold
from studies import text

PRINTED = {0.3: "about 3,000", 1.0: "5,000 to 10,000", 3.0: "about 20,000"}  # Nanda et al. 2023, App. D.1
LOSSES = ("train_loss", "test_loss", "restricted_loss", "heldout_restricted_loss", "excluded_loss")


def page(record: pd.DataFrame) -> str:
    """What the record says, as Markdown."""
    if not len(record):
        return "No run is in yet."
    by_decay = list(record.groupby("weight_decay"))
    return "\n\n".join(
        [_runs(record), _times(by_decay), _order(record), _ends(by_decay), _hidden(record), _keys(by_decay)]
    )


def _runs(record) -> str:
    seeds = record.groupby("weight_decay").size()
    return (
        f"{len(record)} runs are in, {_range(seeds)} seeds for each λ, {record['last_step'].max():,.0f} "
        f"steps each; {int((record['last_step'] * 1.0).sum()):,} run-steps in all."
    )


def _range(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _times(by_decay) -> str:
    rows = []
    for decay, runs in by_decay:
        grokked = runs["grokked_by"].notna()
        times, budget = runs["grokked_by"].fillna(runs["last_step"]), runs["last_step"].max()
        memorised = text.time(runs["memorised_by"].fillna(runs["last_step"]), runs["memorised_by"].notna(), budget)
        rows.append(
            [
                f"{decay:g}",
                text.share(int(grokked.sum()), len(runs)),
                memorised,
                text.time(times, grokked, budget),
                f"{times[grokked].min():,.0f} to {times[grokked].max():,.0f}" if grokked.any() else "–",
                PRINTED.get(decay, "–"),
            ]
        )
    header = ["λ", "grok", "step to 99 % train accuracy", "step to 99 % test accuracy", "range", "the paper's figure"]
    return table(header, rows, numbers=5)


def _order(record) -> str:
    """Who is right: the sentence of App. D.1 (more decay groks sooner) or the figures printed beside it."""
    seeds = record.pivot_table(index="seed", columns="weight_decay", values="grokked_by", aggfunc="first", dropna=False)
    said = []
    for less, more in ((0.3, 1.0), (1.0, 3.0), (0.3, 3.0)):
        if {less, more} <= set(seeds):
            both = seeds[[less, more]].dropna()
            said.append(
                f"λ = {more:g} before λ = {less:g} in {text.share(int((both[more] < both[less]).sum()), len(both))}"
            )
    found = threshold(
        record["weight_decay"].to_numpy(), record["grokked_by"].notna().to_numpy(), record["grokked_by"].to_numpy()
    )
    critical = text.estimate(found.critical)
    return f"Of the seeds that grok at both: {'; '.join(said)}. Critical weight decay within the budget: {critical}."


def _ends(by_decay) -> str:
    rows = [
        [
            f"{decay:g}",
            *(text.number(float(runs[name].median()), 3) for name in LOSSES if name in runs),
            text.number(float(runs["test_acc"].median()), 3),
            text.number(float(np.sqrt(runs["sum_sq_weights"]).median()), 3),
        ]
        for decay, runs in by_decay
    ]
    header = ["λ", *(name.replace("_", " ") for name in LOSSES), "test accuracy", "weight norm"]
    return "Medians at the last step (losses in nats):\n\n" + table(header, rows, numbers=len(header))


def _hidden(record) -> str:
    """Whether runs that have not grokked hold a circuit, by what its keys answer on held-out pairs."""
    guess, said = np.log(record["p"].iloc[0]), []
    for decay, runs in record[record["grokked_by"].isna()].groupby("weight_decay"):
        loss = runs["heldout_restricted_loss"]
        said.append(
            f"{text.number(loss.min(), 2)} to {text.number(loss.max(), 2)} at λ = {decay:g}, below half of a guess's "
            f"in {text.share(int((loss < guess / 2).sum()), len(runs))}"
        )
    return f"Held-out restricted loss of runs that have not grokked (a guess has {guess:.2f}): {'; '.join(said)}."


def _keys(by_decay) -> str:
    rows = []
    for decay, runs in by_decay:
        keys = runs["key_freqs"].fillna("").str.split()
        n = keys.str.len()
        few = keys[n <= 10]
        rows.append(
            [
                f"{decay:g}",
                f"{n.median():g} ({n.min()} to {n.max()})",
                "; ".join(" ".join(k) for k in few[:5]) + (" …" if len(few) > 5 else "") or "–",
                f"{len({tuple(k) for k in few})} of {len(few)}",
            ]
        )
    header = ["λ", "keys, median (range)", "keys of the first seeds with at most ten", "different sets"]
    return table(header, rows, numbers=1)
