"""Trained models of any origin: files of TransformerLens and of the paper's code, and snapshots of sweeps.

    from grokjax.interp.checkpoint import load_checkpoint

    checkpoint = load_checkpoint("released.pth")      # or model.npz, or results/small:3:40000

Nothing in a file is ever run: torch files are loaded with weights only, npz files without pickle. PyTorch is needed for
its files alone.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from grokjax import tasks
from grokjax.config import FIELDS, coerce
from grokjax.core import environment, families
from grokjax.core.model import ACTIVATIONS, ModelConfig
from grokjax.errors import InputError, unknown
from grokjax.interp import architectures, files, mlps, trajectory
from grokjax.interp.formats import Reader, without_prefix
from grokjax.interp.state_dict import SPLITS, unwrap
from grokjax.store import files as files_lib
from grokjax.store import snapshots
from grokjax.store.records import read_record
from grokjax.store.sweep import load_sweep
from grokjax.store.weights import find_weights
from grokjax.version import __version__


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is known of where it came from.

    Attributes:
      params: NumPy arrays by TransformerLens key, in this project's axes and in the file's precision.
      cfg: the model's shape.
      train_pairs: int32, sorted, each a * P + b; None if the file does not tell.
      source: what was asked for, such as "model.npz" or "results/small:3:40000".
      format: in words, such as "TransformerLens": the names and axes that the file has.
      task: that the file names, or None.
      split: where train_pairs come from, in words; "" if there are none.
      split_seed: of train_pairs, where it is known; the answers of tasks that draw them depend on it.
      settings: config fields that go with the model, such as key_rule; those of the run for a snapshot.
      experiment: the file that a snapshot's sweep was made from, if it is known.
      notes: what was dropped or assumed, in words.
      origin: what a snapshot or an export tells of the model, ready for JSON: act_fn, n_heads, p, task, split, seeds,
        step, version and commit; empty for other files.
      trained_answers: int32 [P²], of a snapshot with label noise, else None: the task's but at some training pairs.
      answers: fingerprints of the tasks that a snapshot's sweep was trained on, by "TASK mod P".
    """

    params: dict[str, np.ndarray]
    cfg: ModelConfig
    train_pairs: np.ndarray | None
    source: str
    format: str
    task: str | None = None
    split: str = ""
    split_seed: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    experiment: str | None = None
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    answers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trained_answers: np.ndarray | None = None

    def record(self) -> dict[str, Any]:
        """What an export carries beside the arrays: the origin, or as much of it as is known."""
        known = {"p": self.cfg.p, "task": self.task, "split_seed": self.split_seed}
        if self.cfg.is_transformer:
            known["n_heads"] = self.cfg.n_heads
        if ASSUMED_ACT not in self.notes:
            known["act_fn"] = self.cfg.act
        known |= {name: getattr(self.cfg, name) for name in told_of(self.cfg)}
        found = {"version": __version__, "git_commit": environment.git_commit()} | known | dict(self.origin)
        found |= dict(self.settings) | {"experiment": self.experiment}
        if self.train_pairs is not None:
            found["train_indices"] = self.train_pairs.tolist()
        return {name: value for name, value in found.items() if value is not None}


def load_checkpoint(
    model: str | Path, act: str | None = None, n_heads: int | None = None, rate: float | None = None
) -> Checkpoint:
    """Reads a trained model.

    Args:
      model: a file (.npz, safetensors or PyTorch's), a snapshot as workdir:run:step, or workdir:run for the last one
        there is, or one checkpoint of many as file:step or folder:step.
      act: the nonlinearity, "relu", "gelu" or "quadratic", which arrays do not tell; by default what the file says, or
        else "relu".
      n_heads: the number of heads, where the arrays do not tell.
      rate: the attention rate, which arrays do not tell; by default what the file says, or else 1.

    Raises:
      InputError: it cannot be read or does not fit; says what, and what was expected.

    Example:
      >>> import grokjax
      >>> checkpoint = grokjax.load_checkpoint("results/tiny:1:200")
      >>> checkpoint.cfg.p, checkpoint.task, len(checkpoint.train_pairs)
      (7, 'add', 29)
    """
    text = os.path.expanduser(str(model))
    snapshot = re.fullmatch(r"(.+?):(\d{1,9})(?::(\d{1,18}))?", text)
    if snapshot and not os.path.lexists(text):
        if not snapshot[3] and (os.path.isfile(snapshot[1]) or trajectory.is_folder(snapshot[1])):
            return checkpoint_at(trajectory.find(snapshot[1]), int(snapshot[2]), act, n_heads, rate)
        return _load_snapshot(snapshot[1], int(snapshot[2]), int(snapshot[3]) if snapshot[3] else None, act)
    if trajectory.is_folder(text):
        trajectory.find(text).refuse()
    if os.path.isdir(text):
        raise InputError(f"{text} is a directory: name a file, or a run of a sweep as {text}:RUN or {text}:RUN:STEP.")
    if not os.path.isfile(text):
        raise InputError(f"{text} is no file: name one, or a snapshot as workdir:run:step.")
    held = files.load(text)
    if trajectory.is_many(held) and (many := trajectory.within(text, held)):
        many.refuse()
    return _checkpoint(text, held, (act, n_heads, rate), said=architectures.beside(text))


