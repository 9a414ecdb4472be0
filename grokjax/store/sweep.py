"""A sweep as config.json tells it: written, read back, and compared with another."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grokjax import finite_groups, sweeps, tasks
from grokjax.config import FIELDS, OPERATIONAL, coerce
from grokjax.core import losses, optimizers
from grokjax.errors import InputError, shown
from grokjax.measures import registry
from grokjax.store import files
from grokjax.store.records import read_record
from grokjax.sweeps import Run, Sweep


def load_sweep(path: Path) -> Sweep:
    """The sweep that a working directory was made from, as config.json tells it.

    Raises:
      InputError: there is none.
    """
    record = read_record(path)
    if record is None:
        files.refuse_missing(path)
        raise InputError(f"{path} holds no sweep: config.json is missing.")
    file = path / "config.json"
    runs = []
    for values in record["runs"]:
        fields = _fields(file, {name: value for name, value in values.items() if name != "run"})
        sweeps.check_shape(fields)
        runs.append(Run(values["run"], fields))
    axes = {name: tuple(values) for name, values in record["axes"].items()}
    if not runs or not axes.keys() <= FIELDS.keys():
        raise InputError(f"{file} has {'axes that are no fields' if runs else 'no runs'}: restore it.")
    return Sweep(_fields(file, record["config"]), axes, tuple(runs))


def _fields(file: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """A run's fields; those that are younger than the sweep have their defaults, which change nothing."""
    strange = sorted(given.keys() - FIELDS.keys())
    if strange:
        raise InputError(f"{file} has a field '{strange[0]}', which this version of grokjax does not know.")
    return {name: field.default for name, field in FIELDS.items()} | {
        name: coerce(name, value, f"{file}: {name}") for name, value in given.items()
    }


def of_tasks(sweep: Sweep) -> list[tuple[str, int]]:
    """The tasks of the runs, each with P."""
    return list(dict.fromkeys((tasks.name_of(run.values), run.values["p"]) for run in sweep.runs))


def answers(sweep: Sweep) -> dict[str, str]:
    """The fingerprint of the answers of each task, by "TASK mod P"."""
    return {_modulo(task, p): tasks.fingerprint(task, p) for task, p in of_tasks(sweep)}


def _modulo(task: str, p: int) -> str:
    return f"{task} mod {p}"


def refuse_other_answers(
    path: Any, record: Mapping[str, Any], wanted: Iterable[tuple[str, int]], more: str = ""
) -> None:
    """Refuses tasks whose answers are not those that a directory's models were trained on.

    Args:
      path: of the directory.
      record: its config.json; of an earlier version it tells no answers, and nothing is refused.
      wanted: tasks, each with P; others than the directory's pass.
      more: what else may be done, for the message.

    Raises:
      InputError: a task's function has been edited.
    """
    there = record.get("answers") or {}
    for task, p in wanted:
        if there.get(_modulo(task, p), "") not in ("", tasks.fingerprint(task, p)):
            raise InputError(
                f"{path} was trained on other answers to task '{task}' modulo {p} than its function gives now, so that "
                f"has been edited since: undo it, or give the edited function another name{more}."
            )


def refuse_strangers(path: Path, sweep: Sweep) -> None:
    """Refuses a sweep whose tasks or measures nobody has registered, or whose tasks have other answers by now.

    Raises:
      InputError: says which file to import for them.
    """
    record = read_record(path) or {}
    wanted = [run.values["task"] for run in sweep.runs if not tasks.is_known(run.values["task"])]
    wanted += [name for name in sweep.base["measures"] if name not in registry.groups()]
    wanted += [run.values["loss"] for run in sweep.runs if run.values["loss"] not in losses.LOSSES]
    wanted += [run.values["optimizer"] for run in sweep.runs if run.values["optimizer"] not in optimizers.OPTIMIZERS]
    if wanted:
        raise InputError(
            f"{path} holds a sweep with '{wanted[0]}', which is no task, loss, optimizer or group of measures of "
            "grokjax: give --experiment=FILE, which defines it and is run for it. The sweep was made from "
            f"{record.get('experiment')}."
        )
    refuse_other_answers(path, record, of_tasks(sweep))


def described(sweep: Sweep) -> list[dict[str, Any]]:
    """The runs of a sweep as config.json holds them."""
    return json.loads(json.dumps([{"run": run.run, **run.values} for run in sweep.runs]))


def part_of(record: Mapping[str, Any], whole: Sweep, longer: bool = False) -> Sweep | None:
    """The runs of a sweep that a directory was made for, all or some; None if it was made for another sweep.

    Args:
      record: config.json of the directory.
      whole: the sweep.
      longer: whether its runs may be longer than those of the directory.
    """
    numbers = {values["run"] for values in record["runs"]}
    some = dataclasses.replace(whole, runs=tuple(run for run in whole.runs if run.run in numbers))
    return None if difference(record["runs"], described(some), longer) else some


def holds_part(record: Mapping[str, Any], some: Sweep, whole: Sweep) -> bool:
    """Whether a directory was made for these runs of a sweep alone."""
    is_part = len(some.runs) < len(whole.runs) and record.get("n_runs") != len(some.runs)
    return is_part and not difference(record["runs"], described(some))


def elements(sweep: Sweep) -> dict[str, Any]:
    """The elements of the sweep's groups in order, as config.json holds them; nothing for sweeps without groups."""
    names = dict.fromkeys(run.values["group"] for run in sweep.runs if run.values["group"])
    return {"elements": {name: list(finite_groups.named(name).elements) for name in names}} if names else {}


def difference(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]], longer: bool = False) -> str:
    """The first difference between two described sweeps, in words; empty if there is none that changes results.

    Args:
      found: the one that is there.
      wanted: the other one.
      longer: whether its runs may be longer than those that are there.
    """
    if len(found) != len(wanted):
        return f"of {len(found)} runs, not {len(wanted)}"
    for old, new in zip(found, wanted, strict=True):
        for path in new:
            # A field that is younger than the directory had no effect there, which is what its default means.
            there = old.get(path, FIELDS[path].default if path in FIELDS else None)
            if longer and path == "steps" and isinstance(there, int) and there < new[path]:
                continue
            if path not in OPERATIONAL and there != new[path]:
                return f"{path} of run {new['run']} is {shown(there)} there, {shown(new[path])} here"
    return ""
