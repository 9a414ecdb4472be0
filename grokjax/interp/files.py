"""Model files, read and written: npz archives, safetensors, and PyTorch's, whose code is never run."""

import collections
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grokjax.core.model import ModelConfig
from grokjax.errors import InputError, StorageError
from grokjax.interp.formats import LENS, Format, write
from grokjax.interp.state_dict import RECORD
from grokjax.store.files import path as path_of
from grokjax.store.files import put

_LONGEST_HEADER = 1 << 24  # bytes of a safetensors file that name its arrays


def guarded(what: str, function: Callable, *args):
    """Calls a function that reads files.

    Raises:
      InputError: the function's own, or a sentence about the damage that made it raise anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return function(*args)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{what} cannot be read: it is damaged or cut short ({reason.rstrip('.')}).") from None


# --- from files -----------------------------------------------------------------------------------------------------


def load(path: str) -> Any:
    """Reads a model file, told by its content: npz, safetensors or PyTorch's.

    Returns:
      What it holds: arrays by name, with an export's record under "config"; of a torch file whatever was saved, tensors
      as they are. `state_dict.unwrap` finds a model in it.

    Raises:
      InputError: the file is neither, or cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # pipes and devices would not end
        raise InputError(f"{path} is no file.")
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    if head[8:] == b"{":  # before the others: its first bytes are a length, and may be any
        return _read_safetensors(path)
    if head[:2] == b"PK":
        members = guarded(path, _members, path)
        return (_read_torch if any(member.filename.endswith("data.pkl") for member in members) else _read_npz)(path)
    if head[:2] == b"\x80\x02":  # PyTorch's format before 1.6
        return _read_torch(path)
    if head[:6] == b"\x93NUMPY":
        raise InputError(f"{path} is a single array, but a model is many: save them with numpy.savez.")
    raise InputError(f"{path} is neither an npz file nor one of PyTorch's or of safetensors.")


def _members(path: str) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _refuse_bombs(path: str) -> None:
    """Refuses an archive that says it unpacks to far more than a model's numbers do, before that fills the memory."""
    unpacked, size = sum(member.file_size for member in guarded(path, _members, path)), os.path.getsize(path)
    if unpacked > max(1 << 26, 100 * size):
        raise InputError(f"{path} has {size:,} bytes that unpack to {unpacked:,}: save the arrays without compression.")


def _read_npz(path: str) -> dict[str, Any]:
    _refuse_bombs(path)

    def read():
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise InputError(f"{path} holds pickled objects, which are never loaded: save plain arrays.") from None

    arrays = guarded(path, read)
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray):
            raise InputError(f"{path} holds {name}, which is no array.")
    return _with_record(path, arrays, str(arrays.pop(RECORD, "")))


def _read_safetensors(path: str) -> dict[str, Any]:
    from safetensors import safe_open

    def read():
        with open(path, "rb") as file:
            if int.from_bytes(file.read(8), "little") > min(os.path.getsize(path), _LONGEST_HEADER):
                raise ValueError("its header is longer than it may be")
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118

    arrays, metadata = guarded(path, read)
    return _with_record(path, arrays, metadata.get(RECORD, ""))


def _with_record(path: str, arrays: dict[str, Any], text: str) -> dict[str, Any]:
    """The arrays, with the record of an export, which is JSON, as "config"."""
    return arrays | ({"config": {RECORD: guarded(f"{path}: its record", json.loads, text)}} if text else {})


def _read_torch(path: str) -> Any:
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

    return guarded(path, read)


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
    stood_for = [*(f"transformer_lens.{config}" for config in configs), *numbers]
    ranges = ["builtins.range", "__builtin__.xrange"]  # as which steps are saved: harmless itself
    return [*((_Inert, name) for name in stood_for), *((range, name) for name in ranges)]


# --- to files -------------------------------------------------------------------------------------------------------


def save_torch(
    params: Mapping[str, Any],
    cfg: ModelConfig,
    path: str | Path,
    format: Format = LENS,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes a state dict that TransformerLens loads; the file appears whole.

    Args:
      params: by TransformerLens key, in this project's axes.
      cfg: the model's shape.
      path: of the file.
      format: `LENS` for HookedTransformer, `BRIDGE` for TransformerBridge.
      record: what is known of the model, ready for JSON; it goes where modules keep their versions, in the state dict's
        `_metadata`, so that the file loads as it did without.

    Raises:
      InputError: torch is not installed, or the file cannot be written.
    """
    torch = import_torch(f"to write {path}")
    named = write(params, cfg, format).items()
    state_dict = collections.OrderedDict((name, torch.from_numpy(np.array(x))) for name, x in named)
    if record:
        state_dict._metadata = collections.OrderedDict({"": {"version": 1}, RECORD: dict(record)})  # type: ignore
    _write(path, lambda file: torch.save(state_dict, file))


def save_safetensors(
    params: Mapping[str, Any],
    cfg: ModelConfig,
    path: str | Path,
    format: Format = LENS,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes the state dict of `save_torch` as safetensors, with the record as JSON in its metadata.

    Raises:
      InputError: the file cannot be written.
    """
    from safetensors.numpy import save

    metadata = {"format": "pt"} | ({RECORD: json.dumps(dict(record))} if record else {})
    _write(path, lambda file: file.write(save(write(params, cfg, format), metadata)))


def save_npz(
    params: Mapping[str, Any],
    cfg: ModelConfig,
    path: str | Path,
    train_pairs: np.ndarray | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes plain arrays, with train_mask if the split is known; names are short ("W_Q") where there is one layer.

    Args:
      params: by TransformerLens key, in this project's axes.
      cfg: the model's shape.
      path: of the file.
      train_pairs: each a * P + b.
      record: what is known of the model, ready for JSON; it becomes a text among the arrays.

    Raises:
      InputError: the file cannot be written.
    """
    short = cfg.n_layers == 1 and cfg.is_transformer  # where names are the same without their layer
    arrays: dict[str, Any] = {name.rsplit(".", 1)[1] if short else name: np.asarray(x) for name, x in params.items()}
    if train_pairs is not None:
        arrays["train_mask"] = np.isin(np.arange(cfg.p**2), train_pairs)
    if record:
        arrays[RECORD] = np.array(json.dumps(dict(record)))
    _write(path, lambda file: np.savez_compressed(file, **arrays))


def _write(path: str | Path, write_to: Callable[[Any], None]) -> None:
    content = io.BytesIO()
    write_to(content)
    try:
        put(content.getvalue(), path_of(path))
    except StorageError as error:
        raise InputError(f"{error}: choose another place.") from None
