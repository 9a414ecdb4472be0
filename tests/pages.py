"""Reports to test: sweeps' tables changed, and what their pages hold."""

import base64
import json
import re

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
