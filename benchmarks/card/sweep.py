"""The whole study of weight decay, 25 runs of 40,000 steps, from the command line to its last file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.card import sweeps
from benchmarks.card.tasks import Setting, Task

EXPERIMENT = "experiments/wd_sweep.py"
ACCURATE = ("float32", "bfloat16_6x")  # precisions whose products have 24 bits
WIDTH = 64  # whose rates choose between them


def tasks(setting: Setting) -> list[Task]:
    """The faster of the accurate precisions, then the other."""
    return [
        Task(
            precision,
            sweeps.trained,
            (
                EXPERIMENT,
                (f"precision={precision}", *sweeps.DRY * setting.dry),
                setting.work / f"sweep_{precision}",
                "weight_decay",
            ),
        )
        for precision in (order(setting.out / "speed.json")[: 1 if setting.dry else None])
    ]


def order(speed: Path) -> list[str]:
    """The accurate precisions, fastest first as far as they have been measured."""
    figures = json.loads(speed.read_text()) if speed.exists() else {}
    rates = figures.get(f"train {WIDTH}", {}).get("run_steps_per_s", {})
    return sorted(ACCURATE, key=lambda name: -rates[name]["median"] if name in rates else 0)


def page(figures: Mapping[str, Any]) -> str:
    """Wall times, and the phases that were found."""
    return "\n\n".join(
        f"`{EXPERIMENT}` in {name}: {sweeps.line(figure)}.\n\n```\n{figure['phases']}\n```"
        for name, figure in figures.items()
    )
