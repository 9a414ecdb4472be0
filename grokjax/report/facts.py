"""The words of a page: what was run and on what, where the files are, what the figures leave out."""

import datetime
from collections.abc import Mapping
from typing import Any

from grokjax import config, tasks
from grokjax.phases import find, survival
from grokjax.report import downsampling, verdict
from grokjax.report.markup import Html, element, joined
from grokjax.report.panels import SPECTRA
from grokjax.report.results import Results, shown_value
from grokjax.store import files as files_lib
from grokjax.store import metrics
from grokjax.store.records import part

LOAD = """\
import pandas as pd

sweep = ".."  # this page's folder is in the sweep's; from elsewhere, the path of the sweep
metrics = pd.read_parquet(f"{sweep}/metrics")  # one row per (run, step)
runs = pd.read_parquet(f"{sweep}/runs.parquet")  # one row per run
"""
LOAD_OBJECTS = """\
import grokjax

sweep = "SWEEP"
metrics = grokjax.read_metrics(sweep)  # one row per (run, step)
runs = grokjax.read_runs(sweep)  # one row per run
"""
LOAD_JOINED = """\
import grokjax

results = grokjax.open(SWEEPS)
metrics = results.metrics  # one row per (run, step)
runs = results.runs  # one row per run
"""
UNKNOWN = "unknown"
PHASES = """
from grokjax import phases

found = phases.find_phases(metrics)  # one row per run: the table of phases
"""


def title(results: Results) -> str:
    """Such as "12 runs of add mod 53"."""
    n = survival.counted(len(results.runs), "run")
    unknown = results.is_table and UNKNOWN in (_values(results, "task"), _values(results, "p"))
    return f"{n} of {results.path.name if unknown else _tasks(results)}"


def _tasks(results: Results) -> str:
    """Such as "add mod 53", or "group S_4, A_5" where all are groups."""
    task, moduli = (_values(results, name) for name in ("task", "p"))
    if task == tasks.GROUP:
        return f"{task} {_values(results, 'group')}"
    return task if task.startswith(f"{tasks.GROUP} ") else f"{task} mod {moduli}"


def _task(results: Results) -> str:
    """The same with the orders of groups."""
    orders = f" ({_values(results, 'p')} elements)" if _values(results, "task") == tasks.GROUP else ""
    return f"{_tasks(results)}{orders}"


def _values(results: Results, name: str) -> str:
    """The values of a field over the runs, in order of appearance."""
    if name not in results.runs:
        return UNKNOWN
    values = [shown_value(value) for value in results.runs[name].drop_duplicates()]
    return ", ".join(values) if len(values) < 8 else f"{values[0]}, …, {values[-1]} ({len(values)} values)"


def header(results: Results, now: datetime.datetime) -> Html:
    """The head of the page: what was run, on what, and how far it is."""
    said = [element("li", text) for text in verdict.sentences(results.runs, results.by)]
    parts = [
        element("p", _axes(results), class_="axes"),
        element("ul", *said, class_="verdict", id="verdict"),
        element("p", verdict.surety(results.runs, results.by), class_="axes"),
    ]
    if results.running:
        how = "was still being trained"
        if results.interrupted:
            how = "was interrupted, and no process was training it"
        text = (
            f"This sweep {how} at {now:%Y-%m-%d %H:%M} UTC: the page shows what there was by then, "
            f"and grokjax report {results.arguments} writes it again."
        )
        parts.insert(1, element("p", text, class_="running"))
    records = results.joined.records if results.joined else {} if results.is_table else {"This": results.record}
    for name, record in records.items():
        if some := part(record):
            parts.insert(1, element("p", f"{name} is {some}.", class_="axes", id="part"))
    parts += [element("p", f"{note}.", class_="axes") for note in (results.joined.notes if results.joined else ())]
    rows = [joined(element("dt", name), element("dd", text)) for name, text in _facts(results, now).items() if text]
    details = element("details", element("summary", "What was run, and on what"), element("dl", *rows), open=True)
    return joined(*parts, details)


