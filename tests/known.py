"""A sweep made by hand, of runs that end at different steps, whose models have keys and numbers that are known."""

import numpy as np

from grokjax import config, sweeps
from grokjax.columns import FINAL, metrics_schema
from grokjax.core import model
from grokjax.measures import registry
from grokjax.measures.registry import measure
from grokjax.store import files, workdir
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter
from grokjax.store.snapshots import save_snapshot
from grokjax.training.layouts import Layout

P = 11  # frequencies 1 to 5
RUNS = [  # seed and steps, last step with its status; of runs 0, 1, …
    (5, 80, 80, "finished"),
    (3, 120, 120, "finished"),
    (4, 120, 60, "stopped"),
    (1, 120, 40, "diverged"),
    (2, 40, 40, "finished"),
    (0, 120, 100, "training"),
    (6, 80, 80, "finished"),
]
ENDED = [0, 1, 2, 4, 6]
SNAPSHOT_EVERY = 40


def key(run, step):
    """The one key frequency of the model: a run's last one has another than those before."""
    return 1 + run % 5 if step == RUNS[run][2] else 1 + (run + 2) % 5


def number(run, step):
    """What the model's bias holds."""
    return 1000.0 * run + step


def snapshot_steps(run):
    _, _, last, status = RUNS[run]
    regular = set(range(0, last + 1, SNAPSHOT_EVERY)) - ({last} if status == "diverged" else set())
    return sorted(regular | ({last} if run in ENDED else set()))


def params(cfg, k, number):
    """Zeros, but for an embedding that is a wave of frequency k, and a bias that is everywhere the number."""
    found = {key: np.zeros(shape, np.float32) for key, shape in model.shapes(cfg).items()}
    found["embed.W_E"][:P] = np.cos(2 * np.pi * k * np.arange(P) / P)[:, None]
    found["blocks.0.mlp.b_out"][:] = number
    return found


def register():
    """Measures of the group test_known; to be taken back with `unregister`."""

    @measure("test_known", keyed=True, unit="1", shape=("freq",), dtype="bool", description="Keys.", source="a test")
    def known_keys(s):
        return s.key_freqs_K

    @measure("test_known", keyed=True, unit="1", description="The number in the bias.", source="a test")
    def known_number(s):
        return s.params["blocks.0.mlp.b_out"][0]

    @measure("test_known", keyed=True, unit="1", description="The sum of the training pairs.", source="a test")
    def known_pairs(s):
        return s.train_pairs_B.sum().astype(float)


def unregister():
    for name in ("known_keys", "known_number", "known_pairs"):
        del registry.MEASURES[name]


def sweep():
    c = config.default()
    c.p, c.key_rule, c.measures = P, "W_E", ("test_known",)
    c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
    c.eval_every, c.snapshot_every, c.slow_every = 20, SNAPSHOT_EVERY, 1_000
    c.stop_loss, c.stop_evals = 0.5, 1
    return sweeps.expand(c, lambda c: [{"seed": seed, "steps": steps} for seed, steps, *_ in RUNS])


def make(path):
    """The working directory: config.json, runs.parquet, metrics in three parts without final keys, snapshots."""
    path.mkdir()
    whole = sweep()
    cfg, steps = whole.runs[0].problem().model, sorted({s for run in range(len(RUNS)) for s in snapshot_steps(run)})
    for step in steps:
        runs = [run for run in range(len(RUNS)) if step in snapshot_steps(run)]
        for some in (runs[:2], runs[2:]):
            models = [params(cfg, key(run, step), number(run, step)) for run in some]
            stacked = {name: np.stack([one[name] for one in models]) for name in models[0]} if some else {}
            save_snapshot(path / "snapshots", step, some, stacked)
    ledger = Ledger(whole.runs)
    schema = metrics_schema(registry.metrics_columns(whole.base["measures"]), whole.axes, {})
    writer = MetricsWriter(path / "metrics", schema)
    rows = [(step, run) for run, (*_, last, _) in enumerate(RUNS) for step in range(0, last + 1, 20)]
    for number_of_part, some in enumerate(np.array_split(sorted(rows), 3)):
        frame = {"step": some[:, 0], "run": some[:, 1]}
        frame |= {name: np.ones(len(some)) for name in FINAL}
        for i, (step, run) in enumerate(some):
            _, _, last, status = RUNS[run]
            if (step, status) == (last, "diverged"):
                frame["train_loss"][i] = np.nan
            if (step, status) == (last, "stopped"):
                frame["test_loss"][i] = 0.25
        ledger.update(frame)
        writer.number, writer._written = number_of_part, schema.empty_table()
        axes = np.array([RUNS[run][:2] for _, run in some])
        writer.add(frame | {"seed": axes[:, 0], "steps": axes[:, 1]})
        writer.flush()
    assert [record["status"] for record in ledger.records.values()] == [status for *_, status in RUNS]
    files.write_parquet(ledger.table(), path / "runs.parquet")
    workdir.Workdir(path, whole, held=True).begin([Layout(2, 1, 1, 1).record()], "a test", [{"how": "given"}])
    return path
