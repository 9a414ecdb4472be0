"""From a config to runs, and from runs to groups that share a compilation."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from grokjax import config as config_lib
from grokjax import finite_groups, tasks
from grokjax.config import FIELDS, SETTING, TRACED
from grokjax.core import families, losses, model, optimizers
from grokjax.core.architecture import RATES, ModelConfig
from grokjax.core.problem import Inputs, Problem
from grokjax.errors import InputError, shown, unknown
from grokjax.identity import identity, needs_answers
from grokjax.measures import noise, objective, registry


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      run: its number in the sweep, from 0.
      values: every config field by dotted path.
    """

    run: int
    values: Mapping[str, Any]

    @property
    def split_seed(self) -> int:
        """The split's seed: the run's seed unless split_seed is set."""
        given = self.values["split_seed"]
        return self.values["seed"] if given is None else given

    @property
    def steps(self) -> int:
        return self.values["steps"]

    @functools.cached_property
    def identity(self) -> str | None:
        """By which the run is known in any sweep: a hash of what its weights depend on."""
        v = self.values
        return identity(v, tasks.fingerprint(v["task"], v["p"]) if needs_answers(v) else None)

    def problem(self) -> Problem:
        """The static part."""
        v, task = self.values, tasks.of(self.values)
        return Problem(
            model=_model(v),
            n_train=tasks.n_train(v["p"], v["train_fraction"], task.nonzero_b),
            batch_size=v["batch_size"],
            direction=task.direction_at(v["p"]),
            nonzero_b=task.nonzero_b,
            group=task.read_by(v["p"]),
            loss=v["loss"],
            label_noise=v["label_noise"] > 0,
            is_started=v["start_from"] is not None,
            penalties=tuple(name for name in optimizers.PENALTIES if v[name] > 0),
            **{name: v[name] for name in _UPDATE},
            precision=v["precision"],
            eval_every=v["eval_every"],
            measures=v["measures"],
            key_rule=v["key_rule"],
            key_threshold=v["key_threshold"],
        )

    def inputs(self) -> Inputs:
        """The traced part, as NumPy arrays; weights to start from are not among it."""
        v, task = self.values, tasks.of(self.values)
        train_pairs = tasks.train_pairs(v["p"], v["train_fraction"], self.split_seed, v["split"], task.nonzero_b)
        answers = tasks.answers(task, v["p"], self.split_seed)
        return Inputs(
            seed=np.uint32(v["seed"]),
            hyperparameters={name: np.float32(v[name]) for name in optimizers.hyperparameters(self.problem())},
            train_pairs=train_pairs,
            answers=self._with_noise(answers, train_pairs) if v["label_noise"] else answers,
            stop_loss=np.float32(v["stop_loss"]),
            stop_evals=np.int32(v["stop_evals"]),
            task_answers=answers if v["label_noise"] else None,
        )

    def _with_noise(self, answers: np.ndarray, train_pairs: np.ndarray) -> np.ndarray:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):  # as for the split
            share = self.values["label_noise"]
            return np.asarray(tasks.with_noise(answers, train_pairs, self.values["p"], share, self.split_seed))


MOST_RUNS = config_lib.MOST_VALUES  # of a sweep
MOST_GROUPS = 10_000
_UPDATE = ("optimizer", "gradient_transform", "schedule", "decay_to", "norm_constraint")
_MODEL_FIELDS = tuple(field.name for field in dataclasses.fields(ModelConfig) if field.name != "p")


