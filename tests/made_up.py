"""The files of a sweep that nobody trained."""

import json
from pathlib import Path

import numpy as np

from grokjax import config, sweeps
from grokjax.columns import FINAL, metrics_schema
from grokjax.core import environment
from grokjax.measures import registry
from grokjax.store import files
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter
from grokjax.store.sweep import described

WEIGHT_DECAYS = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0)


def make_sweep(path: Path, n_runs: int, n_evaluations: int, p: int) -> Path:
    """Writes the files of a sweep that nobody trained: curves of the usual shapes, with noise and spikes.

    Args:
      path: of the working directory; made.
      n_runs: a multiple of 10, for ten weight decays.
      n_evaluations: per run.
      p: the modulus.
    """
    c = config.default()
    c.p, c.eval_every, c.steps = p, 100, 100 * (n_evaluations - 1)
    c.sweep.weight_decay = WEIGHT_DECAYS
    c.sweep.seed = tuple(range(n_runs // len(WEIGHT_DECAYS)))
    made = sweeps.expand(c)
    columns = registry.metrics_columns(c.measures)
    metadata = {"config": dict(made.base), "axes": {name: list(values) for name, values in made.axes.items()}}
    path.mkdir(parents=True)
    writer = MetricsWriter(path / "metrics", metrics_schema(columns, made.axes, metadata))
    ledger = Ledger(made.runs)
    for run in made.runs:
        rows = _rows(run, c.eval_every, n_evaluations, p)
        ledger.update({name: rows[name] for name in ("run", "step", *FINAL, "key_freqs")})
        del rows["key_freqs"]
        writer.add(rows | {name: np.repeat(run.values[name], n_evaluations) for name in made.axes})
        if writer.n_rows > 4_000:
            writer.flush()
    writer.flush()
    files.write_parquet(ledger.table(), path / "runs.parquet")
    record = {"experiment": None, **metadata, "runs": described(made), "groups": [], "precision": c.precision}
    files.write_text(json.dumps(record | environment.environment()), path / "config.json")
    return path


def _rows(run, every: int, n: int, p: int) -> dict[str, np.ndarray]:
    """One run's metrics by column."""
    draw = np.random.default_rng(run.run)
    step = every * np.arange(n)
    decay = run.values["weight_decay"]
    drop = step[-1] * (0.12 + 0.4 * draw.random()) / decay**0.5 if decay else np.inf
    late = 1 / (1 + np.exp(-(step - drop) / (0.02 * step[-1])))  # 0 before the drop, 1 after
    noise = np.exp(0.1 * draw.normal(size=(6, n)))
    train = (2e-7 + np.log(p) * np.exp(-step / (0.004 * step[-1]))) * noise[0]
    train[draw.integers(n // 2, n, 3)] *= 1e4
    restricted, excluded = np.log(p) * np.exp(-16 * late) * noise[2], 8 * (0.1 + late) * noise[3]
    keys = np.isin(np.arange((p - 1) // 2), draw.permutation((p - 1) // 2)[:5])
    rows = {
        "train_loss": train,
        "test_loss": (2 * np.log(p) * np.exp(-17 * late)) * noise[1],
        "train_acc": np.clip(step / (0.01 * step[-1]), 1 / p, 1),
        "test_acc": np.clip(1.002 * late, 1 / p, 1),
        "restricted_loss_online": restricted,
        "excluded_loss_online": excluded,
        "excluded_loss_max": excluded / 2,
        "restricted_loss": np.where(step % 1000, np.nan, restricted),
        "excluded_loss": np.where(step % 1000, np.nan, excluded),
    }
    rows |= dict.fromkeys(("gini_W_E", "gini_W_L", "gini_freq_W_E", "gini_freq_W_L"), 0.2 + 0.6 * late * noise[4])
    rules = ("online", "W_L", "W_E", "neurons", "logits")
    rows |= {f"n_key_freqs_{rule}": np.round(5 + 20 * (1 - late)).astype(int) for rule in rules}
    parameters = ("weights", "W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_in", "b_in", "W_out", "b_out", "W_U")
    rows |= {f"sum_sq_{name}": (900 - 600 * late) * noise[5] for name in parameters}
    norms = np.where(keys, 1 + 30 * late[:, None], 2 - 1.9 * late[:, None]) * np.exp(draw.normal(0, 0.1, (n, 1)))
    rows |= {"freq_norm_W_E": norms, "freq_norm_W_L": 2 * norms}
    return rows | {"run": np.repeat(run.run, n), "step": step, "key_freqs": [*[None] * (n - 1), keys]}
