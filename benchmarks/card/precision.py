"""The study of precision at P = 113: time to grok and the losses reached, in the products that the device has."""

from collections.abc import Mapping
from typing import Any

from benchmarks.card import sweeps
from benchmarks.card.tasks import Setting, Task

EXPERIMENT = "experiments/precision.py"
SIZES = {"4 seeds": "sweep.seed=range(4)", "16 seeds": "sweep.seed=range(16)"}  # the first is there if time ends


def tasks(setting: Setting) -> list[Task]:
    """A few seeds, then all."""
    dry = (*sweeps.DRY, "sweep.precision=float32,bfloat16") * setting.dry
    return [
        Task(
            key,
            sweeps.trained,
            (
                EXPERIMENT,
                ("sweep.seed=range(2)" if setting.dry else seeds, *dry),
                setting.work / f"precision_{n}",
                "precision",
            ),
        )
        for n, (key, seeds) in enumerate(list(SIZES.items())[: 1 if setting.dry else None])
    ]


def page(figures: Mapping[str, Any]) -> str:
    """Wall times, and the phases by precision."""
    return "\n\n".join(
        f"`{EXPERIMENT}`, {name}: {sweeps.line(figure)}.\n\n```\n{figure['phases']}\n```"
        for name, figure in figures.items()
    )
