"""Which measure moves before the test loss, and does any tell how long a run will take?"""

import numpy as np
import pandas as pd

from benchmarks.markdown import table
from studies import statistics, text
from studies.moves import MEASURES

LEAST = 8  # evaluations between memorising and grokking, below which steps are too coarse to compare
SETTINGS = ("weight_decay", "learning_rate", "init_scale", "d_model")  # and the share of pairs, by its odds


def page(records: pd.DataFrame) -> str:
    """What the runs of several studies say, as Markdown."""
    grokked = records[records["grokked_by"].notna() & (records["weight_decay"] > 0)].reset_index(drop=True)
    used = grokked[grokked["between"] >= LEAST].reset_index(drop=True)
    if len(used) < 30:
        return f"{len(used)} runs are in; the page begins with 30."
    return "\n\n".join([_runs(records, grokked, used), _moves(used), _prediction(used)])


def _runs(records, grokked, used) -> str:
    return (
        f"{len(records):,} runs are in; {len(grokked):,} with λ > 0 grokked. The {len(used):,} of these that were "
        f"evaluated at least {LEAST} times between memorising and grokking are compared."
    )


def leads(used: pd.DataFrame, measure: str, route: str) -> np.ndarray:
    """By how much a measure moves before the test loss, in shares of the time from memorising to grokking."""
    between = used["grokked_by"] - used["memorised_by"]
    lead = (used[f"{route}_test_loss"] - used[f"{route}_{measure}"]) / between
    return lead[np.isfinite(lead)].to_numpy()


def _moves(used: pd.DataFrame) -> str:
    rows = []
    for measure in MEASURES:
        if measure == "test_loss" or f"half_{measure}" not in used:
            continue
        half, tenth, first = (leads(used, measure, route) for route in ("half", "tenth", "first_half"))
        low, high = np.quantile(half, [0.1, 0.9])
        rows.append(
            (
                np.median(half),
                [
                    f"`{measure}`",
                    len(half),
                    text.interval(*statistics.spread(half), digits=2),
                    f"{text.number(low, 2)} to {text.number(high, 2)}",
                    f"{np.mean(half > 0):.0%}",
                    text.number(float(np.median(tenth)), 2),
                    text.number(float(np.median(first)), 2),
                ],
            )
        )
    header = [
        "measure",
        "runs",
        "lead, median",
        "of 80 % of runs",
        "leads in",
        "at a tenth of the way",
        "first crossing",
    ]
    return table(header, [row for _, row in sorted(rows, key=lambda pair: -pair[0])], numbers=6)


def features(used: pd.DataFrame) -> dict[str, np.ndarray]:
    """By what is known at memorising: sets of features [runs, features] for the logarithm of the time from there."""
    settings = [np.log(used[name].to_numpy(float)) for name in SETTINGS if used[name].nunique() > 1]
    odds = used["train_fraction"].to_numpy(float)
    if used["train_fraction"].nunique() > 1:
        settings.append(np.log(odds / (1 - odds)))
    measures = [
        np.log(np.maximum(used[f"at_{name}"].to_numpy(float), 1e-12)) if in_log else used[f"at_{name}"].to_numpy(float)
        for name, (_, in_log) in MEASURES.items()
        if f"at_{name}" in used and used[f"at_{name}"].notna().all()
    ]
    measures.append(np.log(used["memorised_by"].to_numpy(float)))
    both = np.concatenate([statistics.squares(settings), np.stack(measures, 1)], 1)
    return {
        "nothing": np.empty((len(used), 0)),
        "λ": statistics.squares([np.log(used["weight_decay"].to_numpy(float))]),
        "all settings": statistics.squares(settings),
        "measures at memorising": np.stack(measures, 1),
        "settings and measures": both,
    }


def _prediction(used: pd.DataFrame) -> str:
    y = np.log((used["grokked_by"] - used["memorised_by"]).to_numpy(float))
    rows = []
    for name, x in features(used).items():
        error = y - statistics.held_out(y, x, used["seed"].to_numpy())
        middle, low, high = (np.exp(v) for v in statistics.spread(np.abs(error)))
        explained = 1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2)
        rows.append([name, text.interval(middle, low, high), text.number(max(explained, 0.0), 2)])
    return table(["known", "off by a factor of, median", "R², held-out seeds"], rows, numbers=2)
