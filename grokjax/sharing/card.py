"""The card of a published sweep: what was trained, how to train it again, what came out, how to read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from grokjax.phases.text import shown_median
from grokjax.report import verdict
from grokjax.report.facts import title
from grokjax.report.results import Results, shown_value

MOST_ROWS = 40  # of the table of settings
TAGS = ("grokking", "mechanistic-interpretability", "training-dynamics", "grokjax")
# By the upper bound on the number of rows, as the hub names sizes.
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


def text(results: Results, name: str, license: str, n_rows: int, n_weights: int) -> str:
    """The card, in Markdown, with the head in YAML that the Hugging Face hub reads.

    Args:
      results: of the published folder.
      name: of the sweep.
      license: the licence's identifier.
      n_rows: of the metrics.
      n_weights: how many runs have their weights there.
    """
    parts = [_head(title(results), license, n_rows), f"# {name}: {title(results)}\n"]
    parts.append(_trained(results, name))
    parts.append("## Results\n\n" + "\n".join(f"* {line}" for line in verdict.sentences(results.runs, results.by)))
    parts.append(verdict.surety(results.runs, results.by) + "\n")
    parts += [_settings(results), _files(results, n_rows, n_weights), _read(name, n_weights)]
    parts.append(
        f"## Licence\n\n{license}. Trained and measured with grokjax {_versions(results).get('grokjax', '')}.\n"
    )
    return "\n".join(part for part in parts if part)


def _head(pretty: str, license: str, n_rows: int) -> str:
    size = next((text for most, text in SIZES.items() if n_rows < most), "n>10M")
    tags = "".join(f"- {tag}\n" for tag in TAGS)
    return f"""---
license: {license}
pretty_name: "{pretty}"
tags:
{tags}size_categories:
- {size}
configs:
- config_name: metrics
  data_files: metrics/*.parquet
  default: true
- config_name: runs
  data_files: runs.parquet
---
"""


def _versions(results: Results) -> Mapping[str, str]:
    return results.record.get("versions") or {}


def _trained(results: Results, name: str) -> str:
    record, axes = results.record, results.record["axes"]
    swept = " × ".join(f"{key} {_listed(values)}" for key, values in axes.items()) or "nothing"
    versions = ", ".join(f"{key} {version}" for key, version in _versions(results).items())
    device = f"{record.get('n_devices', '?')} × {record['device_kind']}" if "device_kind" in record else "unknown"
    commit = f" (commit {record['git_commit']})" if record.get("git_commit") else ""
    return f"""\
Small transformers trained until they grok, with progress measures at every evaluation. Swept: {swept}.
Trained again by

```sh
grokjax train --config=experiment.py --workdir=results/{name}
```

`experiment.py` has every setting that differs from grokjax's defaults, `config.json` all of them, run by run.

* Versions: {versions or "unknown"}{commit}
* Device: {device}; matrix products in {record.get("precision", "float32")}
"""


def _listed(values: Sequence[Any]) -> str:
    some = [shown_value(value) for value in values]
    return ", ".join(some) if len(some) < 10 else f"{some[0]}, {some[1]}, …, {some[-1]} ({len(some)} values)"


def _settings(results: Results) -> str:
    """Each setting's runs and medians, as a table."""
    groups = results.summary.groups
    if groups.empty or len(groups) > MOST_ROWS:
        return ""
    times = {"memorised": "step to memorise", "grokked": "step to grok"}
    head = [*results.by, "runs", "grokked", *times.values()]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in groups.to_dict("records"):
        cells = [shown_value(row[key]) for key in results.by] + [row["runs"], row["grokked"]]
        lines.append(f"| {' | '.join(map(str, [*cells, *(shown_median(row, key) for key in times)]))} |")
    return "\n".join(lines) + "\n"


def _files(results: Results, n_rows: int, n_weights: int) -> str:
    weights = f"| `weights/` | the final weights of {n_weights} runs, for TransformerLens's HookedTransformer |\n"
    return f"""\
## Files

| file | what it holds |
| --- | --- |
| `metrics/*.parquet` | {n_rows:,} rows, one per run and step; columns say what they are in their metadata |
| `runs.parquet` | one row per run: status, summary, key frequencies, every hyperparameter |
{weights * bool(n_weights)}| `config.json` | every run's config, versions, device |
| `experiment.py` | the experiment, to train it again |
| `report/index.html` | a page with the losses, phases and spectra; open it in a browser |
"""


def _read(name: str, n_weights: int) -> str:
    weights = 'results.params(run=0)  # arrays by name: "embed.W_E", …\n' * bool(n_weights)
    return f"""\
## Reading it

```python
import pandas as pd

metrics, runs = pd.read_parquet("metrics"), pd.read_parquet("runs.parquet")
```

or, with grokjax,

```python
import grokjax

results = grokjax.open(".")
results.metrics, results.runs, results.phases()
{weights}```
"""
