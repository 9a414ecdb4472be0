"""What the plan, the progress line and the summary say: numbers worked out by hand, and the whole text."""

import dataclasses
import io

import known
import numpy as np
import pandas as pd
import pytest
import tiny
from pretended import plan_of
from rich.console import Console

from grokjax import sweeps
from grokjax.columns import FINAL
from grokjax.store.ledger import Ledger
from grokjax.training import plan
from grokjax.training import progress as progress_lib
from grokjax.training.layouts import Layout
from grokjax.training.plan import _size, metrics_bytes, snapshot_bytes

# P = 7, d_model 8, d_mlp 16: W_E 8 × 8, W_pos 3 × 8, attention 4 × 8 × 8, neurons 2 × 8 × 16 + 16 + 8, W_U 8 × 7.
PARAMETERS = 64 + 24 + 256 + 280 + 56


def expand(*overrides, **fields):
    c = tiny.get_config()
    for name, one in fields.items():
        c[name] = one
    return sweeps.expand(c, (lambda c: list(overrides)) if overrides else None)


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "every", "snapshots"),
    [(200, 100, 3), (200, 1_000, 2), (200, 60, 5), (20, 20, 2), (100, 40, 4)],
)
def test_snapshots_at_the_start_every_so_many_steps_and_at_the_end(steps, every, snapshots):
    assert snapshot_bytes(expand({"seed": 0}, steps=steps, snapshot_every=every)) == snapshots * 4 * PARAMETERS


def test_snapshots_of_runs_of_different_lengths_and_sizes():
    """Three of 200 steps every 100, two of 100; four more neurons are 4 × 17 more parameters."""
    sweep = expand({"seed": 0}, {"seed": 1, "steps": 100}, {"seed": 2, "model.d_mlp": 20}, snapshot_every=100)
    assert snapshot_bytes(sweep) == 4 * (5 * PARAMETERS + 3 * (PARAMETERS + 4 * 17))


def test_metrics_of_four_numbers_a_row():
    assert metrics_bytes(expand()) == 4 * 11 * 16
    assert metrics_bytes(expand({"seed": 0}, {"seed": 1, "steps": 100})) == (11 + 6) * 16


def test_metrics_with_lists_of_bits():
    """Two columns of five bits, the keys and four more numbers, in 5 + 7 + 7 + 7 + 3 + 7 + 5 rows."""
    known.register()
    try:
        assert metrics_bytes(known.sweep()) == int(41 * (16 + 3 * 5 / 8 + 4 * 4))
        assert snapshot_bytes(known.sweep()) == 4 * 744 * (3 + 4 + 4 + 4 + 2 + 4 + 3)
    finally:
        known.unregister()


def test_the_plan_in_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "environment", lambda: {"platform": "gpu", "device_kind": "abacus", "cpu_threads": 2})
    one = plan_of(expand(snapshot_every=100), tmp_path, [Layout(3, 3, 3, 2)])
    one = dataclasses.replace(one, choices=(dataclasses.replace(one.choices[0], text="wide"),))
    assert plan.text(one).splitlines() == [
        "     runs  4 = 2 weight_decay × 2 seed, in 1 compiled group",
        "    model  1 layer, d_model 8, 2 heads, d_mlp 16, relu",
        "     task  add mod 7, 29 of 49 pairs to train on",
        " training  800 run-steps in all, evaluated every 20 steps: 44 rows",
        "   device  2 × abacus, float32, 3 slots per device at vmap width 3",
        "    width  wide",
        f"     disk  about 704 B of metrics and 33 kB of snapshots in {tmp_path}",  # 12 × 2 720 B
    ]


def test_one_hot_tokens_have_no_width(tmp_path):
    shape = {"model.architecture": "mlp", "model.inputs": "one_hot", "model.act": "quadratic", "model.d_mlp": 16}
    text = plan.text(plan_of(expand(shape), tmp_path, [Layout(1, 1, 1, 1)]))
    assert "    model  MLP on one-hot tokens, 1 layer, d_mlp 16, quadratic\n" in text


