"""What the code says of itself: config fields, columns, measures."""

import json

import jax

from benchmarks import measures
from benchmarks.markdown import table
from grokjax import config
from grokjax.columns import SUMMARY
from grokjax.core import model
from grokjax.core.model import ModelConfig
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from tools.blocks import ROOT


def fields() -> str:
    """The config's fields."""
    kinds = {config.TRACED: "yes", config.STATIC: "yes, one compilation per value", config.SETTING: "no"}
    rows = [
        [f"`{path}`", f"`{field.default!r}`", field.doc, kinds[field.kind]] for path, field in config.FIELDS.items()
    ]
    return table(["field", "default", "meaning", "can be swept"], rows)


def small() -> str:
    """What `config.small` changes."""
    here, there = config.flat(config.small()), config.flat(config.default())
    rows = [[f"`{path}`", f"`{there[path]!r}`", f"`{value!r}`"] for path, value in here.items() if value != there[path]]
    return table(["field", "`default()`", "`small()`"], rows)


MEANINGS = {
    "W_E": 'what each token is embedded as; the last row is "="',
    "W_pos": 'what is added at the places of a, b and "="',
    **{name: f"per head: {text}" for name, text in {"W_Q": "queries", "W_K": "keys", "W_V": "values"}.items()},
    "W_O": "per head: from its values back into the residual stream",
    **{"W_in": "into the neurons", "b_in": "their biases", "W_out": "out of the neurons", "b_out": "its bias"},
    "W_U": "from the residual stream to the logits",
}


def parameters() -> str:
    """Every parameter's key and shape, of a model whose dimensions all differ."""
    cfg = ModelConfig(p=113, d_model=128, n_heads=4, d_mlp=512)
    sizes = {cfg.d_vocab: "P + 1", cfg.p: "P", model.N_CTX: "3", cfg.d_model: "d_model", cfg.d_mlp: "d_mlp"}
    sizes |= {cfg.n_heads: "n_heads", cfg.d_head: "d_head"}
    shapes = jax.eval_shape(lambda: model.init(cfg, jax.random.key(0), 1.0))
    rows = []
    for key, x in shapes.items():
        named = ", ".join(sizes[n] for n in x.shape)
        at = ", ".join(map(str, x.shape))
        rows.append([f"`{key}`", f"[{named}]", f"[{at}]", MEANINGS[key.rpartition(".")[2]]])
    return table(["key", "shape", "of the mainline, P = 113", "what it is"], rows)


def columns() -> str:
    """The metrics table's columns, by group."""
    rows = [
        ["`run`", "", "number of the run in the sweep", "", ""],
        ["`step`", "", "optimizer steps done before this evaluation", "steps", ""],
        ["the swept fields", "", "as in the config", "", ""],
    ]
    rows += [
        [name_of(m), m.group + " (slow)" * m.slow, m.description, unit_of(m.unit), m.source]
        for m in registry.MEASURES.values()
    ]
    return table(["column", "group", "what it is", "unit", "source"], rows)


def name_of(m: Measure) -> str:
    """The column, both of them for keyed measures, with the length of lists."""
    names = [m.name, f"{m.name}_online"] if m.keyed else [m.name]
    return ", ".join(f"`{name}`" for name in names) + "".join(f" [{dim}]" for dim in m.shape)


def unit_of(unit: str) -> str:
    return "" if unit == "1" else unit


def runs() -> str:
    """The columns of runs.parquet."""
    rows = [["`run`", "Number of the run in the sweep.", ""]]
    rows += [[f"`{name}`", text, unit_of(unit)] for name, (_, text, unit) in SUMMARY.items()]
    return table(["column", "what it is", "unit"], [*rows, ["every config field", "as in the config", ""]])


def costs_by_task() -> str:
    """What the paper's measures cost read by frequencies and by blocks."""
    usage = "python -m benchmarks.measures --tasks --write"
    if not measures.TASKS_RECORD.is_file():
        return f"Not yet measured: `{usage}`."
    found = json.loads(measures.TASKS_RECORD.read_text())
    rows = measures.table(found["costs"], "task")
    return f"{rows}\n\nIn training steps of the same task; `{usage}` on {found['machine']}."


def measures_by_group() -> str:
    """Every measure, under its group, with the group's cost and figure."""
    costs = json.loads(measures.RECORD.read_text())
    parts = [
        "Costs are in training steps per evaluation at P = 113, one group at a time with the losses, from "
        f"`{costs['command']}` on {costs['machine']}.\n"
    ]
    for group in registry.groups():
        cost = costs["steps"].get(group)
        parts.append(f"## {group}\n")
        parts.append(f"Cost: {cost:.1f} training steps.\n" if cost is not None else "Cost: not measured.\n")
        if (ROOT / "docs" / "figures" / f"measures_{group}.png").is_file():
            parts.append(f"![{group}](figures/measures_{group}.png)\n")
        for m in registry.MEASURES.values():
            if m.group == group:
                marks = ["keyed"] * m.keyed + [f"list over {dim}" for dim in m.shape] + ["slow tier"] * m.slow
                traits = [f"unit {m.unit}", f"range {m.range}", m.source, *marks]
                parts.append(f"**{name_of(m)}** {m.description} *{'; '.join(traits)}.* Null if {m.when_null}.\n")
    return "\n".join(parts)
