"""A sweep's results from Python: `grokjax.open` and what it returns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from grokjax import phases as phases_lib
from grokjax.errors import InputError, for_python
from grokjax.store import files, metrics
from grokjax.store.joined import SWEEP, Joined, join
from grokjax.store.records import part, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grokjax.report import results as read_results


def open(workdir: str | Path | Sequence[str | Path]) -> "Results":
    """Opens a sweep's working directory, or several as one, whether finished, interrupted or still in training.

    Args:
      workdir: local, gs://bucket/path or s3://bucket/path; or a list of them, whose runs are numbered anew: `runs` has
        the columns `sweep` and `sweep_run`, `metrics` has `sweep` and every config field in which runs differ, and a
        run that several have is there once.

    Raises:
      InputError: it holds no sweep.

    Example:
      >>> import grokjax
      >>> results = grokjax.open("results/tiny")
      >>> results.runs["status"].tolist()
      ['finished', 'finished', 'finished', 'finished']
    """
    if not isinstance(workdir, str | Path):
        with for_python():
            return JoinedResults(join(list(workdir)))
    path = files.path(workdir)
    if read_record(path) is None:
        files.refuse_missing(path)
        raise InputError(f"{workdir} holds no sweep: name the workdir of one that has begun to train.")
    return Results(path)


class Results:
    """A sweep's results, read from its files whenever they are asked for, so that they grow while it trains.

    Attributes:
      path: of the working directory.
    """

    def __init__(self, path: Path):
        self.path = path

    def __repr__(self) -> str:
        begun = (self.path / "runs.parquet").is_file()
        counts = self.runs["status"].value_counts() if begun else {"waiting": len(self.record["runs"])}
        listed = ", ".join(f"{n} {name}" for name, n in counts.items())
        some = part(self.record)
        return f"grokjax.open({str(self.path)!r})  # runs: {listed}{some and f'; {some}'}"

    @property
    def record(self) -> Mapping[str, Any]:
        """What config.json says: config, axes, every run's fields, versions, devices, git commit."""
        return read_record(self.path) or {}

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run: status, every config field, summary figures, final key frequencies.

        The status is "waiting", "training", "interrupted" (where no process trains it any more; the same command or
        call goes on), "finished", "stopped" (early, by stop_loss) or "diverged".
        """
        return metrics.read_progress(self.path)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per (run, step), sorted: the swept fields and every measure."""
        return metrics.read_metrics(self.path)

    def phases(self, settings: phases_lib.Settings | None = None) -> pd.DataFrame:
        """Finds when each run memorised, formed its circuit and cleaned up: one row per run, as `phases.find_phases`.

        Args:
          settings: thresholds and rules, where they differ from the defaults.

        Example:
          >>> import grokjax
          >>> grokjax.open("results/tiny").phases()["memorised"].all()
          np.True_
        """
        return phases_lib.find_phases(self.metrics, settings)

    def steps(self, run: int) -> list[int]:
        """The steps at which parameters of a run were kept."""
        from grokjax.store import snapshots  # JAX, which tables do without

        path, number = self._place(run)
        return sorted(step for _, step in snapshots.find_snapshots(path, runs=[number]))

    def params(self, run: int, step: int | None = None) -> dict[str, np.ndarray]:
        """Loads the parameters of a run by TransformerLens key, such as "embed.W_E" [P + 1, d_model].

        `grokjax.measures.Shared` lists the keys with their shapes.

        Args:
          run: its number.
          step: one of `steps(run)`; by default the last.

        Raises:
          InputError: there is no such snapshot; says which there are.

        Example:
          >>> import grokjax
          >>> results = grokjax.open("results/tiny")
          >>> sorted(results.params(run=1, step=100))[:2]
          ['blocks.0.attn.W_K', 'blocks.0.attn.W_O']
        """
        from grokjax.interp.checkpoint import load_params

        path, number = self._place(run)
        return load_params(path, number, step)

    def measure(self, run: int, step: int | None = None, **options) -> dict[str, Any]:
        """Computes every measure of a run's snapshot on its own task and split; arguments as for `grokjax.measure`."""
        from grokjax.api.models import measure

        return measure(self._snapshot(run, step), **options)

    def circuit(self, run: int, step: int | None = None, **options) -> dict[str, Any]:
        """Repeats the paper's reverse engineering on a run's snapshot: arguments as for `grokjax.circuit`."""
        from grokjax.api.models import circuit

        return circuit(self._snapshot(run, step), **options)

    def _place(self, run: int) -> tuple[Path, int]:
        """The directory that a run is in, and its number there."""
        return self.path, run

    def _snapshot(self, run: int, step: int | None) -> str:
        path, number = self._place(run)
        return f"{path}:{number}" + ("" if step is None else f":{step}")

    def _read(self, more: Sequence[str] = ()) -> "read_results.Results":
        from grokjax.report import results

        return results.read(self.path, more)

    def figure(self, kind: str = "losses", by: Sequence[str] = (), column: str | None = None) -> "Figure":
        """Draws a figure of the whole sweep, with Matplotlib: to be changed, shown and saved.

        Args:
          kind: "losses": train, test, restricted and excluded loss of every run, a panel per setting; "time-to-grok"
            over one or two fields; "phase-diagram": median times over two fields, k of n runs in each cell;
            "frequencies": the key frequencies of every run's final model; "column": any measure over training.
          by: the swept fields to tell settings apart by; by default all but seeds.
          column: of `metrics`, with a number in each row, for kind "column"; your own measures too.

        Raises:
          InputError: there is no such kind, field or column, or the sweep lacks what the figure shows.

        Example:
          >>> import grokjax
          >>> grokjax.open("results/tiny").figure("losses").savefig("losses.pdf")
        """
        from grokjax.report import figures

        with for_python():
            return figures.figure(self._read([column] if column else []), kind, by, column)

    def report(self, out: str | Path | None = None) -> Path:
        """Writes the page and returns its path, to be opened in a browser.

        Args:
          out: the folder to write to; by default report in the sweep's own directory.
        """
        from grokjax.report import write

        return write.write(self.path) if out is None else write.write_into(self._read(), out)


class JoinedResults(Results):
    """Several sweeps' results as those of one: what `open` gives for a list.

    Attributes:
      path: of the first directory.
      notes: what was left out, in sentences.
    """

    def __init__(self, joined: Joined):
        super().__init__(next(iter(joined.paths.values())))
        self._paths, self.notes = list(joined.paths.values()), list(joined.notes)

    def __repr__(self) -> str:
        runs = self.runs
        listed = ", ".join(f"{n} of {name}" for name, n in runs[SWEEP].value_counts(sort=False).items())
        return f"grokjax.open({[*map(str, self._paths)]})  # runs: {listed}"

    @property
    def record(self) -> Mapping[str, Any]:
        """What the config.json of each sweep says, by the sweep's name."""
        return self._joined.records

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run of any sweep, numbered anew, with `sweep` and `sweep_run`, its number there."""
        return self._joined.runs

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per (run, step): `sweep`, the fields in which runs differ, every measure; notes in `attrs`."""
        return self._joined.metrics()

    def report(self, out: str | Path | None = None) -> Path:
        """Writes the page into the folder `out` and returns its path."""
        if out is None:
            raise InputError("out is missing: the report of several sweeps needs a folder, such as out='both'.")
        return super().report(out)

    @property
    def _joined(self) -> Joined:
        return join(self._paths)

    def _place(self, run: int) -> tuple[Path, int]:
        return self._joined.place(run)

    def _read(self, more: Sequence[str] = ()) -> "read_results.Results":
        from grokjax.report import results

        return results.of_joined(self._joined, more)
