"""MLPs read from arrays by name: this project's, and those that others released.

Others' names are turned into this project's first, matrices so that they multiply from the right; then one routine
reads and checks them. Biases, which this project's MLPs have not, are kept where a file has some.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grokjax import config as config_lib
from grokjax.core import mlp
from grokjax.core.model import ModelConfig
from grokjax.errors import InputError

Arrays = Mapping[str, np.ndarray]

EMBED, FIRST, UNEMBED = "embed.W_E", "blocks.0.mlp.W_in", "unembed.W_U"
OURS = "grokjax's MLP"
CHUGHTAI = {"W_x": EMBED, "W_y": mlp.SECOND, "W": FIRST, "b": "blocks.0.mlp.b_in", "W_U": UNEMBED}
ZHONG = {"embed.weight": EMBED, "embed1.weight": EMBED, "embed2.weight": mlp.SECOND, "unembed.weight": UNEMBED}


class Read(NamedTuple):
    """An MLP as arrays tell it.

    Attributes:
      params: by this project's keys, in its axes.
      cfg: its shape.
      format: whose names the arrays have, in words.
    """

    params: dict[str, np.ndarray]
    cfg: ModelConfig
    format: str


class _Named(NamedTuple):
    """An MLP's arrays under this project's names and in its axes, with the file's names for messages."""

    arrays: dict[str, np.ndarray]
    given: dict[str, str]
    format: str


def fits(arrays: Arrays) -> bool:
    """Whether arrays have the names of an MLP, by which nothing else is called."""
    return _named(arrays, {}) is not None


def _named(arrays: Arrays, said: Mapping[str, Any]) -> _Named | None:
    of_transformer = any(name.startswith("pos_embed.") or ".attn." in name or ".W_out" in name for name in arrays)
    if {FIRST, UNEMBED} <= arrays.keys() and not of_transformer:
        return _Named({name: np.asarray(x) for name, x in arrays.items()}, {name: name for name in arrays}, OURS)
    if {"W_x", "W_y", "W", "W_U"} <= arrays.keys() <= CHUGHTAI.keys():
        given = {CHUGHTAI[name]: name for name in arrays}
        named = {ours: np.asarray(arrays[name]) for ours, name in given.items()}
        return _Named(named, given, "Chughtai et al. 2023's released MLP")
    return _of_zhong(arrays, said) or _of_layers(arrays)


def _of_zhong(arrays: Arrays, said: Mapping[str, Any]) -> _Named | None:
    """The MLPs released with Zhong et al. 2023: embeddings, l1, l2 and an unembedding that are PyTorch's.

    Their model_type C sends the embeddings of a and b through l1 one by one and adds them up, which counts its bias
    twice.
    """
    given = {ZHONG[name]: name for name in arrays if name in ZHONG}
    for name in arrays:
        if match := re.fullmatch(r"l(\d+)\.(weight|bias)", name):
            given[f"blocks.{int(match[1]) - 1}.mlp.{'W_in' if match[2] == 'weight' else 'b_in'}"] = name
    if len(given) != len(arrays) or not {EMBED, FIRST, UNEMBED} <= given.keys():
        return None
    named = {ours: np.asarray(arrays[name]) for ours, name in given.items()}
    named = {name: x.T if name == UNEMBED or name.endswith("W_in") else x for name, x in named.items()}
    if said.get("model_type") == "C" and "blocks.0.mlp.b_in" in named:
        named["blocks.0.mlp.b_in"] = 2 * named["blocks.0.mlp.b_in"]
    return _Named(named, given, "the MLPs released with Zhong et al. 2023")