def _model(values: Mapping[str, Any]) -> ModelConfig:
    given = {name: values[f"model.{name}"] for name in _MODEL_FIELDS}
    own = {name: None for name in RATES if given[name] != FIELDS[f"model.{name}"].default}
    return ModelConfig(p=values["p"], **given | own)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All runs of an experiment.

    Attributes:
      base: the fields as configured, by dotted path.
      axes: the swept fields in order, each with its distinct values.
      runs: in order of their numbers.
    """

    base: Mapping[str, Any]
    axes: Mapping[str, tuple]
    runs: tuple[Run, ...]

    @property
    def precision(self) -> str:
        """Of its products, in words."""
        return ", ".join(dict.fromkeys(run.values["precision"] for run in self.runs))

    def groups(self) -> list[tuple[Run, ...]]:
        """Runs that share every static field, in order: each group is one compilation."""
        static = [path for path, field in FIELDS.items() if field.kind != TRACED and field.on is None]
        switches = [path for path, field in FIELDS.items() if field.on is not None]
        by_key: dict[tuple, list[Run]] = {}
        for run in self.runs:
            is_on = [run.values[path] != FIELDS[path].default for path in switches]
            by_key.setdefault((*(run.values[path] for path in static), *is_on), []).append(run)
        return [tuple(runs) for runs in by_key.values()]


def expand(config, get_sweep: Callable[[Any], Iterable[Mapping[str, Any]]] | None = None) -> Sweep:
    """Expands `config.sweep`, or what an experiment's `get_sweep(config)` returns, into checked runs.

    Args:
      config: as `grokjax.config.default` makes it, with tuples at the swept leaves of `config.sweep`.
      get_sweep: returns a list of overrides, each a dict from dotted path to value; replaces the product.

    Returns:
      The sweep; without any swept field it has one run.

    Raises:
      InputError: any bad field, axis or combination, by name.
    """
    base = config_lib.flat(config)
    overrides = _listed(get_sweep, config) if get_sweep else _product(config)
    paths = list(dict.fromkeys(path for override in overrides for path in override))
    runs = tuple(Run(i, settled({**base, **override}, "p" in override)) for i, override in enumerate(overrides))
    seen: dict[tuple, int] = {}
    for run in runs:
        check(run.values)
        first = seen.setdefault(tuple(run.values.items()), run.run)
        if first != run.run:
            raise InputError(f"runs {first} and {run.run} of the sweep are the same: each must differ in some field.")
    axes = {path: tuple(dict.fromkeys(run.values[path] for run in runs)) for path in paths}
    more = {"measures": _measures(base, runs)}
    runs = tuple(dataclasses.replace(run, values={**run.values, **more}) for run in runs)
    sweep = Sweep({**base, **more}, axes, runs)
    n_groups = len(sweep.groups())
    if n_groups > MOST_GROUPS:
        raise InputError(
            f"the sweep has {n_groups:,} groups, each to be compiled, but {MOST_GROUPS:,} are the most: make several "
            "sweeps of it."
        )
    return sweep


def _measures(base: Mapping[str, Any], runs: Iterable[Run]) -> tuple[str, ...]:
    """The groups of measures asked for, and those that tell what other fields do."""
    own = {
        objective.GROUP: any(run.values["loss"] != losses.EXACT for run in runs),
        noise.GROUP: any(run.values["label_noise"] for run in runs),
    }
    return tuple(dict.fromkeys((*base["measures"], *(name for name, wanted in own.items() if wanted))))


def _product(config) -> list[dict[str, Any]]:
    axes: dict[str, Any] = {}
    tree = config.get("sweep", {})
    if not hasattr(tree, "items"):
        raise InputError(f"config.sweep is {shown(tree)}, but it must hold axes, such as config.sweep.seed = (0, 1).")
    for path, values in config_lib.leaves(tree, "config.sweep").items():
        if path not in FIELDS or FIELDS[path].kind == SETTING:
            raise unknown("sweep axis", path, [path for path, field in FIELDS.items() if field.kind != SETTING])
        if values is None:
            continue
        given = config_lib.listed(values)
        if given is None:
            raise InputError(
                f"config.sweep.{path} is {shown(values)}, but it must be a tuple of values, such as ({shown(values)},)."
            )
        if not given:
            raise InputError(f"config.sweep.{path} is empty, but an axis needs at least one value.")
        axes[path] = tuple(map(config_lib.whole, given)) if FIELDS[path].type is int else given
    if math.prod(map(len, axes.values())) > MOST_RUNS:
        sizes = " × ".join(f"{len(values):,} {path}" for path, values in axes.items())
        raise InputError(f"config.sweep has {sizes} runs, but {MOST_RUNS:,} are the most: make several sweeps of it.")
    for path, values in axes.items():
        axes[path] = [config_lib.coerce(path, value, f"a value of config.sweep.{path}") for value in values]
    # Seeds vary fastest, so that the runs of one setting stand together.
    order = sorted(axes, key=lambda path: (path.endswith("seed"), list(FIELDS).index(path)))
    return [dict(zip(order, values, strict=True)) for values in itertools.product(*(axes[path] for path in order))]


def _listed(get_sweep: Callable[[Any], Iterable[Mapping[str, Any]]], config) -> list[dict[str, Any]]:
    try:
        overrides = list(itertools.islice(get_sweep(config), MOST_RUNS + 1))
    except InputError:
        raise
    except Exception as error:  # whatever an experiment's function may raise is the user's to mend
        raise InputError(
            f"get_sweep(config) failed with {type(error).__name__}: {error}. It must return a list of dicts."
        ) from error
    if len(overrides) > MOST_RUNS:
        raise InputError(f"get_sweep(config) returned more than {MOST_RUNS:,} runs: make several sweeps of it.")
    if not overrides:
        raise InputError("get_sweep(config) returned no runs, but at least one is needed.")
    result = []
    for i, override in enumerate(overrides):
        if not isinstance(override, Mapping):
            raise InputError(
                f"get_sweep(config) returned {shown(override)} for run {i}, but it must be a dict of overrides."
            )
        for path in override:
            if path not in FIELDS or FIELDS[path].kind == SETTING:
                raise unknown(f"get_sweep(config), run {i}: field", path, FIELDS)
        result.append({path: config_lib.coerce(path, value, f"{path} of run {i}") for path, value in override.items()})
    return result


def only(sweep: Sweep, numbers: Iterable[int], flag: str = "--only") -> Sweep:
    """Restricts a sweep to some of its runs, which keep their numbers.

    Args:
      sweep: to be restricted.
      numbers: of the runs.
      flag: that named them, for messages.

    Raises:
      InputError: a number is no run of the sweep.
    """
    numbers = set(numbers)
    if not numbers:
        raise InputError(f"{flag} names no run: give run numbers separated by commas, such as 3,17.")
    known = [run.run for run in sweep.runs]
    for number in numbers:
        if number not in known:
            there = f"0 to {known[-1]}" if known[-1] < len(known) else ", ".join(map(str, known))
            raise InputError(f"{flag} names run {shown(number)}, but this sweep's runs are {there}.")
    return dataclasses.replace(sweep, runs=tuple(run for run in sweep.runs if run.run in numbers))


def settled(values: Mapping[str, Any], p_given: bool = False) -> dict[str, Any]:
    """The fields of a run as it trains: a group's P is its order, and its Cayley table is named with its digest.

    Args:
      values: by dotted path, as `flat` gives them.
      p_given: whether P was asked for, whatever it is; otherwise P as every config has it counts as unset.

    Raises:
      InputError: there is no such group, it comes without its task or the task without it, or P is not its order.
    """
    task, group, p = values["task"], values["group"], values["p"]
    if task != tasks.GROUP:
        if group is not None:
            raise InputError(f"config.group is {shown(group)}, but config.task is {shown(task)}: set task to 'group'.")
        if task.startswith(f"{tasks.GROUP} "):
            raise InputError(f"config.task is {shown(task)}: set task to 'group', and group to the group's name.")
        return dict(values)
    if group is None:
        raise InputError(f"config.task is 'group', but config.group is unset: it must be {finite_groups.KNOWN}.")
    order = config_lib.coerce("p", finite_groups.order(group), f"config.group is {shown(group)}, and its order, P,")
    if p != order and (p_given or p not in config_lib.OWN_P):
        raise InputError(f"config.p is {p}, but group {shown(group)} has {order} elements: leave p unset.")
    return {**values, "group": finite_groups.recorded(group), "p": order}


MOST_PARAMETERS = 10**10  # of one model: 40 GB


def check(values: Mapping[str, Any]) -> None:
    """Checks one run's fields against each other.

    Args:
      values: by dotted path, as `flat` gives them.

    Raises:
      InputError: with the field's name, what was given, and what would be right.
    """
    check_shape(values)
    every = values["eval_every"]
    for path in ("snapshot_every", "slow_every"):
        if values[path] % every:
            raise InputError(f"config.{path} is {values[path]}, but it must be a multiple of eval_every, {every}.")
    p, fraction = values["p"], values["train_fraction"]
    task = tasks.of(values)
    n, of = tasks.n_train(p, fraction, task.nonzero_b), tasks.n_pairs(p, task.nonzero_b)
    if n < 1 or n >= of:
        raise InputError(f"config.train_fraction is {fraction}, which leaves {n} of {of} pairs to train on.")
    if values["batch_size"] > n:
        raise InputError(
            f"config.batch_size is {values['batch_size']}, but it must be at most {n}, the training pairs."
        )
    tasks.check(task, p)
    families.get(values["model.architecture"])
    if (shape := _model(values)).is_own:
        families.check(shape)
    losses.get(values["loss"])
    optimizers.get(values["optimizer"])
    if values["key_rule"] == "logits" and task.direction_at(p) is None and not task.read_by(p):
        raise InputError(
            f"config.key_rule is 'logits', but task '{values['task']}' is no function of a + b or a - b: "
            "choose W_L, W_E or neurons."
        )
    if values["key_rule"] == "neurons" and task.nonzero_b and not task.read_by(p):
        raise InputError(
            f"config.key_rule is 'neurons', but task '{values['task']}' leaves pairs out: choose W_L or W_E."
        )
    registry.of_groups(values["measures"])


def _check_model(values: Mapping[str, Any]) -> None:
    d_model, n_heads, is_mlp = values["model.d_model"], values["model.n_heads"], values["model.architecture"] == "mlp"
    if d_model % n_heads and not is_mlp and values["model.d_head"] is None:
        raise InputError(
            f"config.model.d_model is {d_model}, but it must be divisible by model.n_heads, {n_heads}, unless "
            "model.d_head is set."
        )
    if values["model.unembed"] == "tied" and values["model.embeddings"] == "separate":
        raise InputError("config.model.unembed is 'tied', but model.embeddings is 'separate': set it to 'shared'.")
    for name in config_lib.TRANSFORMER_ONLY if is_mlp else config_lib.MLP_ONLY:
        path, other = f"model.{name}", "transformer" if is_mlp else "mlp"
        if values[path] != FIELDS[path].default:
            raise InputError(
                f"config.{path} is {shown(values[path])}, but it is of a model.architecture '{other}' alone: leave it."
            )


def check_shape(values: Mapping[str, Any]) -> None:
    """Checks the sizes of one run's model, and its steps, against each other.

    Raises:
      InputError: as for `check`.
    """
    shape = _model(values)
    if not shape.is_own:  # a family of one's own may not be there where results are read
        _check_model(values)
    n_parameters = 0 if shape.is_own else model.n_parameters(shape)
    if n_parameters > MOST_PARAMETERS:
        raise InputError(
            f"config.model has {n_parameters:,} parameters, but {MOST_PARAMETERS:,} are the most: make it smaller."
        )
    steps, every = values["steps"], values["eval_every"]
    if steps % every:
        raise InputError(f"config.steps is {steps}, but it must be a multiple of eval_every, {every}.")
