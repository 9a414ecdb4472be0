"""TensorBoard's event files: a folder for each run, by tensorboardX."""

import shutil
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from grokjax.errors import file_name
from grokjax.sharing.tracker import Run

END = ".end"  # ends the name of the event file with what is known once a run has ended
METRICS = ("grokked_by", "memorised_by", "delay", "test_loss", "train_loss")  # beside hyperparameters


def get_tracker(folder: Path) -> "TensorBoard":
    """The tracker that writes event files below a folder."""
    return TensorBoard(folder)


class TensorBoard:
    """Writes FOLDER/SWEEP/run_00003, and the report beside the runs."""

    def __init__(self, folder: Path):
        self._folder = folder

    def begin(self, run: Run) -> "Events":
        return Events(self._folder / file_name(run.sweep) / run.name, run)

    def report(self, sweep: str, files: Sequence[Path]) -> None:
        folder = self._folder / file_name(sweep) / "report"
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())


class Events:
    """The event files of a run.

    What comes once a run has ended is for earlier steps, in a file of its own: it is written anew as a whole where it
    was interrupted. Rows after the last that was noted are told to be passed over.
    """

    def __init__(self, folder: Path, run: Run):
        if run.logged < 0 and folder.is_dir():
            shutil.rmtree(folder)  # of an attempt of which nothing was noted
        for file in folder.glob(f"*{END}"):
            file.unlink()
        self._folder, self._last = folder, run.logged
        purge = None if run.logged < 0 else run.logged + 1
        self._rows, self._ended = _library().SummaryWriter(str(folder), purge_step=purge), None
        if run.logged < 0:
            config = {name: x if isinstance(x, Real | str) else str(x) for name, x in run.config.items()}
            experiment, start, _ = _library().summary.hparams(config, dict.fromkeys(map(_tag, METRICS), 0.0))
            for summary in (experiment, start):
                self._rows.file_writer.add_summary(summary)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        writer = self._rows if step > self._last else self._end()
        self._last = max(step, self._last)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def flush(self) -> None:
        for writer in filter(None, (self._rows, self._ended)):
            writer.flush()

    def end(self, outcome: Mapping[str, Any]) -> None:
        writer = self._end()
        for name, value in outcome.items():
            if isinstance(value, str):
                writer.add_text(_tag(name), value, self._last)
            else:
                writer.add_scalar(_tag(name), float(value), self._last)
        _, _, end = _library().summary.hparams({}, {})
        writer.file_writer.add_summary(end)

    def close(self) -> None:
        for writer in filter(None, (self._rows, self._ended)):
            writer.close()

    def _end(self) -> Any:
        self._ended = self._ended or _library().SummaryWriter(str(self._folder), filename_suffix=END)
        return self._ended


def _library() -> Any:
    import tensorboardX  # an extra, of which this module's importers may have none

    return tensorboardX


def _tag(name: str) -> str:
    return f"outcome/{name}"
