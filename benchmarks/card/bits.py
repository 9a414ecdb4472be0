"""Whether a run has the same bits in every process: the same short training in two, under several settings of XLA."""

import functools
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import apart, mainline, timing
from benchmarks.card import programs
from benchmarks.card.tasks import Setting, Task
from benchmarks.markdown import number, table
from benchmarks.timing import Contestant

CHOOSES = "--xla_gpu_deterministic_ops=false"  # what XLA would do by itself
# By name: XLA_FLAGS of the processes; where they say nothing of it, grokjax.core.compiler does.
SETTINGS = {
    "as grokjax has it": "",
    "as XLA comes": CHOOSES,
    "XLA's choices saved": CHOOSES,
    "no autotuning": f"{CHOOSES} --xla_gpu_autotune_level=0",
    "exclude_nondeterministic_ops": "--xla_gpu_exclude_nondeterministic_ops=true",
}
SAVED = "XLA's choices saved"
PROGRAMS = (("float32", 64), ("bfloat16_6x", 64), ("float32", 8))  # precision and runs side by side
DRY_PROGRAMS = (("float32", 2),)
SEGMENTS, STEPS = 3, 100  # each segment ends with an evaluation
PROCESSES = 2


def tasks(setting: Setting) -> list[Task]:
    """Two processes for each setting of XLA."""
    settings = dict(list(SETTINGS.items())[:1]) if setting.dry else SETTINGS
    return [
        Task(f"{name}, {process}", trained, (setting.dry,), {"XLA_FLAGS": flags} | _cache(name, setting))
        for name, flags in settings.items()
        for process in range(PROCESSES)
    ]


def _cache(name: str, setting: Setting) -> dict[str, str]:
    """Variables that have JAX save nothing, or nothing but what autotuning chose."""
    if name != SAVED:
        return apart.COLD
    folder = setting.work / "choices"
    folder.mkdir(parents=True, exist_ok=True)
    return apart.CACHED | {
        "JAX_COMPILATION_CACHE_DIR": str(folder.resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9",  # no program takes so long
    }


def trained(dry: bool, seconds: float) -> dict[str, Any]:
    """Digests of parameters and metrics after a few hundred steps of each program, and how fast it is."""
    found = {}
    for precision, width in DRY_PROGRAMS if dry else PROGRAMS:
        found[f"{precision} ×{width}"] = _one(dry, precision, width)
    return {"programs": found, "on": programs.circumstances()}


def _one(dry: bool, precision: str, width: int) -> dict[str, Any]:
    started = time.monotonic()
    # The measures are the same in all; one program has them.
    measures = ("paper",) if precision == "float32" and width == PROGRAMS[0][1] else ()
    population = mainline.populated(*programs.of(dry, width, precision=precision, measures=measures))
    mainline.evaluate(population, 1)
    compile_s = time.monotonic() - started
    rows = jax.device_get(population.advance(range(width), SEGMENTS, 2 if dry else STEPS))
    params = jax.device_get(population.take(range(width)).params)
    timed = Contestant("", "", functools.partial(mainline.train, population), width, least=5)
    run_step_s = timing.measure([timed], 3, 0.01 if dry else 0.3)[""]
    return {
        "params": digest(params),
        "metrics": digest({name: values[:SEGMENTS] for name, values in rows.items()}),
        "columns": {name: digest({name: values[:SEGMENTS]}) for name, values in rows.items()},
        "losses": [float(x) for x in rows["train_loss"][SEGMENTS - 1][:4]],
        "run_steps_per_s": timing.spread(1 / run_step_s),
        "compile_s": compile_s,
    }


def digest(arrays: Mapping[str, Any]) -> str:
    """A digest of arrays' bits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()[:16]


def page(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown: a row for each setting and program."""
    found: dict[tuple[str, str], list] = {}
    for key, figure in figures.items():
        for program, one in figure["programs"].items():
            found.setdefault((key.rpartition(", ")[0], program), []).append(one)
    rows = []
    for (name, program), ones in found.items():
        same = [_same(ones, what) for what in ("params", "metrics")]
        timed = [number(one["run_steps_per_s"]["median"]) for one in ones], [number(one["compile_s"]) for one in ones]
        rows.append([name, program, *same, *(" / ".join(cells) for cells in timed)])
    return table(["XLA", "runs", "parameters", "metrics", "run-steps/s", "compilation, s"], rows, numbers=2)


def _same(ones: list, what: str) -> str:
    if len(ones) < PROCESSES:
        return "one process only"
    return "same bits" if len({one[what] for one in ones}) == 1 else "differ"