def test_the_plan_of_several_groups_is_of_the_first(tmp_path, monkeypatch):
    sweep = expand({"p": 7}, {"p": 5, "steps": 100}, {"p": 5, "seed": 1})
    monkeypatch.setattr(plan, "environment", lambda: {"platform": "cpu", "device_kind": "cpu", "cpu_threads": 2})
    lines = plan.text(plan_of(sweep, tmp_path, [Layout(1, 1, 1, 1), Layout(2, 1, 1, 1)])).splitlines()
    assert lines[:5] == [
        "     runs  3, in 2 compiled groups",  # not a product of axes
        "    model  1 layer, d_model 8, 2 heads, d_mlp 16, relu (first group)",
        "     task  add mod 7, 29 of 49 pairs to train on (first group)",
        " training  500 run-steps in all, evaluated every 20 steps: 28 rows",
        "   device  1 × cpu with 2 threads, float32, 1 slot per device at vmap width 1",
    ]


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(999, "999 B"), (1000, "1 kB"), (999_400, "999 kB"), (2.5e7, "25 MB"), (9.99e11, "999 GB"), (1.25e12, "1.2 TB")],
)
def test_bytes_in_words(n_bytes, text):
    assert _size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (190, "3 min 10 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7559, "2 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations_in_words(seconds, text):
    assert progress_lib.duration(seconds) == text


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_counts_runs_and_milestones():
    ledger = Ledger(expand().runs)
    frame = {name: [0.0] * 3 for name in FINAL} | {"run": [0, 1, 3], "step": [200, 100, 20]}
    ledger.update(frame | {"train_acc": [1.0, 1.0, 0.0], "test_acc": [1.0, 0.0, 0.0], "train_loss": [1.0, 1.0, np.nan]})
    out = io.StringIO()
    progress = progress_lib.LiveProgress(Console(file=out, width=100), ledger, 800, 300)
    assert progress.text() == "2/4 runs, 2 memorised, 1 grokked"
    progress.advanced(100, 4.0)  # 25 run-steps/s; 400 are left
    assert progress.text() == "2/4 runs, 25 run-steps/s, 16 s left, 2 memorised, 1 grokked"
    assert out.getvalue() == " 50 %  2/4 runs, 25 run-steps/s, 16 s left, 2 memorised, 1 grokked\n"
    progress.advanced(200, 2.0)  # 100 run-steps/s, of which a tenth counts: 0.9 × 25 + 0.1 × 100 = 32.5
    assert progress.text() == "2/4 runs, 32 run-steps/s, 6 s left, 2 memorised, 1 grokked"
    progress.advanced(70, None)  # given up, or not timed
    assert progress.text() == "2/4 runs, 32 run-steps/s, 4 s left, 2 memorised, 1 grokked"


# --- the summary ------------------------------------------------------------------------------------------------------


def test_the_summary_pools_seeds():
    runs = pd.DataFrame(
        {
            "weight_decay": [1.0, 1.0, 1.0, 0.0, 0.0, 0.0],
            "seed": [0, 1, 2, 0, 1, 2],
            "status": ["finished", "stopped", "finished", "diverged", "finished", "training"],
            "last_step": [2_500, 2_000, 2_500, 400, 2_500, 1_000],
            "memorised_step": [20, 40, 60, None, 20, None],
            "grokked_step": [100, 300, 2_000, None, None, None],
        }
    )
    table = progress_lib.summary(runs, ["weight_decay", "seed"])
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert [column.header for column in table.columns] == [
        "weight_decay",
        "runs",
        "diverged",
        "memorised",
        "grokked",
        "median step to grok",
    ]
    assert [list(row) for row in zip(*cells, strict=True)] == [
        ["0.0", "3", "1", "1", "0 of 3", "> 2,500"],
        ["1.0", "3", "0", "3", "3 of 3", "300"],
    ]
    whole = progress_lib.summary(runs[:3], ["seed"])
    assert [list(column.cells) for column in whole.columns] == [["3"], ["3"], ["3 of 3"], ["300"]]
    censored = runs[:3].assign(grokked_step=[100, None, None])  # not 100, the median of those that grokked
    assert list(progress_lib.summary(censored, ["seed"]).columns[-1].cells) == ["> 2,500"]
    waiting = runs.assign(last_step=[2_500, None, None, 400, 2_500, 1_000])
    assert list(progress_lib.summary(waiting, ["weight_decay"]).columns[1].cells) == ["3", "1"]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"model.n_layers": 2}, "one layer"),
        ({"model.act": "gelu", "precision": "bfloat16"}, "precision float32, relu"),
        ({"model.d_model": 8, "model.n_heads": 4}, "heads of 4 or more dimensions"),
    ],
)
def test_why_xla_takes_the_gradient_is_said(fields, wanted):
    (run,) = expand(fields).runs
    said = plan._gradient(run.problem(), Layout(1, 1, 1, 1))
    assert said == f"by XLA, since the faster C++ of grokjax.core.native is for {wanted} alone"
