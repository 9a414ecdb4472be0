"""Checkpoint formats: the name under which a file holds each parameter, and the order of its axes.

A `Format` is a table; one routine reads arrays by it and another writes them, so that what is written can be read. P,
the widths, heads and layers are read from the arrays' shapes, and an array that does not fit them is named.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from grokjax import config as config_lib
from grokjax.core.model import N_CTX, ModelConfig
from grokjax.errors import InputError
from grokjax.interp import architectures

# The sizes that axes have, by letter.
AXES = {"V": "tokens", "T": "positions", "D": "d_model", "H": "heads", "E": "d_head", "M": "d_mlp", "P": "P"}


@dataclasses.dataclass(frozen=True)
class Format:
    """The names and axes that a kind of file has for each parameter.

    Attributes:
      name: in words.
      arrays: by this project's name, with "blocks.0." standing for every layer: the name in the file, and the axes
        there, as letters of `AXES`; two letters in brackets are one axis.
    """

    name: str
    arrays: dict[str, tuple[str, str]]


ATTN, MLP = "blocks.0.attn.", "blocks.0.mlp."
OURS = {
    "embed.W_E": "V D",
    "pos_embed.W_pos": "T D",
    **{ATTN + f"W_{x}": "H D E" for x in "QKV"},
    ATTN + "W_O": "H E D",
    MLP + "W_in": "D M",
    MLP + "b_in": "M",
    MLP + "W_out": "M D",
    MLP + "b_out": "D",
    "unembed.W_U": "D P",
}
NORMS = {
    "blocks.0.ln1.w": "D",
    "blocks.0.ln1.b": "D",
    "blocks.0.ln2.w": "D",
    "blocks.0.ln2.b": "D",
    "ln_final.w": "D",
    "ln_final.b": "D",
}  # of models with LayerNorm
# Biases that TransformerLens has and this project's model has not: a file may leave them out, or they must be zero.
ZERO = {ATTN + "b_Q": "H E", ATTN + "b_K": "H E", ATTN + "b_V": "H E", ATTN + "b_O": "D", "unembed.b_U": "P"}
LENS = Format("TransformerLens", {name: (name, axes) for name, axes in (OURS | NORMS | ZERO).items()})
PAPER = Format(
    "the paper's released code",
    LENS.arrays
    | {
        "embed.W_E": ("embed.W_E", "D V"),
        **{ATTN + f"W_{x}": (ATTN + f"W_{x}", "H E D") for x in "QKV"},
        ATTN + "W_O": (ATTN + "W_O", "D (H E)"),
        MLP + "W_in": (MLP + "W_in", "M D"),
        MLP + "W_out": (MLP + "W_out", "D M"),
    },
)
BRIDGE = Format(
    "TransformerLens's TransformerBridge",
    {
        "embed.W_E": ("embed.weight", "V D"),
        "pos_embed.W_pos": ("pos_embed.weight", "T D"),
        **{ATTN + f"W_{x}": (ATTN + f"{x.lower()}.weight", "(H E) D") for x in "QKV"},
        ATTN + "W_O": (ATTN + "o.weight", "D (H E)"),
        MLP + "W_in": (MLP + "in.weight", "M D"),
        MLP + "b_in": (MLP + "in.bias", "M"),
        MLP + "W_out": (MLP + "out.weight", "D M"),
        MLP + "b_out": (MLP + "out.bias", "D"),
        "unembed.W_U": ("unembed.weight", "P D"),
        **{name: (name.replace(".w", ".weight").replace(".b", ".bias"), axes) for name, axes in NORMS.items()},
        **{ATTN + f"b_{x}": (ATTN + f"{x.lower()}.bias", "(H E)") for x in "QKV"},
        ATTN + "b_O": (ATTN + "o.bias", "D"),
        "unembed.b_U": ("unembed.bias", "P"),
    },
)
_BUFFER = re.compile(r"(blocks\.\d+\.attn\.)?(mask|IGNORE)")
_INSERTED = re.compile(r"(?<![^.])(_orig_mod|_original_component)\.")
_ROOTS = {"embed", "embed_b", "pos_embed", "blocks", "ln_final", "unembed"}
_BARE = {name.rsplit(".", 1)[1]: name for name in LENS.arrays}  # "W_Q" stands for "blocks.0.attn.W_Q"


def _axes(text: str) -> list[str]:
    """ "D (H E)" as ["D", "HE"]."""
    return [group.strip("()").replace(" ", "") for group in re.findall(r"\([^)]*\)|\w", text)]


def _in_words(text: str) -> str:
    """ "D (H E)" as "[d_model, heads * d_head]"."""
    return f"[{', '.join(' * '.join(AXES[letter] for letter in axis) for axis in _axes(text))}]"


def _shape(text: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[letter] for letter in axis) for axis in _axes(text))


def _rearranged(x: np.ndarray, source: str, target: str, sizes: Mapping[str, int]) -> np.ndarray:
    """An array with its axes in another order: from "D (H E)", say, to "H E D"."""
    letters, wanted = "".join(_axes(source)), "".join(_axes(target))
    x = x.reshape([sizes[letter] for letter in letters]).transpose([letters.index(letter) for letter in wanted])
    return np.ascontiguousarray(x.reshape(_shape(target, sizes)))


def _of_layer(name: str, layer: int) -> str:
    return name.replace("blocks.0.", f"blocks.{layer}.")


def _every_layer(names: Mapping[str, Any], n_layers: int) -> list[tuple[str, int]]:
    """Pairs of a name and each layer that has it."""
    return [(name, layer) for name in names for layer in range(n_layers if name.startswith("blocks.") else 1)]


def write(params: Mapping[str, Any], cfg: ModelConfig, format: Format = LENS) -> dict[str, np.ndarray]:
    """A complete state dict in a format, with zeros for the biases that this project's model has not; others' own.

    Args:
      params: by TransformerLens key, in this project's axes.
      cfg: the model's shape.
      format: `LENS` for HookedTransformer, which gets its buffers too, or `BRIDGE` for TransformerBridge.
    """
    if not cfg.is_transformer:
        return {name: np.asarray(x) for name, x in params.items()}
    widths = {"D": cfg.d_model, "H": cfg.n_heads, "E": cfg.d_head, "M": cfg.d_mlp}
    sizes = {"V": cfg.d_vocab, "T": cfg.n_ctx, "P": cfg.p, **widths}
    W_E = np.asarray(params["embed.W_E"])
    own, dtype = dict(params), W_E.dtype
    own.setdefault("unembed.W_U", W_E[: cfg.p].T)  # where it is tied
    names = OURS | NORMS if cfg.normalization_type else OURS
    result = {}
    for name, layer in _every_layer(names, cfg.n_layers):
        there, axes = format.arrays[name]
        x = np.asarray(own[_of_layer(name, layer)])
        result[_of_layer(there, layer)] = _rearranged(x, names[name], axes, sizes)
    for name, layer in _every_layer(ZERO, cfg.n_layers):
        there, axes = format.arrays[name]
        result[_of_layer(there, layer)] = np.zeros(_shape(axes, sizes), dtype)
    if format is LENS:
        for layer in range(cfg.n_layers):
            seen = np.ones((cfg.n_ctx, cfg.n_ctx), bool)
            result[f"blocks.{layer}.attn.mask"] = np.tril(seen) if cfg.attention_dir == "causal" else seen
            result[f"blocks.{layer}.attn.IGNORE"] = np.array(-np.inf, dtype)
    return result


def without_prefix(source: str, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays without what torch.compile, DataParallel and other wrappers put before every name; and a note of it.

    Raises:
      InputError: some are there twice, with a wrapper's name and without.
    """
    named = {_INSERTED.sub("", name): x for name, x in arrays.items()}
    if len(named) < len(arrays):
        raise InputError(f"{source} has arrays twice, with '_orig_mod' in their names and without.")
    dropped = "" if named.keys() == arrays.keys() else "_orig_mod."
    while len(named) > 1:
        roots = {name.partition(".")[0] if "." in name else "" for name in named}
        root = roots.pop()
        if roots or not root or root in _ROOTS:
            break
        dropped += f"{root}."
        named = {name.partition(".")[2]: x for name, x in named.items()}
    return named, [f"the prefix '{dropped}' was dropped from the names"] if dropped else []


