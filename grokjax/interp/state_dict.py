"""State dicts: found in what a file holds, as NumPy arrays by name."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grokjax.errors import InputError, shown

SPLITS = ("train_mask", "train_indices")  # arrays that tell the training pairs, see `checkpoint.from_arrays`
RECORD = "grokjax"  # the entry of a file's metadata under which an export says what it is
CONFIGS = ("config", "cfg", "hyper_parameters")
WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network", "params", "weights")
_DEEPEST = 4  # wrappers in wrappers


class StateDict(NamedTuple):
    """One model's arrays, with what lies beside them.

    Attributes:
      arrays: by name, as they are in the file; the split's among them.
      said: the configuration beside them; empty if there is none.
      notes: where they were found, in words.
    """

    arrays: dict[str, np.ndarray]
    said: dict[str, Any]
    notes: tuple[str, ...] = ()


def unwrap(source: str, held: Any) -> StateDict:
    """Finds the state dict in what a file holds: itself, or an entry of it such as "model", "net" or "state_dict".

    Raises:
      InputError: there is none, or more than one, or an entry is no array.
    """
    said: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    notes: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(held, Mapping):
            raise InputError(f"{source} holds a {type(held).__name__}, but a state dict is expected, or one in a dict.")
        said |= _said(source, held)
        splits |= {name: held[name] for name in SPLITS if name in held}
        name = _wrapper(source, held)
        if name is None:
            break
        if name not in WRAPPERS[:3]:
            notes.append(f"the state dict is the file's '{name}'")
        held = held[name]
    entries = {str(name): x for name, x in held.items() if name not in (*CONFIGS, RECORD)} | splits
    _refuse_curves(source, entries)
    arrays = {name: to_numpy(f"{source}: {name}", x) for name, x in entries.items()}
    if RECORD in said:
        said = _recorded(source, said[RECORD])
        if "train_indices" in said:
            arrays["train_indices"] = to_numpy(f"{source}: train_indices", said.pop("train_indices"))
    return StateDict(arrays, said, tuple(notes))


def to_numpy(called: str, x: Any) -> np.ndarray:
    """An array of any library's, PyTorch's from whatever device; bfloat16 and narrower floats as float32.

    Raises:
      InputError: it is no plain array.
    """
    if isinstance(x, list) and called.endswith(SPLITS):
        try:
            return np.asarray(x)
        except (ValueError, OverflowError):
            raise InputError(f"{called} must be a list of whole numbers.") from None
    if hasattr(x, "detach"):
        import torch

        if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.is_quantized or x.is_meta:
            raise InputError(f"{called} is a {type(x).__name__}, but a plain tensor is expected in a state dict.")
        kept = (torch.float16, torch.float32, torch.float64)
        x = x.float() if x.is_floating_point() and x.dtype not in kept else x
        return x.detach().cpu().resolve_conj().resolve_neg().numpy()
    if not hasattr(x, "__array__"):
        raise InputError(f"{called} is a {type(x).__name__}, but a plain tensor is expected in a state dict.")
    x = np.asarray(x)
    return x.astype(np.float32) if "float" in x.dtype.name and x.dtype.kind == "V" else x


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _said(source: str, held: Mapping) -> dict[str, Any]:
    """The configuration beside a state dict, or the record that an export keeps in its metadata, or npz as text."""
    metadata = getattr(held, "_metadata", None)
    if isinstance(metadata, Mapping) and RECORD in metadata:
        return {RECORD: metadata[RECORD]}
    if RECORD in held:
        return {RECORD: _parsed(source, held[RECORD])}
    said: Any = next((held[name] for name in CONFIGS if name in held), {})
    found = dict(said) if isinstance(said, Mapping) else dict(getattr(said, "__dict__", {}))
    return {str(name): value for name, value in found.items()}


def _parsed(source: str, text: Any) -> Any:
    try:
        return json.loads(str(text))
    except ValueError:
        raise InputError(
            f"{source}: the entry '{RECORD}' is {shown(text)}, but the record of an export is expected."
        ) from None


def _recorded(source: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise InputError(f"{source}: the record of its origin is a {type(record).__name__}, but a dict is expected.")
    return {str(name): value for name, value in record.items()}


def _wrapper(source: str, held: Mapping) -> str | None:
    """The entry that holds the state dict; None where `held` is one."""
    for name in WRAPPERS:
        if name in held and not _is_array(held[name]):
            if not isinstance(held[name], Mapping):
                kind = type(held[name]).__name__
                raise InputError(f"{source}: '{name}' is a {kind}, but a state dict is expected.")
            return name
    if any(_is_array(x) for name, x in held.items() if name not in SPLITS):
        return None
    found = [name for name, x in held.items() if isinstance(x, Mapping) and any(map(_is_array, x.values()))]
    if len(found) > 1:
        names = ", ".join(f"'{name}'" for name in found[:6])
        raise InputError(f"{source} holds several state dicts ({names}): save the model's alone.")
    return found[0] if found else None


def _refuse_curves(source: str, entries: Mapping[str, Any]) -> None:
    """Says of a file that holds curves but no model what reads it."""

    def is_curve(x):
        return (isinstance(x, list | tuple) and len(x) and not isinstance(x[0], Mapping)) or getattr(x, "ndim", 0) == 1

    curves = [name for name, x in entries.items() if is_curve(x) and name not in SPLITS]
    plain = all(not _is_array(x) or getattr(x, "ndim", 0) < 2 for x in entries.values())
    if curves and plain and any("loss" in name or "acc" in name for name in curves):
        raise InputError(f"{source} holds curves ({', '.join(curves[:6])}) but no model: grokjax phases reads curves.")
