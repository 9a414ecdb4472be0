"""Model files, read and written: npz archives and PyTorch's, whose code is never run."""

import io
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
from grokjax.store.files import put

SPLITS = ("train_mask", "train_indices")  # arrays that tell the training pairs, see `checkpoint.from_arrays`


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


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads an npz or a torch file, both of them zip archives, told apart by what they hold.

    Returns:
      The arrays by name, and the config that lies beside them (empty if there is none).

    Raises:
      InputError: the file is neither, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    if head[:2] == b"PK":
        members = guarded(path, _members, path)
        return (_read_torch if any(member.filename.endswith("data.pkl") for member in members) else _read_npz)(path)
    if head[:2] == b"\x80\x02":  # PyTorch's format before 1.6
        return _read_torch(path)
    if head == b"\x93NUMPY":
        raise InputError(f"{path} is a single array, but a model is many: save them with numpy.savez.")
    raise InputError(f"{path} is neither an npz file nor one of PyTorch's.")


def _members(path: str) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _refuse_bombs(path: str) -> None:
    """Refuses an archive that says it unpacks to far more than a model's numbers do, before that fills the memory."""
    unpacked, size = sum(member.file_size for member in guarded(path, _members, path)), os.path.getsize(path)
    if unpacked > max(1 << 26, 100 * size):
        raise InputError(f"{path} has {size:,} bytes that unpack to {unpacked:,}: save the arrays without compression.")


def _read_npz(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
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
    return arrays, {}


def load_torch(path: str) -> Any:
    """Reads whatever objects a torch file holds; its code is never run.

    Raises:
      InputError: torch is not installed, or the file cannot be read.
    """
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


def arrays_of(path: str, content: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and config, as `read` gives them, in what a torch file holds."""
    torch = import_torch(f"to read {path}")
    tensors, said = _unwrapped(path, content)
    return {str(name): _to_numpy(torch, f"{path}: {name}", x) for name, x in tensors.items()}, said


def _read_torch(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return arrays_of(path, load_torch(path))


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
    return {**content[name], **{key: content[key] for key in SPLITS if key in content}}, said


def _to_numpy(torch, called: str, x) -> np.ndarray:
    if isinstance(x, list) and called.endswith(SPLITS):
        return np.asarray(x)
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.is_quantized or x.is_meta:
        raise InputError(f"{called} is a {type(x).__name__}, but a plain tensor is expected in a state dict.")
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()


# --- to files -------------------------------------------------------------------------------------------------------


def save_torch(params: Mapping[str, Any], cfg: ModelConfig, path: str | Path, format: Format = LENS) -> None:
    """Writes a plain state dict that TransformerLens loads; the file appears whole.

    Args:
      params: by TransformerLens key, in this project's axes.
      cfg: the model's shape.
      path: of the file.
      format: `LENS` for HookedTransformer, `BRIDGE` for TransformerBridge.

    Raises:
      InputError: torch is not installed, or the file cannot be written.
    """
    torch = import_torch(f"to write {path}")
    state_dict = {name: torch.from_numpy(np.array(x)) for name, x in write(params, cfg, format).items()}
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
    content = io.BytesIO()
    write_to(content)
    try:
        put(content.getvalue(), Path(path))
    except StorageError as error:
        raise InputError(f"{error}: choose another place.") from None