def checkpoint_at(
    found: trajectory.Trajectory,
    step: int,
    act: str | None = None,
    n_heads: int | None = None,
    rate: float | None = None,
) -> Checkpoint:
    """Reads one of many checkpoints; arguments as for `load_checkpoint`.

    Raises:
      InputError: there is none of that step, or it does not fit.
    """
    return _checkpoint(f"{found.source}:{step}", found.at(step), (act, n_heads, rate), found.notes)


def _checkpoint(
    source: str, held: Any, given: tuple, notes: tuple[str, ...] = (), said: Mapping[str, Any] | None = None
) -> Checkpoint:
    found, (act, n_heads, rate) = unwrap(source, held), given
    return from_arrays(found.arrays, source, act, n_heads, {**(said or {}), **found.said}, notes + found.notes, rate)


# --- from arrays ----------------------------------------------------------------------------------------------------


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    source: str = "the model",
    act: str | None = None,
    n_heads: int | None = None,
    said: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    rate: float | None = None,
) -> Checkpoint:
    """Makes a model of arrays by name, in any of the formats.

    Args:
      arrays: parameters, and train_mask (bool [P²]) or train_indices (integers, each a * P + b) if known.
      source: what to call them in messages.
      act: the nonlinearity; by default what `said` has, or else "relu".
      n_heads: for formats that do not tell; by default what `said` has.
      said: a configuration that came with the arrays, or an export's record.
      notes: on where they were found, in words.
      rate: the attention rate; by default what `said` has, or else 1.

    Raises:
      InputError: what does not fit, by name.
    """
    said = dict(said or {})
    for name, values in _MUST_BE.items():
        if name in said and said[name] not in values:
            right = " or ".join(map(repr, values[:2]))
            raise InputError(f"{source}: config.{name} is {said[name]!r}, but this project's model has {right}.")
    origin = _origin(source, said)
    for flag, given, name in (("--act", act, "act_fn"), ("--heads", n_heads, "n_heads")):
        if given is not None and given != origin.get(name, given):
            refuse_contradiction(flag, given, source, name, origin[name])
    act_fn, heads = _activation(source, act, said), said.get("n_heads", said.get("num_heads"))
    named, dropped = without_prefix(source, {name: x for name, x in arrays.items() if name not in SPLITS})
    if mlps.fits(named):
        params, cfg, format = mlps.read(source, named, act_fn, said)
        if rate is not None:
            raise InputError(f"{source} is an MLP, which has no attention: leave out --attention-rate.")
    else:
        reader = Reader(source, named, n_heads or (heads if type(heads) is int and heads > 0 else None), said)
        cfg, format = reader.config(act_fn), reader.format.name
        cfg = dataclasses.replace(cfg, attention_rate=_rate(source, rate, said))
    if origin.get("p", cfg.p) != cfg.p:
        raise InputError(f"{source}: its record says that P is {origin['p']!r}, but its arrays have P = {cfg.p}.")
    notes += tuple(dropped)
    if not cfg.is_mlp:
        params = reader.params()
        notes += tuple(reader.notes)
    if not act and not {"act_fn", "act_type"} & said.keys():
        notes += (ASSUMED_ACT,)
    split = _split_of(source, cfg.p, arrays, said)
    if origin:
        split |= _told(origin, split["train_pairs"])
    return Checkpoint(params, cfg, source=source, format=format, notes=notes, origin=origin, **split)


def told_of(cfg: ModelConfig) -> tuple[str, ...]:
    """Those of `TOLD` in which a model differs from the paper's transformer."""
    return tuple(name for name in TOLD if getattr(cfg, name) != FIELDS[f"model.{name}"].default)


def _rate(source: str, given: float | None, said: Mapping[str, Any]) -> float:
    """The attention rate, 1 where nobody tells."""
    told, field = architectures.rate(said), "model.attention_rate"
    if told is not None:
        told = coerce(field, told, f"{source}: its attention rate")
    if given is None:
        return 1.0 if told is None else told
    given = coerce(field, given, "--attention-rate")
    if told not in (None, given):
        refuse_contradiction("--attention-rate", given, source, "attention rate", told)
    return given


