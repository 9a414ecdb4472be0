"""The identity of a run: a hash of what its weights depend on, the same in every sweep that has the run. No JAX.

What is only looked at or kept (measures, their rule for keys, when to log and save, slots) has no part in it, and
neither has how long a run is trained: `steps` stands apart, as the run is then the same, at another length (but
where its learning rate follows from `steps`).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from grokjax.config import FIELDS, SETTING, TRACED
from grokjax.polynomials import looks_like_one

IDENTITY = "identity"  # the column of runs.parquet
STOP_RULE = ("stop_loss", "stop_evals", "eval_every")  # which weights depend on where there is such a rule
FILES = ("group", "start_from")  # fields that may name a file, or a run of another directory
# Tasks whose name says which function it is, for good: a hash stands on the answers of any other.
NAMED = frozenset({"add", "subtract", "multiply", "divide", "quadratic", "random", "group"})


def identity(values: Mapping[str, Any], answers: str | None = None) -> str | None:
    """Hashes what a run's weights depend on, as far as it differs from the defaults.

    So a field that a later version adds changes no hash, and neither does a value that comes to the same: the split's
    seed where it is the run's, 0.1 in float64 and in float32, a stop rule's evaluations where there is no rule.

    Args:
      values: the run's fields by dotted path; one that is not there has its default.
      answers: the fingerprint of the task's answers (`grokjax.tasks.fingerprint`), if `needs_answers`.

    Returns:
      16 hexadecimal digits; None where the answers are needed and unknown.

    Example:
      >>> identity({"seed": 1}) == identity({"seed": 1, "split_seed": 1, "steps": 500, "measures": ()})
      True
    """
    if needs_answers(values) and not answers:
        return None
    apart = {"split_seed"} | (set() if values.get("stop_loss") else set(STOP_RULE))
    apart |= set() if depends_on_steps(values) else {"steps"}
    paths = [path for path, field in FIELDS.items() if field.kind != SETTING and path not in apart]
    used = {path: _used(path, values.get(path, FIELDS[path].default)) for path in paths}
    told = {path: value for path, value in used.items() if value != _used(path, FIELDS[path].default)}
    split = values.get("split_seed")
    told["split_seed"] = values.get("seed", FIELDS["seed"].default) if split is None else split
    if needs_answers(values):
        told["answers"] = answers
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def depends_on_steps(values: Mapping[str, Any]) -> bool:
    """Whether a run's weights at a step depend on how long it is trained: its learning rate falls to the last one."""
    return values.get("schedule", "constant") != "constant"


def needs_answers(values: Mapping[str, Any]) -> bool:
    """Whether the name of a run's task does not say which function it is: it is an experiment's own."""
    task = values.get("task", FIELDS["task"].default)
    return task not in NAMED and not looks_like_one(task)


def _used(path: str, value: Any) -> Any:
    """A field's value as training uses it: numbers in float32, files by their content's digest, which follows an @."""
    if isinstance(value, float) and FIELDS[path].kind == TRACED:
        return float(np.float32(value)) + 0.0  # -0 as 0
    return value.rpartition("@")[2] if path in FILES and value else value
