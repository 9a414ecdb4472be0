"""Reports to test: sweeps' tables changed, and what their pages hold."""

import base64
import dataclasses
import json
import re

import made_up
import numpy as np
import pandas as pd

from grokjax.report import page
from grokjax.report.results import read
from grokjax.store.metrics import read_metrics, read_runs

HOSTILE = '</script><img src=x onerror="window.hurt=1">{{data}}&<b>'


def page_of(path) -> str:
    return page.html(read(path))


def data_of(text: str):
    """What a page's script will read."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def with_circuit(path, out):
    """A copy of a sweep with a circuit.parquet of run 3."""
    rewritten(path, out)
    row = {"run": 3, "step": 3900, "key_freqs": [1, 4], "W_L_residual": None, "null": '{"W_L_residual": "unknown"}'}
    pd.DataFrame([row | {"measured": "{}"}]).to_parquet(out / "circuit.parquet")
    return out


def rewritten(path, out, metrics=lambda frame: frame, runs=lambda frame: frame, schema=None):
    """A copy of a sweep's tables, changed."""
    (out / "metrics").mkdir(parents=True)
    frame = metrics(read_metrics(path))
    frame.to_parquet(out / "metrics" / "part-000000.parquet", schema=schema)
    runs(read_runs(path)).to_parquet(out / "runs.parquet")
    return out


def hostile(path, out):
    """A sweep whose config holds markup wherever it can hold text."""

    def runs(frame):
        texts = {"model.act": [HOSTILE, "relu"] * 10, "task": HOSTILE, "status": ["finished", HOSTILE] * 10}
        return frame.assign(**texts)

    rewritten(path, out, runs=runs)
    record = json.loads((path / "config.json").read_text())
    record |= {"experiment": HOSTILE, "device_kind": HOSTILE, "git_commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    (out / "config.json").write_text(json.dumps(record))
    return out


ENDS = ("memorization_end", "circuit_formation_end", "cleanup_end")


def row_of_run(number, decay, seed, *ends, grokked_by=np.nan, memorised_by=100.0, status="finished", last_step=4_000.0):
    """A row of `Results.runs`: ends of phases, and NaN or None for what has not been seen."""
    row = {"run": number, "weight_decay": decay, "seed": seed, "status": status, "last_step": last_step}
    row |= {
        "memorised_by": memorised_by,
        "memorised_after": memorised_by - 100,
        "memorised": memorised_by == memorised_by,
    }
    row |= {"grokked_by": grokked_by, "grokked_after": grokked_by - 100, "grokked": grokked_by == grokked_by}
    for name, end in zip(ENDS, ends or [np.nan] * 3, strict=True):
        row |= {name: end, f"{name}_after": end - 100, f"{name}_by": end + 100, f"{name}_rule": "planted"}
        row |= {
            f"{name}_{what}": value for what, value in {"seen": 2, "rules": 4, "earliest": 50, "latest": 2_000}.items()
        }
    row |= {"delay": grokked_by - memorised_by, "diverged_step": np.nan, "n_key_freqs": 2.0, "key_freqs": [3, 5]}
    row |= {"memorised_rule": "accuracy", "grokked_rule": "accuracy", "ungrokked": False, "overlap": False}
    row |= {"lost_grokking": False, "lost_grokking_by": np.nan}
    ended = sum(end == end for end in ends)
    verdict = {0: "not grokked", 3: "separate"}.get(ended, "unfinished") if row["memorised"] else "not memorised"
    row |= {"phases": verdict, "phases_sentence": f"{verdict}, planted.", "censored": not row["grokked"]}
    return row | {"train_loss": 2.34e-7, "test_loss": 0.0123, "run_class": "grokking"}


def hand_made(path):
    """Makes a sweep and its results with runs written by hand: three grok, one does not, one diverged, one waits."""
    results = read(made_up.make_sweep(path, 10, 3, 7))
    rows = [
        row_of_run(0, 0.0, 0),
        row_of_run(1, 0.0, 1, 300.0, 3_000.0, np.nan, grokked_by=3_900.0),
        row_of_run(2, 1.0, 0, 200.0, 800.0, 1_600.0, grokked_by=1_000.0),
        row_of_run(3, 1.0, 1, 400.0, 800.0, 1_200.0, grokked_by=1_100.0),
        row_of_run(4, 2.0, 0, status="diverged", last_step=2_000.0)
        | {"diverged_step": 2_100.0, "memorised": False, "memorised_by": np.nan, "phases": "not memorised"},
        row_of_run(5, 2.0, 1, status="waiting") | dict.fromkeys(("memorised", "grokked", "memorised_by", "last_step")),
    ]
    return dataclasses.replace(
        results, runs=pd.DataFrame(rows), axes=["weight_decay", "seed"], settings=["weight_decay"], by=["weight_decay"]
    )


def rows_of(table):
    """The text of every cell by row, without the head."""
    rows = re.findall(r"<tr>(.*?)</tr>", str(table).split("<tbody>")[1].split("</tbody>")[0])
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    return [
        [re.sub(r"<title>.*?</title>|<[^>]*>", "", text).replace("&gt;", ">").strip() for text in row] for row in cells
    ]
