"""Puts a page together: what was run, tables, figures to be drawn, files; script, style and data inline."""

import base64
import datetime
import hashlib
import re
import shlex
from collections.abc import Mapping
from importlib import resources
from typing import Any

from plotly import offline

from grokjax.report import document, facts, tables
from grokjax.report.document import available
from grokjax.report.markup import Html, element, embedded, joined
from grokjax.report.panels import Curves
from grokjax.report.results import Results

ASSETS = resources.files("grokjax.report")


def html(results: Results, now: datetime.datetime | None = None) -> str:
    """The page.

    Args:
      results: what it shows.
      now: the time to print on it; by default the current one.
    """
    data = document.document(results)
    described = {name: results.words(about.get("description", "")) for name, about in results.columns.items()}
    scripts = [offline.get_plotlyjs(), _asset("page.js")]
    pieces = {
        "policy": policy(scripts),
        "title": facts.title(results),
        "style": Html(_asset("page.css")),
        "header": facts.header(results, now or datetime.datetime.now(datetime.UTC)),
        "settings": joined(tables.groups(results), tables.fits(results)),
        "runs": tables.runs(results),
        "figures": joined(*(figure(curves, described) for curves in available(results))),
        "comparison": comparison(data),
        "chooser": chooser(data),
        "key": tables.key(of_strips=False),
        "spectra": spectra(data),
        "spectra_name": results.words("Frequencies"),
        "spectra_title": results.words("Fourier norms over training"),
        "circuit": circuit(results, data),
        "files": facts.files(results),
        "notes": facts.notes(results, data),
        "data": embedded(data),
        "plotly": Html(scripts[0]),
        "script": Html(scripts[1]),
    }
    # One pass, so that nothing inside a piece is taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: joined(pieces[match[1]]), _asset("template.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def policy(scripts: list[str]) -> str:
    """A content security policy: these scripts and no others, no network; images and styles only made in the page."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    sources = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def figure(curves: Curves, described: Mapping[str, str] | None = None) -> Html:
    """The place of a figure of curves, with a box to tick for each line, which says what its column is."""
    ticks = [
        element(
            "label",
            element("input", type="checkbox", value=line.column, checked=line.on),
            _sample(line.color, line.dash),
            line.label,
            title=(described or {}).get(line.column) or None,
        )
        for line in curves.lines
    ]
    legend = element("fieldset", element("legend", "Curves", class_="hidden"), *ticks, class_="lines")
    return frame(curves.name, curves.title, legend)


def frame(name: str, title: str, *controls: Html) -> Html:
    """The place of any figure: title, controls, buttons that export it, the plot, and a caption."""
    export = [
        element("button", kind, type="button", data_export=kind.lower(), aria_label=f"Save “{title}” as {kind}")
        for kind in ("SVG", "PNG")
    ]
    head = element("div", element("h3", title), element("span", *export, class_="export"), class_="head")
    plot = element("div", id=name, class_="plot", role="group", aria_label=title)
    return element("figure", head, *controls, plot, element("figcaption"), data_figure=name)


DASHES = {"solid": None, "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}


def _sample(color: str, dash: str) -> Html:
    line = element("line", x1=0, y1=5, x2=26, y2=5, stroke=color, stroke_width=2.5, stroke_dasharray=DASHES[dash])
    return element("svg", line, viewBox="0 0 26 10", class_="sample", aria_hidden="true")


def chooser(data: dict[str, Any]) -> Html:
    """The list of runs and groups that curves are shown of."""
    groups = [element("option", group["label"], value=f"group {i}") for i, group in enumerate(data["groups"])]
    runs = [
        element("option", run["label"], value=f"run {i}", selected=i == data["first"] and not groups)
        for i, run in enumerate(data["runs"])
    ]
    parts = [element("optgroup", *groups, label="groups")] if groups else []
    chosen = element("select", *parts, element("optgroup", *runs, label="runs"), id="choose")
    axes = [(axis["name"], axis["name"]) for axis in data["axes"]]
    return joined(chosen, select("color_by", "coloured by", axes, axes[0][0]) if groups and axes else None)


def comparison(data: dict[str, Any]) -> Html:
    """The places of the figures that set runs side by side."""
    names = [axis["name"] for axis in data["axes"]]
    if not names:
        return element("p", "There is one setting and one run of it, so there is nothing to compare.")
    first, second = names[0], names[1] if len(names) > 1 else ""
    axes = [(name, name) for name in names]
    by = second if second in data["settings"] else ""
    nothing = ("", "nothing")
    over = select("times_x", "over", axes, first), select("times_by", "told apart by", [nothing, *axes], by)
    times = element("div", *over, class_="controls")
    values = [(quantity["name"], quantity["label"]) for quantity in data["quantities"]]
    heat = element(
        "div",
        select("heat_value", "of", values, values[0][0] if values else None),
        select("heat_x", "over", axes, first),
        select("heat_y", "and", [*axes, nothing], second),
        class_="controls",
    )
    over_two = values and len(data["settings"]) > 1  # with one field swept, the figure of times shows all there is
    return joined(frame("times", "Time to grok", times), frame("heat", "Heat map of runs", heat) if over_two else None)


def spectra(data: dict[str, Any]) -> Html:
    """The places of the images."""
    if not data["spectra"]:
        return element("p", "The sweep recorded no Fourier norms: config.measures has no group with them.")
    frames = [frame(f"spectrum_{s['matrix']}", s["title"]) for s in data["spectra"]]
    return element("div", *frames, class_="pair")


def select(name: str, label: str, options: list[tuple[str, str]], chosen: str | None) -> Html:
    """A labelled list to choose from."""
    items = [element("option", text, value=value, selected=value == chosen) for value, text in options]
    return element("label", label, " ", element("select", *items, id=name))


def circuit(results: Results, data: dict[str, Any]) -> Html:
    """The place of the table of claims, or how to make it."""
    if results.is_table:
        command = element("code", "grokjax circuit FILE")
        return element(
            "p", "A table has no models in it; ", command, " repeats the paper's reverse engineering of one."
        )
    if results.known_as and data["circuit"] is None:
        command = element("code", "grokjax circuit weights/run_00000.safetensors")
        return element("p", command, " repeats the paper's reverse engineering of a run's final model.")
    if data["circuit"] is None:
        each = [f"grokjax circuit {shlex.quote(str(path))} --all" for path in results.paths]
        command = element("code", "; ".join(each))
        again = element("code", f"grokjax report {results.arguments}{' --out=DIR' * bool(results.joined)}")
        what = " repeats the paper's reverse engineering for every finished run, and "
        return element("p", "No circuit.parquet yet: ", command, what, again, " then shows it here.")
    head = [tables.heading(name, numeric=False) for name in ("claim", "the paper's mainline", "this model", "source")]
    said = element("p", id="circuit_of", role="status")
    caption = "What the paper claims of its model, and this model."
    if results.words.in_blocks:
        caption += " Of a group: the same in its blocks, without the paper's numbers, which are of addition."
    return joined(said, tables.table("claims", caption, head, []))
