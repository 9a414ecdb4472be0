"""Other people's checkpoints, read and written: TransformerLens, its TransformerBridge, and the paper's released files.

    from grokjax import interop

    checkpoint = interop.load("released.pth")      # or model.npz, or results/small:3:40000
    interop.save_torch(checkpoint.params, checkpoint.cfg, "lens.pth")

Nothing in a file is ever run: torch files are loaded with weights only, npz files without pickle. PyTorch is needed for
its files alone.
"""

import dataclasses
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grokjax import tasks
from grokjax.errors import InputError, unknown
from grokjax.layouts import BRIDGE, LENS, PAPER, Layout, Reader, write
from grokjax.model import ACTIVATIONS, ModelConfig

__all__ = ["BRIDGE", "LENS", "PAPER", "Checkpoint", "from_arrays", "load", "save_npz", "save_torch"]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is known of where it came from.

    Attributes:
      params: NumPy arrays by TransformerLens key, in this project's axes and in the file's precision.
      cfg: the model's shape.
      train_pairs: int32, sorted, each a * P + b; None if the file does not tell.
      source: what was asked for, such as "model.npz" or "results/small:3:40000".
      layout: whose names and axes the file has.
      task: that the file names, or None.
      split: where train_pairs come from, in words; "" if there are none.
      split_seed: of train_pairs, where it is known; the answers of tasks that draw them depend on it.
      settings: config fields that go with the model, such as key_rule; those of the run for a snapshot.
      experiment: the file that a snapshot's sweep was made from, if it is known.
      notes: what was left out of the file, in words.
    """

    params: dict[str, np.ndarray]
    cfg: ModelConfig
    train_pairs: np.ndarray | None
    source: str
    layout: str
    task: str | None = None
    split: str = ""
    split_seed: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    experiment: str | None = None
    notes: tuple[str, ...] = ()


def load(model: str | Path, act: str | None = None, n_heads: int | None = None) -> Checkpoint:
    """Reads a trained model.

    Args:
      model: a file (.npz, or PyTorch's), or a snapshot as workdir:run:step, or workdir:run for the last one there is.
      act: the nonlinearity, "relu" or "gelu", which arrays do not tell; by default what the file says, or else "relu".
      n_heads: the number of heads, where the arrays do not tell.

    Raises:
      InputError: it cannot be read or does not fit; says what, and what was expected.
    """
    text = str(model)
    snapshot = re.fullmatch(r"(.+?):(\d{1,9})(?::(\d{1,18}))?", text)
    if snapshot and not os.path.lexists(text):
        return _load_snapshot(snapshot[1], int(snapshot[2]), int(snapshot[3]) if snapshot[3] else None, act)
    if os.path.isdir(text):
        raise InputError(f"{text} is a directory: name a file, or a run of a sweep as {text}:RUN or {text}:RUN:STEP.")
    if not os.path.isfile(text):
        raise InputError(f"{text} is no file: name one, or a snapshot as workdir:run:step.")
    arrays, said = _READERS[_kind(text)](text)
    return from_arrays(arrays, text, act, n_heads, said)


# --- from arrays ----------------------------------------------------------------------------------------------------


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    source: str = "the model",
    act: str | None = None,
    n_heads: int | None = None,
    said: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """A model from arrays by name, in any of the layouts.

    Args:
      arrays: parameters, and train_mask (bool [P²]) or train_indices (integers, each a * P + b) if known.
      source: what to call them in messages.
      act: the nonlinearity; by default what `said` has, or else "relu".
      n_heads: for layouts that do not tell; by default what `said` has.
      said: a configuration that came with the arrays.

    Raises:
      InputError: what does not fit, by name.
    """
    said = dict(said or {})
    for name, value in _MUST_BE.items():
        if name in said and said[name] != value:
            raise InputError(f"{source}: config.{name} is {said[name]!r}, but this project's model has {value!r}.")
    heads = said.get("n_heads", said.get("num_heads"))
    reader = Reader(
        source,
        {name: x for name, x in arrays.items() if name not in _SPLITS},
        n_heads or (heads if type(heads) is int and heads > 0 else None),
    )
    cfg = reader.config(_activation(source, act, said))
    params = reader.params()
    split = _split_of(source, cfg.p, arrays, said)
    return Checkpoint(params, cfg, source=source, layout=reader.layout.name, notes=tuple(reader.notes), **split)


# What a configuration may say that the arrays do not show, and what this project's model does.
_MUST_BE = {
    "normalization_type": None,
    "positional_embedding_type": "standard",
    "attention_dir": "causal",
    "use_attn_scale": True,
    "scale_attn_by_inverse_layer_idx": False,
    "parallel_attn_mlp": False,
}
_SPLITS = ("train_mask", "train_indices")
_RELEASED_TASKS = {"add": "add", "subtract": "subtract", "x2xyy2": "quadratic"}  # by the released code's fn_name


def _activation(source: str, act: str | None, said: Mapping[str, Any]) -> str:
    given = act or str(said.get("act_fn", said.get("act_type", "relu"))).lower()
    if given not in ACTIVATIONS:
        raise unknown("--act" if act else f"{source}: config.act_fn", given, ACTIVATIONS)
    return given


def _split_of(source: str, p: int, arrays: Mapping[str, np.ndarray], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the file tells of the split and the task, as fields of `Checkpoint`."""
    found: dict[str, Any] = {"train_pairs": None, "task": _RELEASED_TASKS.get(str(said.get("fn_name")))}
    given = next((name for name in _SPLITS if name in arrays), None)
    if given:
        pairs = _mask_pairs if given == "train_mask" else _listed_pairs
        train_pairs = pairs(f"{source}: {given}", np.asarray(arrays[given]), p)
        return found | {"train_pairs": train_pairs, "split": f"{given} in the file"}
    seed, fraction = said.get("seed"), said.get("frac_train")
    if found["task"] and isinstance(seed, int) and isinstance(fraction, float) and 0 < fraction < 1:
        train_pairs = tasks.train_pairs(p, fraction, seed, "python")
        words = f"python:{seed}:{fraction}, as the file's config says"
        return found | {"train_pairs": train_pairs, "split": words, "split_seed": seed}
    return found


def _mask_pairs(called: str, mask: np.ndarray, p: int) -> np.ndarray:
    if mask.shape != (p * p,) or mask.dtype != bool:
        raise InputError(
            f"{called} is {mask.dtype} {list(mask.shape)}, but it must be bool [{p * p}], pair (a, b) at a * P + b."
        )
    return _some_pairs(called, np.flatnonzero(mask), p)


def _listed_pairs(called: str, pairs: np.ndarray, p: int) -> np.ndarray:
    if pairs.ndim != 1 or pairs.dtype.kind not in "iu":
        raise InputError(
            f"{called} is {pairs.dtype} {list(pairs.shape)}, but it must be integers [n], pair (a, b) as a * P + b."
        )
    if np.any((pairs < 0) | (pairs >= p * p)) or len(np.unique(pairs)) < len(pairs):
        raise InputError(f"{called} must hold different numbers from 0 to {p * p - 1}.")
    return _some_pairs(called, np.sort(pairs), p)


def _some_pairs(called: str, pairs: np.ndarray, p: int) -> np.ndarray:
    if not 0 < len(pairs) < p * p:
        raise InputError(f"{called} leaves {len(pairs)} of {p * p} pairs to train on.")
    return pairs.astype(np.int32)


# --- from snapshots -------------------------------------------------------------------------------------------------


def _load_snapshot(folder: str, number: int, step: int | None, act: str | None) -> Checkpoint:
    from grokjax import checkpoints, replay, storage, workdir

    if not storage.path(folder).is_dir():
        raise InputError(f"{folder} is no directory, but a sweep's is expected before ':{number}'.")
    runs = {run.run: run for run in _guarded(f"{folder}/config.json", replay.load_sweep, storage.path(folder)).runs}
    params = _guarded(f"the snapshot of run {number} in {folder}", checkpoints.load_params, folder, number, step)
    if number not in runs:
        raise InputError(f"{folder}/config.json does not know run {number}: it has runs 0 to {len(runs) - 1}.")
    if step is None:
        step = max(s for r, s in checkpoints.snapshots(folder) if r == number)
    run, v = runs[number], runs[number].values
    return dataclasses.replace(
        from_arrays(params, f"{folder}:{number}:{step}", act or v["model.act"]),
        train_pairs=tasks.train_pairs(v["p"], v["train_fraction"], run.split_seed, v["split"]),
        layout="a snapshot of grokjax",
        task=v["task"],
        split=f"{v['split']}:{run.split_seed}:{v['train_fraction']}, the run's own",
        split_seed=run.split_seed,
        settings={name: v[name] for name in ("key_rule", "key_threshold", "precision")},
        experiment=(workdir.read_record(folder) or {}).get("experiment"),
    )


def _guarded(what: str, function: Callable, *args):
    """Calls a function that reads files; damage is said in a sentence, whatever it made the function raise."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return function(*args)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{what} cannot be read: it is damaged or cut short ({reason.rstrip('.')}).") from None


# --- from files -----------------------------------------------------------------------------------------------------


def _kind(path: str) -> str:
    """What a file is, by what it holds: npz and torch files are both zip archives."""
    with _opened(path) as file:
        head = file.read(6)
    if head[:2] == b"PK":
        names = _guarded(path, _names_in, path)
        return "torch" if any(name.endswith("data.pkl") for name in names) else "npz"
    if head[:2] == b"\x80\x02":  # PyTorch's format before 1.6
        return "torch"
    if head == b"\x93NUMPY":
        raise InputError(f"{path} is a single array, but a model is many: save them with numpy.savez.")
    raise InputError(f"{path} is neither an npz file nor one of PyTorch's.")


def _names_in(path: str) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _refuse_bombs(path: str) -> None:
    """Refuses an archive that says it unpacks to far more than a model's numbers do, before that fills the memory."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    size = os.path.getsize(path)
    if unpacked > max(1 << 26, 100 * size):
        raise InputError(f"{path} has {size:,} bytes that unpack to {unpacked:,}: save the arrays without compression.")


def _opened(path: str):
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def _read_npz(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    _guarded(path, _refuse_bombs, path)

    def read():
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise InputError(f"{path} holds pickled objects, which are never loaded: save plain arrays.") from None

    arrays = _guarded(path, read)
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray):
            raise InputError(f"{path} holds {name}, which is no array.")
    return arrays, {}


def _read_torch(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    torch = import_torch(f"to read {path}")

    def read():
        try:
            with torch.serialization.safe_globals(_stand_ins()):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            code = re.search(r"GLOBAL ([\w.]+)", str(error))
            if not code:
                raise
            raise InputError(
                f"{path} holds pickled code ({code[1]}), which is never run: save a plain state dict, "
                "torch.save(model.state_dict(), …)."
            ) from None

    tensors, said = _unwrapped(path, _guarded(path, read))
    return {str(name): _to_numpy(torch, f"{path}: {name}", x) for name, x in tensors.items()}, said


_READERS: dict[str, Callable[[str], tuple[dict[str, np.ndarray], dict[str, Any]]]] = {
    "npz": _read_npz,
    "torch": _read_torch,
}


def import_torch(why: str):
    """The torch package, which is an extra.

    Raises:
      InputError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise InputError(f"PyTorch is not installed, but it is needed {why}: pip install 'grokjax[torch]'.") from None
    return torch


class _Inert:
    """Stands in for a class that a file mentions: takes whatever it is given and does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update(state)


def _stand_ins() -> list:
    """TransformerLens's configs lie beside many state dicts: they are read as what they hold, without their code."""
    configs = (
        "HookedTransformerConfig.HookedTransformerConfig",
        "config.HookedTransformerConfig.HookedTransformerConfig",
        "config.hooked_transformer_config.HookedTransformerConfig",
        "config.TransformerBridgeConfig.TransformerBridgeConfig",
        "config.transformer_bridge_config.TransformerBridgeConfig",
    )
    numbers = ["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"]
    return [(_Inert, name) for name in [*(f"transformer_lens.{config}" for config in configs), *numbers]]


def _unwrapped(path: str, content: Any) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """The state dict in what a torch file holds, together with the split beside it; and the config beside it."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, but a state dict is expected, or a dict with one.")
    said = content.get("config", content.get("cfg", {}))
    said = dict(said) if isinstance(said, Mapping) else dict(getattr(said, "__dict__", {}))
    name = next((name for name in ("model", "state_dict", "model_state_dict") if name in content), None)
    if name is None:
        return {key: x for key, x in content.items() if key not in ("config", "cfg")}, said
    if not isinstance(content[name], Mapping):
        raise InputError(f"{path}: '{name}' is a {type(content[name]).__name__}, but a state dict is expected.")
    return {**content[name], **{key: content[key] for key in _SPLITS if key in content}}, said


def _to_numpy(torch, called: str, x) -> np.ndarray:
    if isinstance(x, list) and called.endswith(_SPLITS):
        return np.asarray(x)
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.is_quantized or x.is_meta:
        raise InputError(f"{called} is a {type(x).__name__}, but a plain tensor is expected in a state dict.")
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()


# --- to files -------------------------------------------------------------------------------------------------------


def save_torch(params: Mapping[str, Any], cfg: ModelConfig, path: str | Path, layout: Layout = LENS) -> None:
    """Writes a plain state dict that TransformerLens loads; the file appears whole.

    Args:
      params: by TransformerLens key, in this project's axes.
      cfg: the model's shape.
      path: of the file.
      layout: `LENS` for HookedTransformer, `BRIDGE` for TransformerBridge.

    Raises:
      InputError: torch is not installed, or the file cannot be written.
    """
    torch = import_torch(f"to write {path}")
    state_dict = {name: torch.from_numpy(np.array(x)) for name, x in write(params, cfg, layout).items()}
    _write(path, lambda file: torch.save(state_dict, file))


def save_npz(
    params: Mapping[str, Any], cfg: ModelConfig, path: str | Path, train_pairs: np.ndarray | None = None
) -> None:
    """Writes plain arrays, with train_mask if the split is known; names are short ("W_Q") where there is one layer.

    Raises:
      InputError: the file cannot be written.
    """
    short = cfg.n_layers == 1
    arrays: dict[str, Any] = {name.rsplit(".", 1)[1] if short else name: np.asarray(x) for name, x in params.items()}
    if train_pairs is not None:
        arrays["train_mask"] = np.isin(np.arange(cfg.p**2), train_pairs)
    _write(path, lambda file: np.savez_compressed(file, **arrays))


def _write(path: str | Path, write_to: Callable[[Any], None]) -> None:
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write_to(file)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another place.") from None