def _axes(results: Results) -> str:
    axes = " × ".join(f"{name} {_values(results, name)}" for name in results.axes)
    if results.is_table and not axes:
        return "A table of metrics alone."
    return f"Swept: {axes}." if axes else "Nothing was swept: every run has the same settings."


def _facts(results: Results, now: datetime.datetime) -> dict[str, str]:
    """Name and text of each fact; those of config.json are missing where there is none."""
    record = results.record
    words = results.words
    known = _measured(results) if results.is_table else _configured(results)
    facts = {words(name): text for name, text in known.items()}
    facts[f"{words('frequencies')} (functions of each)"] = words.facts()
    if "device_kind" in record:
        threads = f", {record.get('cpu_threads')} threads" if record.get("platform") == "cpu" else ""
        facts["device"] = f"{record.get('n_devices', '?')} × {record['device_kind']}{threads}"
    precision = record.get("precision") or ("" if results.is_table else _values(results, "precision"))
    facts["precision"] = f"{precision} matrix products" if precision else ""
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    facts["commit"] = record.get("git_commit") or ""
    facts["experiment"] = record.get("experiment") or ""
    place = "table" if results.is_table else "directories" if results.joined else "directory"
    where = results.known_as or ", ".join(str(path.resolve()) for path in results.paths)
    return facts | {place: where, "this page": f"{now:%Y-%m-%d %H:%M} UTC"}


def _measured(results: Results) -> dict[str, str]:
    """Facts of a table of checkpoints' measures, by what it says of them; none of any other."""
    about = results.record
    try:
        sizes = ", ".join(f"{name} {about[name]}" for name in ("n_layers", "d_model", "n_heads", "d_mlp", "act"))
        sizes += f", {about['differs']}" if about.get("differs") else ""
        keys = ", ".join(results.words.keys(results.runs.iloc[0].to_dict())) if "key_freqs" in results.runs else "none"
        return {
            "checkpoints": "; ".join([f"the last is {about['model']}", about["layout"], *about["notes"]]),
            "task": f"{tasks.said(about['task'], about['p'])}, {about['n_train']} pairs to train on ({about['split']})",
            "model": f"transformer: {sizes}",
            "key frequencies": f"{keys}, {'given' if 'given' in about['keys'] else 'by rule ' + about['keys']['rule']}",
        }
    except (KeyError, TypeError, AttributeError):
        return {}


# Fields told where they are not as in the mainline.
LATER = (
    *("loss", "gradient_transform", "grokfast_alpha", "grokfast_lamb", "muon_beta", "muon_learning_rate", "l1", "l2"),
    *("decay_to", "norm_constraint", "schedule", "schedule_end", "label_noise", "start_from"),
)


def _configured(results: Results) -> dict[str, str]:
    """Facts of a sweep, by its config; a field that an earlier version did not have was as its default is."""
    v = {
        name: _values(results, name) if name in results.runs else shown_value(field.default)
        for name, field in config.FIELDS.items()
    }
    names = ["learning_rate", "weight_decay", "beta1", "beta2", "eps", "warmup_steps", "init_scale"]
    names += [name for name in LATER if v[name] not in (UNKNOWN, shown_value(config.FIELDS[name].default))]
    facts = {
        "task": f"{_task(results)}, train fraction {v['train_fraction']} of all pairs, split {v['split']}",
        "model": _model(v),
        "optimizer": ", ".join([v["optimizer"], *(f"{name} {v[name]}" for name in names)]),
        "steps": f"{v['steps']}, evaluated every {v['eval_every']}",
        "key frequencies": f"rule {v['key_rule']}, threshold {v['key_threshold']}",
    }
    return facts


def _model(v: Mapping[str, str]) -> str:
    """What models are, by the fields that theirs have; unset ones left out."""
    architecture = v["model.architecture"]
    others = {"mlp": (*config.TRANSFORMER_ONLY, "n_heads"), "transformer": config.MLP_ONLY}.get(architecture, ())
    left_out = {"architecture", *others, *(["d_model"] * (architecture == "mlp" and v["model.inputs"] == "one_hot"))}
    fields = {name.removeprefix("model."): text for name, text in v.items() if name.startswith("model.")}
    said = [
        f"{name} {text}"
        for name, text in fields.items()
        if name not in left_out and text not in (UNKNOWN, shown_value(None))
    ]
    return f"{architecture}: {', '.join(said)}"


