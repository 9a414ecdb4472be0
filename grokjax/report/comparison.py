"""Two sweeps compared: which settings differ, and what that did to runs of the same seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from grokjax import config
from grokjax.columns import ARROW
from grokjax.errors import InputError, unknown
from grokjax.identity import IDENTITY
from grokjax.phases import paired
from grokjax.phases.survival import counted
from grokjax.report.results import Results, read, shown_value
from grokjax.store import files
from grokjax.store.joined import CADENCES, labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What else config.json says that results may depend on.
MACHINE = ("precision", "platform", "device_kind", "n_devices", "cpu_threads", "native", "git_commit")
MOST_VALUES = 6  # of a field, in a sentence


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sweeps side by side.

    Attributes:
      names: of the sweeps, the first and the second.
      differences: rows per setting that differs: `setting`, `first`, `second`, what it is in each, as text. Config
        fields come first, then what else `config.json` says.
      on: the fields that pairs of runs agree in.
      pairs: rows per pair of runs, as of `phases.paired.pair`.
      statistics: rows per quantity, as of `phases.paired.statistics`.
      notes: what could not be compared, in sentences.
    """

    names: tuple[str, str]
    differences: pd.DataFrame
    on: Sequence[str]
    pairs: pd.DataFrame
    statistics: pd.DataFrame
    notes: Sequence[str]

    def figure(self) -> "Figure":
        """Draws every pair: when the first sweep's run memorised and grokked, and when the second one's did.

        Raises:
          InputError: there are no pairs.
        """
        from grokjax.report import scatter

        return scatter.pairs(self)


def compare(first: str | Path, second: str | Path, by: Sequence[str] = ()) -> Comparison:
    """Compares two sweeps: which settings differ, and what that did to runs of the same seeds.

    Runs are paired that agree in every field that varies inside a sweep and has values that both have; a field in which
    the sweeps differ as a whole is what is compared.

    Args:
      first, second: working directories; local, gs://bucket/path or s3://bucket/path.
      by: fields that pairs agree in, to give the statistics for each of their values.

    Raises:
      InputError: a directory holds no evaluations, or `by` names no field that pairs agree in.

    Example:
      >>> import grokjax
      >>> found = grokjax.compare("results/tiny", "results/tiny")
      >>> len(found.differences), len(found.pairs)
      (0, 4)
    """
    names = labels([files.path(first), files.path(second)]) if str(first) != str(second) else ["first", "second"]
    sweeps = [read(first), read(second)]
    notes = []
    if missing := [name for name, sweep in zip(names, sweeps, strict=True) if sweep.is_table]:
        raise InputError(f"{missing[0]} is a table, and working directories of sweeps are compared.")
    runs = [_begun(sweep.runs) for sweep in sweeps]
    on, apart = _shared(runs)
    try:
        pairs = paired.pair(runs[0], runs[1], on)
    except InputError as error:
        pairs = paired.pair(runs[0][:0], runs[1][:0], on)
        notes.append(f"no pairs: {str(error).rstrip('.')}, so that it is not known which to pair")
    for name in by:
        if name not in on:
            raise unknown("field that pairs agree in", name, on)
    notes += _said(names, runs, pairs, apart)
    differences = pd.DataFrame(_differing(sweeps), columns=["setting", "first", "second"])
    return Comparison((names[0], names[1]), differences, on, pairs, paired.statistics(pairs, by), notes)


def _begun(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with an evaluation; fields that are younger than their sweep have their defaults."""
    young = {name: field.default for name, field in config.FIELDS.items() if field.type in ARROW and name not in runs}
    return runs[runs["last_step"].notna()].assign(**young)


def _shared(runs: Sequence[pd.DataFrame]) -> tuple[list[str], list[str]]:
    """The fields to pair runs by, and those that vary inside a sweep and have no value that both have."""
    fields = [name for name, field in config.FIELDS.items() if field.type in ARROW and name not in CADENCES]
    fields = [name for name in fields if any(some[name].nunique(dropna=False) > 1 for some in runs)]
    common = {name: set(runs[0][name].map(shown_value)) & set(runs[1][name].map(shown_value)) for name in fields}
    return [name for name in fields if common[name]], [name for name in fields if not common[name]]


def _said(names: Sequence[str], runs: Sequence[pd.DataFrame], pairs: pd.DataFrame, apart: Sequence[str]) -> list[str]:
    """What of the sweeps is in no pair, and which pairs say nothing."""
    said = [f"{name} has no value that both sweeps have, so runs are not paired by it" for name in apart]
    for name, side, some in zip(names, paired.SIDES, runs, strict=True):
        if alone := len(some) - pairs[f"run_{side}"].nunique():
            said.append(f"{counted(alone, 'run')} of {name} {'is' if alone == 1 else 'are'} in no pair")
    identity = [some.set_index("run")[IDENTITY] for some in runs]
    first, second = (pairs[f"run_{side}"].map(ids) for side, ids in zip(paired.SIDES, identity, strict=True))
    if same := int((first.notna() & (first == second)).sum()):
        said.append(f"{counted(same, 'pair')} of one and the same run, trained twice")
    return said


def _differing(sweeps: Sequence[Results]) -> list[dict[str, str]]:
    """What differs between two sweeps: config fields by their values over the runs, then versions and the machine."""
    both: list[dict[str, str]] = [_fields(sweep.runs) | _machine(sweep.record) for sweep in sweeps]
    names = dict.fromkeys([*both[0], *both[1]])
    rows = [{"setting": name, "first": both[0].get(name, "–"), "second": both[1].get(name, "–")} for name in names]
    return [row for row in rows if row["first"] != row["second"]]


def _fields(runs: pd.DataFrame) -> dict[str, str]:
    return {name: _values(runs[name]) for name in config.FIELDS if name in runs}


def _values(values: pd.Series) -> str:
    """The values of a field over the runs, in order of their size."""
    plain = [value if pd.api.types.is_scalar(value) else ", ".join(value) for value in values]
    some = pd.Series(plain, dtype=object).drop_duplicates()
    order = sorted(some, key=lambda v: (pd.isna(v), isinstance(v, str), v if not pd.isna(v) else 0))
    texts = [shown_value(value) for value in order]
    return ", ".join(texts) if len(texts) <= MOST_VALUES else f"{texts[0]} … {texts[-1]} ({len(texts)} values)"


def _machine(record: Mapping[str, Any]) -> dict[str, str]:
    found = {name: record[name] for name in MACHINE if record.get(name) is not None and name not in config.FIELDS}
    found |= {f"{name} (version)": version for name, version in (record.get("versions") or {}).items()}
    return {name: str(value) for name, value in found.items()}
