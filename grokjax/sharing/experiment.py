"""The experiment file that trains a sweep again, written from its config.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from grokjax.config import FIELDS

HEAD = '''"""The runs in this folder, to be trained again.

    grokjax train --config=experiment.py --workdir=results/{name}
"""

from grokjax import config


def get_config(arg=""):
    c = config.default()
'''
LIST = '''

def get_sweep(config):
    """The runs one by one, since they are no product of axes."""
    return [
'''


def text(record: Mapping[str, Any], name: str) -> str:
    """The file, for a sweep of this name whose config.json this is."""
    fields = [_line(f"c.{key}", value) for key, value in record["config"].items() if _is_set(key, value)]
    axes, runs = record["axes"], record["runs"]
    swept = [_line(f"c.sweep.{key}", tuple(values)) for key, values in axes.items()]
    if _is_product(axes, runs):
        return HEAD.format(name=name) + "".join([*fields, *swept]) + "    return c\n"
    base = record["config"]
    names = [key for key in FIELDS if any(_plain(run.get(key)) != _plain(base.get(key)) for run in runs)]
    rows = [{key: _plain(run[key]) for key in names if key in run} for run in runs]
    listed = "".join(f"        {row!r},\n" for row in rows)
    return HEAD.format(name=name) + "".join(fields) + "    return c\n" + LIST + listed + "    ]\n"


def _is_set(name: str, value: Any) -> bool:
    """Whether a field differs from its default."""
    return name in FIELDS and _plain(value) != FIELDS[name].default


def _line(target: str, value: Any) -> str:
    return f"    {target} = {_plain(value)!r}\n"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_product(axes: Mapping[str, Sequence[Any]], runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are as many runs as combinations of values, and every field that varies is an axis."""
    n = 1
    for values in axes.values():
        n *= len(values)
    varied = [key for key in FIELDS if any(run.get(key) != runs[0].get(key) for run in runs)]
    return n == len(runs) and set(varied) <= set(axes)
