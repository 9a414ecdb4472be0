"""The numbers that a page's script draws."""

import dataclasses
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases.rules import RULES
from grokjax.report import downsampling, verdict
from grokjax.report.downsampling import encoded
from grokjax.report.panels import (
    COLORS,
    FIGURES,
    OWN_DASHES,
    PHASE_COLORS,
    QUANTITIES,
    SPECTRA,
    STAND_INS,
    Curves,
    Line,
)
from grokjax.report.results import (
    CIRCUIT,
    Results,
    first_run,
    groups,
    is_own,
    label,
    sentence,
    shade,
    shown_value,
    wants_log,
)

VALUES = 1_250_000  # of curves in a page, up to 10 MB; 100 runs × 400 evaluations × 30 columns fit undiminished
PIXELS = 4_600_000  # of images in a page, about 6 MB; 100 runs × 400 evaluations × 56 frequencies × 2 fit
MIN_POINTS = 8  # of a curve, however many runs there are
MAX_EDGES = 80  # of the shading behind many curves


def document(results: Results) -> dict[str, Any]:
    """Gathers what the page's script draws, ready for JSON: every number finite, arrays as base64."""
    runs = list(results.runs["run"])
    figures = available(results)
    return {
        "name": results.name,
        "runs": [_run(results, row) for row in results.runs.to_dict("records")],
        "first": first_run(results.runs),
        "axes": [_axis(results.runs, name) for name in results.axes],
        "settings": list(results.settings),
        "groups": [_group(results, label, members) for label, members in groups(results)],
        "medians": _medians(results),
        "cells": _cells(results),
        "quantities": [
            {"name": name, "label": results.words(label), "unit": results.words(unit), "log": log}
            for name, (label, unit, log) in QUANTITIES.items()
            if name in results.runs and results.runs[name].notna().any()
        ],
        "phases": PHASE_COLORS,
        "figures": [dataclasses.asdict(figure) for figure in figures],
        **_curves(results, figures, runs),
        **_images(results, runs),
        "circuit": _circuit(results, runs),
        "words": {"one": results.words("frequency"), "keys": results.words("key frequencies")},
    }


def available(results: Results) -> list[Curves]:
    """The figures with the lines that this sweep has values of."""
    held = {str(name) for name in results.metrics if results.metrics[name].notna().any()}
    result, words = [], results.words
    for figure in FIGURES:
        lacks = [line for line in figure.lines if line.column in STAND_INS.keys() - held]
        wanted = {STAND_INS[line.column]: line.many for line in lacks}
        lines = [
            dataclasses.replace(
                n,
                label=words(n.label),
                on=n.on or n.column in wanted,
                many=n.many or wanted.get(n.column, False),
            )
            for n in figure.lines
            if n.column in held
        ]
        if lines:
            title, unit = words(figure.title), words(figure.unit)
            result.append(dataclasses.replace(figure, title=title, unit=unit, lines=tuple(lines)))
    return [*result, *_own(results, held)]