def files(results: Results) -> Html:
    """Links to the files, and the lines that load them."""
    if results.is_table:
        return _table_files(results)
    if results.joined:
        text = LOAD_JOINED.replace("SWEEPS", repr([str(path) for path in results.paths]))
        return element("pre", element("code", text + PHASES), tabindex="0")
    what = {
        "../metrics": "metrics: one row per (run, step), Parquet",
        "../runs.parquet": "runs.parquet: one row per run",
        "../config.json": "config.json: the resolved config, versions, devices",
        "losses.png": "losses.png: the losses as one picture",
    }
    links = [element("li", element("a", text, href=where)) for where, text in what.items()]
    parts = metrics.parts(results.path / "metrics")
    listed = [element("li", element("a", part.name, href=f"../metrics/{part.name}")) for part in parts]
    every = element(
        "details", element("summary", f"{survival.counted(len(parts), 'part')} of metrics"), element("ul", *listed)
    )
    load = LOAD if files_lib.is_local(results.path) else LOAD_OBJECTS.replace("SWEEP", str(results.path))
    code = element("pre", element("code", load + PHASES), tabindex="0")
    return joined(element("ul", *links), every, code)


def _table_files(results: Results) -> Html:
    name, figure = results.path.name, "losses.png"
    links = [element("li", element("a", text, href=where)) for where, text in ((f"../{name}", name), (figure, figure))]
    load = f"from grokjax.interp import metrics_table\n\nmetrics = metrics_table.read({f'../{name}'!r})\n"
    code = element("pre", element("code", load + PHASES), tabindex="0")
    return joined(element("ul", *links), code)


def _not_shown(results: Results, data: Mapping[str, Any]) -> list[str]:
    """The columns that no figure of the page shows, the experiment's own first."""
    shown = {
        "run",
        "step",
        *config.FIELDS,
        *SPECTRA,
        *(line["column"] for fig in data["figures"] for line in fig["lines"]),
    }
    rest = [name for name in results.columns if name not in shown]
    return sorted(rest, key=lambda name: not results.columns[name].get("own"))


def notes(results: Results, data: Mapping[str, Any]) -> Html:
    """Sentences about what the figures leave out."""
    said = [
        "Phases, tables and medians use every evaluation; docs/phases.md of grokjax explains the rules. "
        "Key frequencies of curves without “keys of each step” are those of the run's final model, so these curves "
        "have points at snapshots only, and none before the run has ended."
    ]
    limit = data["curve_limit"]
    if limit:
        said.append(
            f"Curves were thinned to {limit:,} points: of longer ones the page holds the smallest and the largest "
            "value of each of many equal stretches, at their true steps, so that no spike is missing."
        )
    else:
        said.append("Curves are not thinned: every evaluation is in the page, as float32.")
    if "test_objective" in results.columns:
        said.append(f"{find.OTHER_LOSS[0].upper()}{find.OTHER_LOSS[1:]}.")
    if data["spectra"]:
        ratio = max(downsampling.level_ratio((s["low"], s["high"])) for s in data["spectra"])
        said.append(
            f"Fourier norms are rounded to one of {downsampling.LEVELS} levels, {100 * (ratio - 1):.1f} % apart; those "
            f"below 1e-{downsampling.DECADES:.0f} of the sweep's largest have the lowest."
        )
    if data["image_limit"]:
        said.append(
            f"Images were thinned to {data['image_limit']:,} columns, each with the largest norms over a stretch of "
            "evaluations, so that no peak is missing."
        )
    if rest := _not_shown(results, data):
        command = f"grokjax figure {results.arguments} --kind=column --column=NAME"
        said.append(
            f"No figure here shows these columns of the metrics, of which {command} draws any that holds numbers: "
            f"{', '.join(rest)}."
        )
    diverged = int(results.runs["diverged_step"].notna().sum())
    if diverged:
        said.append(f"{survival.counted(diverged, 'run')} diverged; counted as censored where they did.")
    return element("ul", *(element("li", results.words(sentence)) for sentence in said))
