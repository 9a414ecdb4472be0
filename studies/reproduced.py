"""The generated parts of docs/reproductions.md, from the records alone."""

import math
import re
from collections.abc import Mapping

import pandas as pd

from benchmarks.markdown import table
from grokjax.training.progress import duration
from studies import papers, reproductions, text
from studies.comparisons import Found
from studies.papers import Reproduction

Records = Mapping[str, pd.DataFrame]  # of one experiment, by setting; those that there are

SURE = 0.05  # the p above which a full setting says nothing for or against its paper


def found() -> str:
    """What every experiment that exists shows of its paper, as Markdown."""
    read = {
        name: {setting: reproductions.read(name, setting) for setting in reproductions.SETTINGS}
        for name in papers.found()
    }
    records = {name: {setting: runs for setting, runs in both.items() if len(runs)} for name, both in read.items()}
    return page(papers.found(), records)


def page(entries: Mapping[str, Reproduction], records: Mapping[str, Records]) -> str:
    """What records show, as Markdown: a table of all experiments, then a part for each.

    Args:
      entries: by name of the experiment.
      records: by name and setting.
    """
    header = ["experiment", "paper", "setting", "runs", "took", "on", "shows"]
    lines = [line for name, entry in entries.items() for line in _overview(name, entry, records[name])]
    return "\n\n".join([table(header, lines), *(_part(name, entry, records[name]) for name, entry in entries.items())])


def _overview(name: str, entry: Reproduction, records: Records) -> list[list[str]]:
    """The lines of an experiment: one for each setting, run or not."""
    lines = []
    for setting in reproductions.SETTINGS:
        begin = [f"[{name}](#{name})", re.sub(", arXiv [0-9.]+", "", entry.paper), setting]
        runs = records.get(setting)
        lines.append(begin + (["not run", "–", "–", "–"] if runs is None else _outcome(entry, setting, runs)))
    return lines


def _outcome(entry: Reproduction, setting: str, runs: pd.DataFrame) -> list[str]:
    total = int(runs["total"].max())
    first = runs.iloc[0]
    took = "not kept" if pd.isna(first["seconds"]) else duration(first["seconds"])
    if not pd.isna(first.get("processor_seconds", math.nan)):
        took += f" ({duration(first['processor_seconds'])} of processor time)"
    shows = [_shows(figure.compare(runs), setting) for figure in entry.of(setting)]
    known = [one for one in shows if one is not None]
    said = f"{sum(known)} of {len(known)} figures" + f", {len(shows) - len(known)} open" * (len(known) < len(shows))
    return [f"{len(runs)} of {total}", took, "not kept" if pd.isna(first["hardware"]) else str(first["hardware"]), said]


def _part(name: str, entry: Reproduction, records: Records) -> str:
    """What an experiment shows: each of its figures, the paper's and ours."""
    differs = f" The full setting: {entry.full}." if entry.full else ""
    rows = [
        [figure.what, figure.published, setting, found.ours, _verdict(found, setting)]
        for figure in entry.figures
        for setting, runs in records.items()
        if figure in entry.of(setting)
        for found in [figure.compare(runs)]
    ]
    shown = {row[0] for row in rows}
    rows += [[f.what, f.published, "–", "not run", "–"] for f in entry.figures if f.what not in shown]
    header = ["compared", "published", "setting", "ours", "verdict"]
    return f"## {name}\n\n{entry.paper}. {entry.claim}{differs}\n\n{table(header, rows)}"


def _shows(found: Found, setting: str) -> bool | None:
    """Whether the effect is there; None where that is open, as of a full setting whose difference may be chance."""
    return None if setting == "full" and found.p > SURE else found.shows


def _verdict(found: Found, setting: str) -> str:
    """A small setting shows an effect or does not; only the full one agrees or disagrees with a paper."""
    shows = _shows(found, setting)
    words = {"small": ("does not show it", "shows it"), "full": ("disagrees", "agrees")}[setting]
    said = "open" if shows is None else words[shows]
    return said + ("" if math.isnan(found.p) else f" (p = {text.number(found.p, 2)})")
