"""How does the time to grok depend on learning rate, weight decay, initial scale and width?"""

import numpy as np
import pandas as pd

from benchmarks.markdown import table
from studies import statistics, text

MIDDLE = {"learning_rate": 3e-3, "weight_decay": 1.0, "init_scale": 1.0, "d_model": 64}


def page(record: pd.DataFrame) -> str:
    """What the record says, as Markdown."""
    if not len(record):
        return "No run is in yet."
    plane = record[(record["init_scale"] == 1) & (record["d_model"] == MIDDLE["d_model"])]
    parts = [_runs(record), _plane(plane), _exponents(plane)]
    return "\n\n".join(
        [*parts, _along(record, "init_scale", "initial scale"), _along(record, "d_model", "width, d_model")]
    )


def _runs(record) -> str:
    return (
        f"{len(record)} of {int(record['total'].max())} runs are in; {record['grokked_by'].notna().sum()} grokked, the "
        "others are censored at their last step."
    )


def _time(runs: pd.DataFrame) -> str:
    times = runs["grokked_by"].fillna(runs["last_step"])
    return text.time(times, runs["grokked_by"].notna(), runs["last_step"].max())


def _plane(plane) -> str:
    rates, decays = sorted(plane["learning_rate"].unique()), sorted(plane["weight_decay"].unique())
    rows = [
        [
            text.number(decay, 2),
            *(_time(plane[(plane["weight_decay"] == decay) & (plane["learning_rate"] == rate)]) for rate in rates),
        ]
        for decay in decays
    ]
    return "Step to 99 % test accuracy, by learning rate:\n\n" + table(
        ["λ", *(f"{rate:g}" for rate in rates)], rows, numbers=len(rates) + 1
    )


def _exponents(plane) -> str:
    grokked = plane[plane["grokked_by"].notna()].reset_index(drop=True)
    if grokked["learning_rate"].nunique() < 3 or grokked["weight_decay"].nunique() < 3:
        return "Exponents are fitted once three learning rates and three weight decays have runs that grokked."
    time, rate, decay = (
        np.log(grokked[name].to_numpy(float)) for name in ("grokked_by", "learning_rate", "weight_decay")
    )
    rows = []
    resamples = statistics.by_seed(grokked)
    for name, x in (
        ("both", (rate, decay)),
        ("their product", (rate + decay,)),
        ("weight decay alone", (decay,)),
    ):
        exponents, r_squared = statistics.line(time, *x)
        drawn = np.array([statistics.line(time[i], *(column[i] for column in x))[0] for i in resamples])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        said = ", ".join(text.interval(*three, digits=2) for three in zip(exponents, low, high, strict=True))
        rows.append([name, said, text.number(r_squared, 2)])
    censored = len(plane) - len(grokked)
    return (
        f"Exponents of a power law by least squares in logarithms over the {len(grokked)} runs that grokked, whole "
        f"seeds resampled; {censored} that did not are left out, so that slow settings look quicker:\n\n"
        + table(["time to grok as a power of", "exponents (learning rate, weight decay)", "R²"], rows, numbers=2)
    )


def _along(record, name, title) -> str:
    others = [other for other in MIDDLE if other != name]
    runs = record[np.logical_and.reduce([np.isclose(record[other], MIDDLE[other]) for other in others])]
    rows = [
        [text.number(value, 3), text.share(int(of.grokked_by.notna().sum()), len(of)), _time(of)]
        for value, of in runs.groupby(name)
    ]
    return table([title, "grok", "step to 99 % test accuracy"], rows, numbers=2)
