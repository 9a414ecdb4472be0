"""Weights & Biases: a run there for each run here, in a group named for the sweep; offline with WANDB_MODE=offline."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grokjax.errors import file_name
from grokjax.sharing.tracker import Run

PROJECT = "grokjax"  # where WANDB_PROJECT names no other


def get_tracker(folder: Path) -> "Wandb":
    """The tracker of the account that wandb finds; what it keeps on this machine is below a folder."""
    return Wandb(folder)


class Wandb:
    """Begins a run for each run, and one for the report."""

    def __init__(self, folder: Path):
        self._folder = folder

    def begin(self, run: Run) -> "Logged":
        made = self._init(run.sweep, run.name, config=dict(run.config))
        # Rows are not sent in the order of their steps, since some values are known once a run has ended.
        made.define_metric("*", step_metric="step")
        return Logged(made)

    def report(self, sweep: str, files: Sequence[Path]) -> None:
        import wandb

        made = self._init(sweep, "report", job_type="report")
        artifact = wandb.Artifact(file_name(f"{sweep}-report"), type="report")
        for file in files:
            with artifact.new_file(file.name, "wb") as out:
                out.write(file.read_bytes())
        made.log_artifact(artifact)
        made.finish()

    def _init(self, sweep: str, name: str, **more: Any) -> Any:
        """A run whose id is that of its sweep and name, so that it is gone on with and never there twice."""
        import wandb  # an extra, of which this module's importers may have none

        self._folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=sweep,
            name=f"{sweep}/{name}",
            id=file_name(f"{sweep}-{name}", 60),
            dir=str(self._folder),
            resume="allow",
            reinit="create_new",
            settings=quiet,
            **more,
        )


class Logged:
    """A run there."""

    def __init__(self, run: Any):
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def flush(self) -> None:
        """Rows are with wandb's own process, which keeps them on disk until they are sent."""

    def end(self, outcome: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(outcome))

    def close(self) -> None:
        self._run.finish()