def _of_layers(arrays: Arrays) -> _Named | None:
    """Linear layers of PyTorch on one-hot pairs, one after another, such as an nn.Sequential of them."""
    matrices = [name for name, x in arrays.items() if name.endswith("weight") and np.ndim(x) == 2]
    stems = [name.removesuffix("weight") for name in matrices]
    biases = {name for name in arrays if name.endswith("bias") and name.removesuffix("bias") in stems}
    if len(matrices) < 2 or {*matrices, *biases} != set(arrays) or any("emb" in name for name in matrices):
        return None
    if np.shape(arrays[matrices[0]])[1] != 2 * np.shape(arrays[matrices[-1]])[0]:
        return None
    ours = {stem: f"blocks.{layer}.mlp." for layer, stem in enumerate(stems)} | {stems[-1]: "unembed."}
    last = len(stems) - 1
    given = {ours[stem] + ("W_U" if layer == last else "W_in"): stem + "weight" for layer, stem in enumerate(stems)} | {
        ours[stem] + ("b_U" if layer == last else "b_in"): stem + "bias"
        for layer, stem in enumerate(stems)
        if stem + "bias" in biases
    }
    named = {name: np.asarray(arrays[there]).T for name, there in given.items()}
    return _Named(named, given, "linear layers on one-hot pairs")


def read(source: str, arrays: Arrays, act: str, said: Mapping[str, Any] | None = None) -> Read:
    """Reads an MLP; how its inputs enter and whether embeddings are shared is told by names and shapes.

    Args:
      source: what to call the file in messages.
      arrays: by name, with which `fits`.
      act: the nonlinearity, which they do not tell.
      said: the configuration beside them.

    Raises:
      InputError: an array is unknown, of a wrong shape or type, or not finite; it is named.
    """
    found = _named(arrays, said or {})
    assert found, "read is for arrays with which `fits`"
    named, given, _ = found
    for name, x in named.items():
        _check(f"{source}: {given[name]}", x, 1 if ".b_" in name else 2)
    cfg = _shape(source, found, act)
    wanted: dict[str, tuple[int, ...]] = dict(mlp.shapes(cfg))
    wanted |= {name: (cfg.d_mlp,) for layer in range(cfg.n_layers) if (name := f"blocks.{layer}.mlp.b_in") in named}
    wanted |= {name: (cfg.p,) for name in ("unembed.b_U",) if name in named}
    for name, shape in wanted.items():
        if name not in named:
            raise InputError(f"{source} has no array {name} {list(shape)}: its arrays are {', '.join(arrays)}.")
        if named[name].shape != shape:
            raise InputError(
                f"{source}: {given[name]} has shape {list(named[name].shape)}, but {list(shape)} is expected where P = "
                f"{cfg.p}, d_model = {cfg.d_model} and d_mlp = {cfg.d_mlp}, as others have it."
            )
    if strangers := named.keys() - wanted.keys():
        raise InputError(f"{source} has an array {min(strangers)}, which is no part of {OURS}.")
    return Read({name: np.ascontiguousarray(named[name]) for name in wanted}, cfg, found.format)


def _check(called: str, x: np.ndarray, ndim: int) -> None:
    if x.ndim != ndim or not x.size or x.dtype.kind != "f":
        what = "matrix" if ndim == 2 else "vector"
        raise InputError(f"{called} is {x.dtype}{list(x.shape)}, but it must be a {what} of floats.")
    if not np.all(np.isfinite(x)):
        raise InputError(f"{called} has numbers that are not finite.")


def _shape(source: str, found: _Named, act: str) -> ModelConfig:
    """The shape that arrays have."""
    named, right = found.arrays, config_lib.FIELDS["p"]
    first = EMBED if EMBED in named else UNEMBED
    p = named[first].shape[0 if first == EMBED else 1]
    if not right.test(p):
        raise InputError(
            f"{source}: {found.given[first]} has {p} tokens, so that P is {p}, but it must be {right.right}."
        )
    n_inputs, d_mlp = named[FIRST].shape
    d_model = named[EMBED].shape[1] if EMBED in named else d_mlp
    inputs = "summed" if n_inputs == d_model else "concatenated"
    return ModelConfig(
        p,
        n_layers=sum(name.endswith(".mlp.W_in") for name in named),
        d_model=d_model,
        n_heads=1,
        d_mlp=d_mlp,
        act=act,
        architecture="mlp",
        inputs=inputs if EMBED in named else mlp.ONE_HOT,
        embeddings="shared" if EMBED in named and mlp.SECOND not in named else "separate",
    )
