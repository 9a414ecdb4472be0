"""A table of metrics, checked, put in order and cut into runs."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from grokjax.errors import InputError
from grokjax.phases.curves import COLUMNS, QUANTITIES, Curves, Settings
from grokjax.phases.names import recognised
from grokjax.phases.rules import named

REQUIRED = ("step", "train_loss", "test_loss")
ACCURACIES = ("train_acc", "test_acc")


class Run(NamedTuple):
    """One run of a table.

    Attributes:
      curves: up to the last evaluation with a finite train loss.
      diverged_step: of the first evaluation after that; None if there is none.
    """

    curves: Curves
    diverged_step: float | None


class Table:
    """A metrics table, whoever wrote it.

    Rows may come in any order and repeat; a table without the column `run` is one run. A null train loss means that the
    run had diverged if it stays null to the end, and otherwise that it was not recorded there.

    Args:
      metrics: rows per (run, step).
      settings: of the analysis.
      reserved: names that a column must not have to be listed in `constant`.

    Columns are recognised under other tools' names, too; see `phases.names`.

    Attributes:
      read_as: the columns that were: their own name by the one they got.
      constant: columns besides the measures that hold one value in every run: swept fields, seeds.

    Raises:
      InputError: a column is missing or holds what it cannot, or the settings name no rule of their phase.
    """

    def __init__(self, metrics: pd.DataFrame, settings: Settings, reserved: frozenset[str] = frozenset()):
        plain, self.settings = _plain(metrics), settings
        self.read_as = recognised(plain.columns)
        self.frame = plain.rename(columns={old: new for new, old in self.read_as.items()})
        self._check_columns()
        step = self._numbers("step")
        if not (np.isfinite(step) & (step >= 0)).all():
            raise InputError(f"column '{self._own('step')}' must hold a step, 0 or more, in every row.")
        run = self._runs()
        columns = {name: self._numbers(name) for name in COLUMNS if name in self.frame}
        for name in ACCURACIES:
            if name in columns and not (np.isnan(columns[name]) | ((columns[name] >= 0) & (columns[name] <= 1))).all():
                raise InputError(
                    f"column '{self._own(name)}' must hold shares between 0 and 1: divide percentages by 100."
                )
        order = np.lexsort((step, run))
        order = order[self._first_of_each(run[order], step[order], {k: v[order] for k, v in columns.items()})]
        self._rows, self._step = order, step[order]
        self._columns = {name: values[order] for name, values in columns.items()}
        self._begin = np.searchsorted(run[order], np.arange(run.max(initial=-1) + 2))
        self.constant = self._constant(reserved)
        self._chance = self._chance_losses()

    def _check_columns(self) -> None:
        if not self.frame.columns.is_unique:
            twice = self.frame.columns[self.frame.columns.duplicated()][0]
            raise InputError(f"column '{twice}' appears twice in the metrics.")
        for name in REQUIRED:
            if name not in self.frame:
                raise InputError(
                    f"the metrics have no column '{name}': phases need {', '.join(REQUIRED[:-1])} and {REQUIRED[-1]}, "
                    f"under these or other usual names, and the columns are "
                    f"{', '.join(map(str, self.frame.columns)) or 'none'}."
                )
        for boundary, rule in self.settings.rules.items():
            for need in named(boundary, rule).needs:
                names = QUANTITIES.get(need, REQUIRED)
                if not any(name in self.frame for name in names):
                    raise InputError(f"rule '{rule}' needs the column {' or '.join(names)}, which the metrics lack.")

    def _own(self, name: str) -> str:
        """What a column is called in the table that was given."""
        return self.read_as.get(name, name)

    def _numbers(self, name: str) -> np.ndarray:
        """A column as float64 with NaN for what is null or not finite."""
        try:
            values = pd.to_numeric(self.frame[name], errors="raise").to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            raise InputError(f"column '{self._own(name)}' must hold numbers.") from None
        return np.where(np.isfinite(values), values, np.nan)

    def _runs(self) -> np.ndarray:
        """A number per row that sorts as the run does."""
        if "run" not in self.frame:
            return np.zeros(len(self.frame), int)
        if self.frame["run"].isna().any():
            raise InputError("column 'run' must name a run in every row.")
        try:
            return pd.factorize(self.frame["run"], sort=True)[0]
        except TypeError:  # names that do not sort, such as 3 and "b"
            return pd.factorize(self.frame["run"].astype(str), sort=True)[0]

    def _first_of_each(self, run: np.ndarray, step: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Which sorted rows to keep: one per (run, step)."""
        again = np.append(False, (np.diff(run) == 0) & (np.diff(step) == 0))[: run.size]
        for name, values in columns.items():
            differs = again & (values != np.roll(values, 1)) & ~(np.isnan(values) & np.isnan(np.roll(values, 1)))
            if differs.any():
                at = step[differs.argmax()]
                hint = "" if "run" in self.frame else " (without a column 'run' the table must be one run)"
                raise InputError(f"step {at:g} of one run has two different values of '{name}'{hint}.")
        return ~again

    def _constant(self, reserved: frozenset[str]) -> list[str]:
        """Columns with one value per run, null or not, and not null everywhere."""
        run = np.repeat(np.arange(len(self)), np.diff(self._begin))
        names = [name for name in self.frame.columns if name not in (*COLUMNS, "run", "step") and name not in reserved]
        return [name for name in names if len(self) and self._is_constant(self.frame[name], run)]

    def _is_constant(self, column: pd.Series, run: np.ndarray) -> bool:
        first, last = self._rows[self._begin[:-1]], self._rows[self._begin[1:] - 1]
        try:
            ends = pd.factorize(column.iloc[np.concatenate([first, last])])[0].reshape(2, -1)
            if (ends[0] != ends[1]).any() or column.isna().all():  # most measures end here
                return False
            codes = pd.factorize(column.iloc[self._rows])[0]
        except TypeError:  # lists, arrays
            return False
        return bool((codes == codes[self._begin[run]]).all())

    def _chance_losses(self) -> np.ndarray:
        """Loss of an uninformed guess by run, NaN where it is unknown; see `Settings.chance_loss`."""
        first = self._begin[:-1]
        if self.settings.chance_loss is not None or not len(self):
            return np.full(len(self), self.settings.chance_loss or np.nan)
        chance = np.where(self._step[first] == 0, self._columns["test_loss"][first], np.nan)
        chance = np.where(chance > 0, chance, np.nan)
        if "p" in self.constant:
            p = self._numbers("p")[self._rows[first]]
            chance = np.where(np.isnan(chance) & (p > 1), np.log(np.maximum(p, 2)), chance)
        known = chance[~np.isnan(chance)]
        return np.where(np.isnan(chance), np.median(known), chance) if known.size else chance

    def __len__(self) -> int:
        """The number of runs."""
        return len(self._begin) - 1

    def fixed(self) -> pd.DataFrame:
        """One row per run: `run`, if the table has it, and the constant columns."""
        names = (["run"] if "run" in self.frame else []) + self.constant
        return self.frame[names].iloc[self._rows[self._begin[:-1]]].reset_index(drop=True)

    def runs(self) -> Iterator[Run]:
        """Every run, in order."""
        for begin, end, chance in zip(self._begin[:-1], self._begin[1:], self._chance, strict=True):
            finite = np.flatnonzero(np.isfinite(self._columns["train_loss"][begin:end]))
            usable = begin + (int(finite[-1]) + 1 if finite.size else 0)
            columns = {name: values[begin:usable] for name, values in self._columns.items()}
            diverged = usable < end
            known = None if np.isnan(chance) else float(chance)
            curves = Curves(self._step[begin:usable], columns, self.settings, known, diverged)
            yield Run(curves, float(self._step[usable]) if diverged else None)


def _plain(metrics: pd.DataFrame) -> pd.DataFrame:
    """The table with whatever its index names as columns."""
    if not isinstance(metrics, pd.DataFrame):
        raise InputError(f"metrics must be a pandas DataFrame, not {type(metrics).__name__}.")
    named = [name for name in metrics.index.names if name is not None and name not in metrics]
    return metrics.reset_index(level=named) if named else metrics