class Reader:
    """A model's arrays in any of the formats; every one of them is accounted for.

    Args:
      source: what to call the file in messages.
      arrays: by name, as they are in the file; "W_Q" stands for "blocks.0.attn.W_Q".
      n_heads: for the format that does not tell.
      said: what else is known of the model: config fields, and P.

    Attributes:
      format: that was recognised.
      n_layers: counted from the arrays' names.
      sizes: of the axes, by the letters of `AXES`.
      notes: what was dropped, in words.

    Raises:
      InputError: an array is missing or of the wrong shape, or the format does not tell the number of heads.
    """

    def __init__(
        self,
        source: str,
        arrays: Mapping[str, np.ndarray],
        n_heads: int | None = None,
        said: Mapping[str, Any] | None = None,
    ):
        self.source, self._said = source, said or {}
        self._given: dict[str, str] = {}  # names in the file by full name
        self._arrays: dict[str, np.ndarray] = {}
        self.notes: list[str] = []
        named, dropped = without_prefix(source, arrays)
        self.notes += dropped
        for given, array in named.items():
            name = _BARE.get(given, given)
            if name in self._arrays:
                raise InputError(f"{source} has both {self._given[name]} and {given}, which are the same parameter.")
            self._arrays[name], self._given[name] = array, given
        self.format = self._recognised()
        architectures.refuse(source, self._arrays)
        self.n_layers = self._count_layers()
        self.is_normed = any(re.search(r"\bln\w*\.", name) for name in self._arrays)
        self._fit_context()
        self.sizes = self._read_sizes(n_heads)
        self.is_tied = self._unties()
        self._fill_biases()

    def config(self, act: str) -> ModelConfig:
        """The model's shape, with softmax attention."""
        s = self.sizes
        return ModelConfig(
            s["P"],
            self.n_layers,
            s["D"],
            s["H"],
            s["M"],
            act,
            n_ctx=s["T"],
            d_head=s["E"],
            embeddings="shared" if s["V"] - s["P"] < s["P"] else "separate",
            unembed="tied" if self.is_tied else "own",
            normalization_type="LN" if self.is_normed else None,
            attention_dir=self._direction(),
        )

    def _direction(self) -> str:
        """Which way attention goes, which arrays do not tell."""
        given = self._said.get("attention_dir")
        if given in ("causal", "bidirectional"):
            return str(given)
        if self.format is PAPER and self.sizes["T"] == 2:
            self.notes.append("attention is taken to go both ways, as in the code released with Zhong et al. 2023")
            return "bidirectional"
        return "causal"

    @property
    def _ours(self) -> dict[str, str]:
        """This project's names of what is in the file, with the axes."""
        names = OURS | NORMS if self.is_normed else OURS
        return {name: axes for name, axes in names.items() if not (self.is_tied and name == "unembed.W_U")}

    def params(self) -> dict[str, np.ndarray]:
        """The parameters by TransformerLens key, in this project's axes.

        Raises:
          InputError: an array is missing, unknown, of a wrong shape or type, not finite, or a bias that this project's
            model has not; it is named.
        """
        self._refuse_strangers()
        for name, layer in _every_layer(ZERO, self.n_layers):
            if self._key(name, layer) in self._arrays:
                self._refuse_bias(name, layer)
        result = {}
        ours = self._ours
        for name, layer in _every_layer(ours, self.n_layers):
            x = self._checked(name, layer)
            result[_of_layer(name, layer)] = _rearranged(x, self.format.arrays[name][1], ours[name], self.sizes)
        return result

    # --- what there is ----------------------------------------------------------------------------------------------

    def _fit_context(self) -> None:
        """Drops positions behind the third, which a b = does not reach."""
        key = self._key("pos_embed.W_pos")
        W_pos = self._get("pos_embed.W_pos")
        if len(W_pos) > N_CTX:
            self._arrays[key] = W_pos[:N_CTX]
            self.notes.append(f"{len(W_pos) - N_CTX} of W_pos's {len(W_pos)} positions were dropped: a, b, = are three")
        if W_pos.ndim == 2 and len(W_pos) == 1:
            raise InputError(
                f"{self._called('pos_embed.W_pos')} has one position, but a and b are two, or a, b, = three."
            )

    def _unties(self) -> bool:
        """Whether W_U is W_E of the residues, transposed, or is not there because it is said to be."""
        key, is_said = self._key("unembed.W_U"), self._said.get("unembed") == "tied"
        if key not in self._arrays:
            return is_said
        s, axes = self.sizes, self.format.arrays["unembed.W_U"][1]
        if s["V"] - s["P"] > 1 or self._arrays[key].shape != _shape(axes, s):
            return False
        W_U = _rearranged(self._arrays[key], axes, "P D", s)
        W_E = _rearranged(self._get("embed.W_E"), self.format.arrays["embed.W_E"][1], "V D", s)[: s["P"]]
        if not (np.array_equal(W_U, W_E) and W_U.any()):
            return False
        if not is_said:
            self.notes.append("W_U equals W_E, so that they were taken for tied")
        return True

    def _fill_biases(self) -> None:
        """Takes biases that are absent for zero."""
        absent = []
        for name in (MLP + "b_in", MLP + "b_out"):
            keys = [self._key(name, layer) for layer in range(self.n_layers)]
            if not any(key in self._arrays for key in keys):
                absent.append(name.rsplit(".", 1)[1])
                zeros = np.zeros(_shape(self.format.arrays[name][1], self.sizes), np.float32)
                self._arrays |= dict.fromkeys(keys, zeros)
        if absent:
            self.notes.append(f"{' and '.join(absent)} are not in the file and were taken for zero")

    def _recognised(self) -> Format:
        if any(name.endswith(".weight") for name in self._arrays):
            return BRIDGE
        W_O = self._arrays.get(ATTN + "W_O")
        return PAPER if W_O is not None and W_O.ndim == 2 else LENS

    def _count_layers(self) -> int:
        matches = [re.match(r"blocks\.(\d+)\.", name) for name in self._arrays]
        layers = {match[1] for match in matches if match}
        if layers != {str(i) for i in range(len(layers))}:
            raise InputError(f"{self.source} has blocks {', '.join(sorted(layers))}, but they must be numbered from 0.")
        return max(len(layers), 1)

    def _read_sizes(self, n_heads: int | None) -> dict[str, int]:
        d, v = self._read_size("pos_embed.W_pos", "D"), self._read_size("embed.W_E", "V")
        t = self._read_size("pos_embed.W_pos", "T")
        p = self._read_p(v, t)
        right = config_lib.FIELDS["p"]
        if not right.test(p):
            equals = ", the last of them '='" if t == N_CTX else ""
            raise InputError(
                f"{self._called('embed.W_E')} has {v} tokens{equals}, so that P is {p}, but it must be {right.right}."
            )
        if self.format is not BRIDGE:
            found = self._read_size(ATTN + "W_Q", "H")
            if n_heads not in (None, found):
                raise InputError(f"--heads is {n_heads}, but {self.source} has {found} heads: leave out --heads.")
            n_heads = found
        elif not n_heads:
            raise InputError(
                f"{self.source} is in the format of {BRIDGE.name}, where arrays do not tell the number of heads: give "
                "--heads, such as --heads=4."
            )
        widths = {self._columns(n_heads)} if self.format is BRIDGE else self._widths()
        e = widths.pop() if len(widths) == 1 else d // n_heads
        has_b_in = self._key(MLP + "b_in") in self._arrays
        m = self._read_size(MLP + ("b_in" if has_b_in else "W_in"), "M")
        return {"T": t, "D": d, "V": v, "P": p, "H": n_heads, "E": e, "M": m}

    def _widths(self) -> set[int]:
        """The widths of heads that W_Q, W_K and W_V have: one, unless an array does not fit."""
        return {self._read_size(f"{ATTN}W_{x}", "E") for x in "QKV"}

    def _columns(self, n_heads: int) -> int:
        """The width of each of so many heads, where arrays hold them side by side."""
        n = self._read_size(ATTN + "W_Q", "HE")
        if n % n_heads:
            raise InputError(f"{self.source} has {n} columns of W_Q, but they must be divisible by heads, {n_heads}.")
        return n // n_heads

    def _read_p(self, v: int, t: int) -> int:
        """P, of so many tokens at so many positions: "=" is one where there are three, and b may have its own."""
        residues = v - (t == N_CTX)
        key = self._key("unembed.W_U")
        x, axes = self._arrays.get(key), _axes(self.format.arrays["unembed.W_U"][1])
        n_logits = x.shape[axes.index("P")] if x is not None and x.ndim == 2 else residues
        given = next((self._said[name] for name in ("p", "P", "C") if type(self._said.get(name)) is int), None)
        is_separate = residues % 2 == 0 and residues // 2 in (n_logits, given)
        return residues // 2 if is_separate else residues

    def _read_size(self, name: str, letter: str) -> int:
        text = self.format.arrays[name][1]
        array, axes = self._get(name), _axes(text)
        if array.ndim != len(axes) or not array.size:
            raise InputError(f"{self._called(name)} has shape {list(array.shape)}, but {_in_words(text)} is expected.")
        return array.shape[axes.index(letter)]

    # --- single arrays ----------------------------------------------------------------------------------------------

    def _key(self, name: str, layer: int = 0) -> str:
        return _of_layer(self.format.arrays[name][0], layer)

    def _called(self, name: str, layer: int = 0) -> str:
        key = self._key(name, layer)
        return f"{self.source}: {self._given.get(key, key)}"

    def _get(self, name: str, layer: int = 0) -> np.ndarray:
        key = self._key(name, layer)
        if key not in self._arrays:
            have = ", ".join(list(self._given.values())[:12]) or "none"
            raise InputError(
                f"{self.source} has no array {key} {_in_words(self.format.arrays[name][1])}: its arrays are {have}"
                f"{', …' if len(self._given) > 12 else ''}."
            )
        return self._arrays[key]

    def _refuse_strangers(self) -> None:
        names = OURS | ZERO | (NORMS if self.is_normed else {})
        known = {self._key(name, layer) for name, layer in _every_layer(names, self.n_layers)}
        for name, given in self._given.items():
            if name in known or _BUFFER.fullmatch(name):
                continue
            if self._is_alias(name, known):
                self.notes.append(f"{given} was dropped: it equals another array")
                continue
            raise InputError(
                f"{self.source} has an array {given}, which is no part of a model in the format of {self.format.name}."
            )

    def _is_alias(self, name: str, known: set[str]) -> bool:
        """Whether an array is a second name for a known one."""
        x = self._arrays[name]
        return x.ndim > 1 and any(
            x.dtype == other.dtype and np.array_equal(x, other)
            for key, other in self._arrays.items()
            if key in known and key != name
        )

    def _refuse_bias(self, name: str, layer: int) -> None:
        if np.any(self._checked(name, layer)):
            why = ", which cannot be folded into the other weights" if name == "unembed.b_U" else ""
            raise InputError(
                f"{self._called(name, layer)} is not zero{why}, but the only biases of this project's model are b_in "
                "and b_out."
            )

    def _checked(self, name: str, layer: int) -> np.ndarray:
        """An array that has been found right, without the logit of "=" if it has one."""
        text = self.format.arrays[name][1]
        x, called, s = self._get(name, layer), self._called(name, layer), self.sizes
        if "P" in text and s["V"] > s["P"] and x.shape == _shape(text.replace("P", "V"), s):
            x = x.take(range(s["P"]), _axes(text).index("P"))  # the answer is never "="
            if name == "unembed.W_U":
                is_equals = s["V"] == s["P"] + 1
                what = (
                    "the column of '=' in W_U was"
                    if is_equals
                    else "the columns in W_U of tokens that are no answers were"
                )
                self.notes.append(f"{what} dropped")
        if x.shape != _shape(text, s):
            raise InputError(
                f"{called} has shape {list(x.shape)}, but {list(_shape(text, s))}, {_in_words(text)}, is expected "
                f"where P = {s['P']}, d_model = {s['D']}, heads = {s['H']} and d_mlp = {s['M']}, as others have it."
            )
        if x.dtype.kind != "f":
            raise InputError(f"{called} holds {x.dtype}, but it must hold floating-point numbers.")
        bad = x.size - np.count_nonzero(np.isfinite(x))
        if bad:
            raise InputError(f"{called} has {bad} of its {x.size} numbers not finite.")
        return x