ASSUMED_ACT = "the activation is not known and relu was assumed (--act)"
ORIGIN = ("act_fn", "n_heads", "p", "task", "split", "train_fraction", "split_seed", "seed", "step", "version")
TOLD = ("inputs", "unembed", "attention_dir", "attention_rate")  # of the model, what its arrays do not tell, or hardly
SETTINGS = ("key_rule", "key_threshold", "precision", "loss")  # of the config, which go with a model


def _origin(source: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an export, checked; empty where the file has none."""
    if "version" not in said:
        return {}
    found = {name: said[name] for name in (*ORIGIN, "git_commit", "experiment", *SETTINGS) if name in said}
    for name, value in found.items():
        called = f"{source}: {name} in its record"
        if name in ("split", "train_fraction", "split_seed", *SETTINGS):
            found[name] = coerce(name, value, called)
        elif type(value) is not (int if name in ("n_heads", "p", "seed", "step") else str):
            raise InputError(f"{called} is a {type(value).__name__}, which it cannot be.")
    return found


def _told(origin: Mapping[str, Any], train_pairs: np.ndarray | None) -> dict[str, Any]:
    """The fields of `Checkpoint` that an export's record tells."""
    split = ":".join(str(origin[name]) for name in ("split", "split_seed", "train_fraction") if name in origin)
    words = {"split": f"{split}, as the file's record says"} if split and train_pairs is not None else {}
    return words | {
        "task": origin.get("task"),
        "split_seed": origin.get("split_seed"),
        "experiment": origin.get("experiment"),
        "settings": {name: origin[name] for name in SETTINGS if name in origin},
    }


def refuse_contradiction(flag: str, given: Any, source: str, name: str, told: Any) -> NoReturn:
    """Refuses a flag that says other than the model does.

    Raises:
      InputError: always.
    """
    raise InputError(f"{flag} is {given}, but {source} says that its {name} is {told}: leave out {flag}.")


# Settings that a configuration may have and arrays do not show, with the value that this project's model has.
_MUST_BE = {
    "normalization_type": (None, "LN"),
    "positional_embedding_type": ("standard",),
    "attention_dir": ("causal", "bidirectional", "casual"),  # as the code released with Zhong et al. 2023 spells it
    "use_attn_scale": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "parallel_attn_mlp": (False,),
}
_RELEASED_TASKS = {"add": "add", "subtract": "subtract", "x2xyy2": "quadratic"}  # by the released code's fn_name


def _activation(source: str, act: str | None, said: Mapping[str, Any]) -> str:
    given = act or str(said.get("act_fn", said.get("act_type", "relu"))).lower()
    if given not in ACTIVATIONS:
        raise unknown("--act" if act else f"{source}: config.act_fn", given, ACTIVATIONS)
    return given


def _split_of(source: str, p: int, arrays: Mapping[str, np.ndarray], said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Checkpoint` that tell the split and the task, as far as the file has them."""
    found: dict[str, Any] = {"train_pairs": None, "task": _RELEASED_TASKS.get(str(said.get("fn_name")))}
    given = next((name for name in SPLITS if name in arrays), None)
    if given:
        train_pairs = _pairs(f"{source}: {given}", np.asarray(arrays[given]), p, given == "train_mask")
        return found | {"train_pairs": train_pairs, "split": f"{given} in the file"}
    seed, fraction = said.get("seed"), said.get("frac_train")
    if found["task"] and isinstance(seed, int) and isinstance(fraction, float) and 0 < fraction < 1:
        train_pairs = tasks.train_pairs(p, fraction, seed, "python")
        words = f"python:{seed}:{fraction}, as the file's config says"
        return found | {"train_pairs": train_pairs, "split": words, "split_seed": seed}
    return found


def _pairs(called: str, given: np.ndarray, p: int, is_mask: bool) -> np.ndarray:
    """The training pairs, sorted, from a mask of all pairs or a list of some."""
    if is_mask:
        right, fits = f"bool [{p * p}], pair (a, b) at", given.shape == (p * p,) and given.dtype == bool
    else:
        right, fits = "integers [n], pair (a, b) as", given.ndim == 1 and given.dtype.kind in "iu"
    if not fits:
        raise InputError(f"{called} is {given.dtype} {list(given.shape)}, but it must be {right} a * P + b.")
    pairs = np.flatnonzero(given) if is_mask else np.sort(given)
    if np.any((pairs < 0) | (pairs >= p * p)) or len(np.unique(pairs)) < len(pairs):
        raise InputError(f"{called} must hold different numbers from 0 to {p * p - 1}.")
    if not 0 < len(pairs) < p * p:
        raise InputError(f"{called} leaves {len(pairs)} of {p * p} pairs to train on.")
    return pairs.astype(np.int32)


# --- from snapshots -------------------------------------------------------------------------------------------------


def load_params(workdir: str | Path, run: int, step: int | None = None) -> dict[str, np.ndarray]:
    """Loads the parameters of one run at one snapshot step, or the last ones in a folder that `grokjax.publish` wrote.

    Args:
      workdir: of the sweep.
      run: its number.
      step: a snapshot step; by default the last one there is.

    Returns:
      NumPy arrays by TransformerLens key ("embed.W_E", "blocks.0.attn.W_Q", …).

    Raises:
      InputError: there is no such snapshot; says which there are.

    Example:
      >>> import grokjax
      >>> grokjax.load_params("results/tiny", run=1)["embed.W_E"].shape
      (8, 8)
    """
    return _params(workdir, run, step)[0]


def _params(folder: str | Path, number: int, step: int | None) -> tuple[dict[str, np.ndarray], int]:
    """The parameters of a run at a step, by default its last, and the step."""
    path = files_lib.path(folder)
    if weights := find_weights(path).get(number):
        held = load_checkpoint(weights)
        last = held.origin["step"]
        if step not in (None, last):
            only = f"it has that of step {last} alone"
            raise InputError(f"{folder} has no snapshot of run {number} at step {step}: {only}.")
        return dict(held.params), last
    params = snapshots.load_params(path, number, step)
    return params, max(s for _, s in snapshots.find_snapshots(path, runs=[number])) if step is None else step


def _load_snapshot(folder: str, number: int, step: int | None, act: str | None) -> Checkpoint:
    files_lib.refuse_missing(files_lib.path(folder))
    if not files_lib.path(folder).is_dir():
        raise InputError(f"{folder} is no directory, but a sweep's is expected before ':{number}'.")
    runs = {run.run: run for run in files.guarded(f"{folder}/config.json", load_sweep, files_lib.path(folder)).runs}
    params, step = files.guarded(f"the snapshot of run {number} in {folder}", _params, folder, number, step)
    if number not in runs:
        raise InputError(f"{folder}/config.json does not know run {number}: it has runs 0 to {len(runs) - 1}.")
    run, v = runs[number], runs[number].values
    record, source = read_record(folder) or {}, f"{folder}:{number}:{step}"
    nonzero_b = tasks.is_known(v["task"]) and tasks.of(v).nonzero_b
    if act is not None and act != v["model.act"] and act in ACTIVATIONS:
        refuse_contradiction("--act", act, source, "act_fn", v["model.act"])
    shape = {name: v[f"model.{name}"] for name in TOLD if v[f"model.{name}"] is not None}
    if (cfg := run.problem().model).is_own:
        if cfg.architecture not in families.FAMILIES:
            made_from = record.get("experiment") or "a config in Python"
            raise InputError(
                f"{source} is of a model family of its own, '{cfg.architecture}': give --experiment=FILE, which "
                f"registers it and is run for it. The sweep was made from {made_from}."
            )
        found = Checkpoint(params, cfg, None, source, "a snapshot of grokjax")
    else:
        found = from_arrays(params, source, act or v["model.act"], said=shape)
    origin = {name: v[name] for name in ("p", "split", "train_fraction")} | {
        "task": tasks.name_of(v),
        **{"act_fn": v["model.act"], "n_heads": found.cfg.n_heads if found.cfg.is_transformer else None},
        **{"split_seed": run.split_seed, "seed": v["seed"]},
        **{"step": step, "git_commit": record.get("git_commit")},
        "version": (record.get("versions") or {}).get("grokjax") or __version__,
    }
    return dataclasses.replace(
        found,
        origin={name: value for name, value in origin.items() if value is not None},
        train_pairs=tasks.train_pairs(v["p"], v["train_fraction"], run.split_seed, v["split"], nonzero_b),
        format="a snapshot of grokjax",
        task=tasks.name_of(v),
        split=f"{v['split']}:{run.split_seed}:{v['train_fraction']}, the run's own",
        split_seed=run.split_seed,
        settings={name: v[name] for name in SETTINGS},
        experiment=record.get("experiment"),
        answers=record.get("answers") or {},
        trained_answers=run.inputs().answers if v["label_noise"] and tasks.is_known(v["task"]) else None,
    )
