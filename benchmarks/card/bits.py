"""Whether a run has the same bits in every process: the same short training in two, under several settings of XLA."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import apart, mainline
from benchmarks.card import programs
from benchmarks.card.tasks import Setting, Task
from benchmarks.markdown import table

# By name: XLA_FLAGS of the processes.
SETTINGS = {
    "as XLA comes": "",
    "exclude_nondeterministic_ops": "--xla_gpu_exclude_nondeterministic_ops=true",
    "deterministic_ops": "--xla_gpu_deterministic_ops=true",
    "autotune_level 0": "--xla_gpu_autotune_level=0",
}
WIDTHS, DRY_WIDTHS = (8, 64), (2,)
SEGMENTS, STEPS = 3, 100  # the first with evaluations
PROCESSES = 2


def tasks(setting: Setting) -> list[Task]:
    """Two processes for each setting and width."""
    widths = DRY_WIDTHS if setting.dry else WIDTHS
    settings = {"as XLA comes": ""} if setting.dry else SETTINGS
    return [
        Task(f"{name}, {width}, {process}", trained, (setting.dry, width), apart.COLD | {"XLA_FLAGS": flags})
        for width in widths
        for name, flags in settings.items()
        for process in range(PROCESSES)
    ]


def trained(dry: bool, width: int, seconds: float) -> dict[str, Any]:
    """Digests of the parameters and of the metrics after a few hundred steps, and what they took."""
    started = time.monotonic()
    population = mainline.populated(*programs.of(dry, width))
    mainline.evaluate(population, 1)
    compiled = time.monotonic()
    rows = jax.device_get(population.advance(range(width), SEGMENTS, 2 if dry else STEPS))
    params = jax.device_get(population.state.params)
    return {
        "params": digest(params),
        "metrics": digest({name: values[:SEGMENTS] for name, values in rows.items()}),
        "columns": {name: digest({name: values[:SEGMENTS]}) for name, values in rows.items()},
        "losses": [float(x) for x in rows["train_loss"][SEGMENTS - 1][:4]],
        "compile_s": compiled - started,
        "train_s": time.monotonic() - compiled,
        "on": programs.circumstances(),
    }


def digest(arrays: Mapping[str, Any]) -> str:
    """A digest of arrays' bits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()[:16]


def page(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown: a row for each setting and width."""
    pairs: dict[tuple[str, str], list] = {}
    for key, figure in figures.items():
        name, width, _ = key.rsplit(", ", 2)
        pairs.setdefault((width, name), []).append(figure)
    rows = []
    for (width, name), found in pairs.items():
        known = [figure for figure in found if "params" in figure]
        cells = [_same(known, what) for what in ("params", "metrics")]
        rows.append([name, width, *cells, *(_seconds(known, what) for what in ("compile_s", "train_s"))])
    header = ["XLA", "runs side by side", "parameters", "metrics", "compilation, s", f"{SEGMENTS * STEPS} steps, s"]
    return table(header, rows, numbers=2)


def _same(found: list, what: str) -> str:
    if len(found) < PROCESSES:
        return "–"
    return "same bits" if len({figure[what] for figure in found}) == 1 else "differ"


def _seconds(found: list, what: str) -> str:
    return " / ".join(f"{figure[what]:.1f}" for figure in found) or "–"