def _own(results: Results, held: Collection[str]) -> list[Curves]:
    """A figure for each unit of the experiment's own measures."""
    by_unit: dict[str, list[str]] = {}
    for name, about in results.columns.items():
        if is_own(about) and name in held:
            by_unit.setdefault(about.get("unit", "1"), []).append(name)
    figures = []
    for i, (unit, names) in enumerate(by_unit.items()):
        values = results.metrics[names].to_numpy(float)
        said = "pure number" if unit == "1" else unit
        lines = [
            Line(name, name, COLORS[n % len(COLORS)], OWN_DASHES[n // len(COLORS) % len(OWN_DASHES)], many=n == 0)
            for n, name in enumerate(names)
        ]
        title = f"Measures of the experiment's own ({said})"
        figures.append(Curves(f"own_{i}", title, said, wants_log(values), tuple(lines)))
    return figures


def _curves(results: Results, figures: Sequence[Curves], runs: Sequence[int]) -> dict[str, Any]:
    """Steps by run, each line's values by column and run, and the most points of a curve if some have been thinned."""
    names = [line.column for figure in figures for line in figure.lines]
    by_run = dict(iter(results.metrics.groupby("run")))
    limit = max(MIN_POINTS, VALUES // max(1, len(by_run) * len(names)))
    longest = max(map(len, by_run.values()), default=0)
    index_bytes = 2 if longest < 2**16 else 4
    frames = [by_run.get(run, results.metrics[:0]) for run in runs]
    return {
        "steps": [encoded(rows["step"].to_numpy(), "<u4") for rows in frames],
        "curves": {name: [_curve(rows[name], limit, index_bytes) for rows in frames] for name in names},
        "curve_limit": limit if longest > limit else None,
        "index_bytes": index_bytes,
    }


def _curve(column: pd.Series, limit: int, index_bytes: int) -> dict[str, str] | None:
    """A curve as base64 float32; with the numbers of its evaluations unless those are all."""
    values = column.to_numpy(float, na_value=np.nan)
    finite = np.flatnonzero(np.isfinite(values))
    if not finite.size:
        return None
    # A measure taken at some evaluations only, such as one from snapshots, has points and no gaps.
    where = finite if finite.size < 0.75 * values.size else np.arange(values.size)
    where = where[downsampling.kept(values[where], limit)]
    with np.errstate(over="ignore"):
        curve = {"v": encoded(values[where], "<f4")}
    return curve if where.size == values.size else curve | {"i": encoded(where, f"<u{index_bytes}")}


def _images(results: Results, runs: Sequence[int]) -> dict[str, Any]:
    """The images by matrix and run; and the most columns of one, if some have been thinned to that."""
    held = [values for of_run in results.spectra.values() for _, values in of_run.values()]
    limit = max(MIN_POINTS, PIXELS // max(1, sum(values.shape[1] for values in held)))
    spectra = []
    for column, of_run in results.spectra.items():
        scale = downsampling.value_range([values for _, values in of_run.values()])
        if scale is not None:
            images = [_image(of_run[run], scale, limit) if run in of_run else None for run in runs]
            title = results.words(f"Fourier norms of {SPECTRA[column]}")
            about = {"matrix": SPECTRA[column], "title": title, "low": scale[0], "high": scale[1]}
            spectra.append({**about, "images": images})
    longest = max((len(values) for values in held), default=0)
    return {"spectra": spectra, "image_limit": limit if longest > limit else None}


def _image(norms: tuple[np.ndarray, np.ndarray], scale: tuple[float, float], limit: int) -> dict[str, Any]:
    image = downsampling.image(*norms, scale, limit)
    steps, levels = encoded(image.steps, "<u4"), encoded(image.levels, "u1")
    return {"steps": steps, "levels": levels, "frequencies": image.levels.shape[1]}


def _run(results: Results, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "run": int(row["run"]),
        "label": label(row, results.axes),
        "status": row["status"],
        "text": sentence(row),
        "axes": {name: shown_value(row[name]) for name in results.axes},
        "phases": [list(phase) for phase in shade(row)],
        "last_step": finite(row["last_step"]),
        "blocks": results.words.names(row),
        "keys": None if pd.isna(row["n_key_freqs"]) else [int(k) for k in row["key_freqs"]],
        "values": {name: finite(row[name]) for name in QUANTITIES if name in row},
    }


def finite(value: Any) -> float | None:
    """A number for JSON; None for what is missing or not finite."""
    return None if pd.isna(value) or not np.isfinite(float(value)) else float(value)


def _group(results: Results, label: str, members: np.ndarray) -> dict[str, Any]:
    rows = results.runs.iloc[members]
    return {
        "label": label,
        "runs": [int(i) for i in members],
        "text": " ".join(verdict.sentences(rows, verdict.differing(rows, results.settings), most=4)),
        "shades": _shares([shade(row) for row in rows.to_dict("records")]),
    }


def _shares(shades: Sequence[Sequence[tuple[str, float, float]]]) -> list[tuple[str, float, float, float]]:
    """The share of runs that are in each phase, over training: (phase, from step, to step, share)."""
    edges = np.unique([edge for run in shades for _, begin, end in run for edge in (begin, end)])
    if edges.size > MAX_EDGES:
        edges = np.linspace(edges[0], edges[-1], MAX_EDGES)
    middle, result = (edges[:-1] + edges[1:]) / 2, []
    for phase in (boundary.replace("_", " ") for boundary in RULES):
        spans = [(begin, end) for run in shades for name, begin, end in run if name == phase]
        count = sum(((middle > begin) & (middle < end) for begin, end in spans), np.zeros(middle.size))
        for i in np.flatnonzero(count):
            result.append((phase, float(edges[i]), float(edges[i + 1]), round(float(count[i]) / len(shades), 3)))
    return result


def _axis(runs: pd.DataFrame, name: str) -> dict[str, Any]:
    """An axis: its values as text, in order, and as numbers if they are."""
    values = sorted(runs[name].unique(), key=lambda v: (pd.isna(v), str(v) if isinstance(v, str) else v))
    numbers = pd.api.types.is_numeric_dtype(runs[name]) and not pd.api.types.is_bool_dtype(runs[name])
    return {
        "name": name,
        "values": [shown_value(value) for value in values],
        "numbers": [finite(value) for value in values] if numbers else None,
    }


def _medians(results: Results) -> list[dict[str, Any]]:
    """Median times to grok by setting, for the figure of times; None if not reached, or without an interval."""
    found = phases.time_to_grok(results.runs, list(results.by))
    return [
        {"axes": {name: shown_value(row[name]) for name in results.by}}
        | {key: finite(row[key]) for key in ("median", "low", "high")}
        | {key: int(row[key]) for key in ("runs", "grokked")}
        for row in found.to_dict("records")
        if row["runs"] > 1
    ]


def _cells(results: Results) -> list[dict[str, Any]]:
    """Median times by every axis and every pair of axes, for the heat map; a median of None is not reached."""
    begun = results.runs[results.runs["last_step"].notna()]
    result = []
    for names in [*((name,) for name in results.axes), *itertools.combinations(results.axes, 2)]:
        for row in phases.median_times(begun, names).to_dict("records"):
            times = {
                column: {
                    "median": finite(row[f"{name}_median"]),
                    "last": finite(row[f"{name}_last"]),
                    **{key: int(row[f"{name}_{key}"]) for key in ("runs", "seen")},
                }
                for name, column in phases.TIMES.items()
            }
            result.append({"axes": {name: shown_value(row[name]) for name in names}, "times": times})
    return result


def _circuit(results: Results, runs: Sequence[int]) -> list[dict[str, Any] | None] | None:
    """The step of each run's model and its rows of claims: claim, paper, here, source, why it is null."""
    if results.circuit is None:
        return None
    from grokjax.interp.circuit import table  # loaded when there is a table: it brings JAX

    found = {int(row["run"]): {str(k): v for k, v in row.items()} for row in results.circuit.to_dict("records")}
    try:
        return [_claims(table.rows(found[run]), found[run]) if run in found else None for run in runs]
    except (KeyError, TypeError, ValueError):
        file = " or ".join(str(path / CIRCUIT) for path in results.paths)
        raise InputError(f"{file} is none of this version's: make it again with grokjax circuit.") from None


def _claims(rows: Sequence[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    null = json.loads(found["null"])
    texts = [[row.claim, row.paper, row.here, row.source, null.get(row.number, "")] for row in rows]
    return {"step": int(found["step"]), "rows": texts}
