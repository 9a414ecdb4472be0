"""MLPs on embedded pairs, read from arrays by name: this project's, and those that Chughtai et al. 2023 released."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from grokjax import config as config_lib
from grokjax.core import mlp
from grokjax.core.model import ModelConfig
from grokjax.errors import InputError

EMBED, FIRST, UNEMBED = "embed.W_E", "blocks.0.mlp.W_in", "unembed.W_U"
RELEASED = {"W_E_a": EMBED, "W_E_b": mlp.SECOND, "W": FIRST, "W_U": UNEMBED}
OURS = "grokjax's MLP"


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


def fits(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays have the names of an MLP, by which nothing else is called."""
    of_transformer = any(name.startswith("pos_embed.") or ".attn." in name or ".W_out" in name for name in arrays)
    is_ours = {EMBED, FIRST, UNEMBED} <= arrays.keys() and not of_transformer
    return arrays.keys() == RELEASED.keys() or is_ours


def read(source: str, arrays: Mapping[str, np.ndarray], act: str) -> Read:
    """Reads an MLP; how its inputs enter and whether embeddings are shared is told by names and shapes.

    Args:
      source: what to call the file in messages.
      arrays: by name, with which `fits`.
      act: the nonlinearity, which they do not tell.

    Raises:
      InputError: an array is unknown, of a wrong shape or type, or not finite; it is named.
    """
    is_released = arrays.keys() == RELEASED.keys()
    called = RELEASED if is_released else {name: name for name in arrays}
    named = {called[name]: np.asarray(x) for name, x in arrays.items()}
    back = {ours: name for name, ours in called.items()}
    for name, x in named.items():
        if x.ndim != 2 or not x.size or x.dtype.kind != "f":
            raise InputError(f"{source}: {back[name]} is {x.dtype}{list(x.shape)}, but it must be a matrix of floats.")
        if not np.all(np.isfinite(x)):
            raise InputError(f"{source}: {back[name]} has numbers that are not finite.")
    (p, d_model), (n_inputs, d_mlp) = named[EMBED].shape, named[FIRST].shape
    right = config_lib.FIELDS["p"]
    if not right.test(p):
        raise InputError(f"{source}: {back[EMBED]} has {p} tokens, so that P is {p}, but it must be {right.right}.")
    cfg = ModelConfig(
        p,
        n_layers=sum(name.startswith("blocks.") for name in named),
        d_model=d_model,
        n_heads=1,
        d_mlp=d_mlp,
        act=act,
        architecture="mlp",
        inputs="summed" if n_inputs == d_model else "concatenated",
        embeddings="separate" if mlp.SECOND in named else "shared",
    )
    for name, shape in mlp.shapes(cfg).items():
        if name not in named:
            raise InputError(f"{source} has no array {name} {list(shape)}: its arrays are {', '.join(arrays)}.")
        if named[name].shape != shape:
            raise InputError(
                f"{source}: {back[name]} has shape {list(named[name].shape)}, but {list(shape)} is expected where P = "
                f"{p}, d_model = {d_model} and d_mlp = {d_mlp}, as others have it."
            )
    if strangers := named.keys() - mlp.shapes(cfg).keys():
        raise InputError(f"{source} has an array {min(strangers)}, which is no part of {OURS}.")
    wanted = {name: np.ascontiguousarray(named[name]) for name in mlp.shapes(cfg)}
    return Read(wanted, cfg, "Chughtai et al. 2023's released MLP" if is_released else OURS)
