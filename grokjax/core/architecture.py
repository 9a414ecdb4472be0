"""The model's shape: what chooses code and sizes arrays, and the rates that a run may have of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from grokjax.core import families
from grokjax.core.products import ACTIVATIONS

PLAIN_ACTS = ("relu", "gelu")  # of the paper's transformer, which the factored forward serves
N_CTX = 3  # a, b, "="


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model's shape; names as in TransformerLens's HookedTransformerConfig where it has them.

    Of a transformer:
      n_ctx: 3 for a, b, "=", with the answer above "="; 2 for a, b, with the answer above b.
      d_head: d_model over n_heads unless given.
      embeddings: "shared", or "separate" tokens for a and b: those of b come after those of a.
      unembed: "own", or "tied": W_U is W_E of the P residues, transposed.
      normalization_type: None, or "LN": LayerNorm before attention, MLP and W_U.
      attention_dir: "causal", or "bidirectional": a position sees those after it, too.
      attention_rate: α of Zhong et al. 2023: what attention moves is α softmax + (1 - α), the same for all positions.

    Of an MLP:
      inputs: "concatenated" or "summed" embeddings of a and b, or "one_hot" tokens side by side, without embeddings.
      embeddings: "separate" unless "shared".

    Of both:
      dropout: share of what a block's MLP adds, or of an MLP's neurons, that a training step leaves out.

    The two rates are numbers, or None where every run of a `Problem` has its own, as `bound` fills in.
    """

    p: int = 113
    n_layers: int = 1
    d_model: int = 128
    n_heads: int = 4
    d_mlp: int = 512
    act: str = "relu"
    architecture: str = "transformer"  # or "mlp", or one's own family
    inputs: str = "concatenated"
    embeddings: str = None  # type: ignore[assignment]  # filled in, and so is
    n_ctx: int = N_CTX
    d_head: int = None  # type: ignore[assignment]
    unembed: str = "own"
    normalization_type: str | None = None
    attention_dir: str = "causal"
    attention_rate: Any = 1.0
    dropout: Any = 0.0

    def __post_init__(self) -> None:
        """Fills in what is unset."""
        if self.embeddings is None:
            object.__setattr__(self, "embeddings", "separate" if self.is_mlp else "shared")
        if self.d_head is None:
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)

    @property
    def is_mlp(self) -> bool:
        """Whether it is an MLP, without attention, "=" and biases."""
        return self.architecture == "mlp"

    @property
    def is_transformer(self) -> bool:
        """Whether it is a transformer."""
        return self.architecture == "transformer"

    @property
    def is_own(self) -> bool:
        """Whether it is of a family that the package has not."""
        return not (self.is_mlp or self.is_transformer)

    @property
    def is_plain(self) -> bool:
        """Whether it is the transformer of Nanda et al. 2023, whatever its sizes and its number of layers."""
        return not self.differs

    @property
    def differs(self) -> str:
        """In what it differs from the transformer of Nanda et al. 2023 beside its sizes, in words; "" in nothing."""
        if not self.is_transformer:
            return self.architecture
        found = {
            f"act {self.act}": self.act not in PLAIN_ACTS,
            f"n_ctx {self.n_ctx}": self.n_ctx != N_CTX,
            f"d_head {self.d_head}": self.d_head * self.n_heads != self.d_model,
            f"{self.embeddings} embeddings": self.embeddings != "shared",
            f"unembed {self.unembed}": self.unembed != "own",
            f"normalization_type {self.normalization_type}": self.normalization_type is not None,
            f"attention_dir {self.attention_dir}": self.attention_dir != "causal",
            "attention_rate" + _said(self.attention_rate): self.has_rate,
            "dropout" + _said(self.dropout): self.has_dropout,
        }
        return ", ".join(name for name, holds in found.items() if holds)

    @property
    def is_factored(self) -> bool:
        """Whether it is a transformer whose forward pass is a function of its `tables`."""
        return self.n_layers == 1 and self.is_plain

    @property
    def has_rate(self) -> bool:
        """Whether attention is other than softmax."""
        return not (isinstance(self.attention_rate, int | float) and self.attention_rate == 1)

    @property
    def has_dropout(self) -> bool:
        """Whether training steps leave something out."""
        return not (isinstance(self.dropout, int | float) and self.dropout == 0)

    @property
    def has_equals(self) -> bool:
        """Whether "=" is a token."""
        return self.is_transformer and self.n_ctx == N_CTX

    @property
    def traced(self) -> tuple[str, ...]:
        """The config fields whose numbers every run has for itself."""
        return tuple(f"model.{name}" for name in RATES if getattr(self, name) is None)

    def has(self, name: str) -> bool:
        """Whether it has parameters of a name such as "W_pos"."""
        if self.is_own:
            return any(key.rpartition(".")[2] == name for key in families.shapes(self))
        if self.is_mlp:
            return name in ("W_in", "W_U") or (name == "W_E" and self.inputs != "one_hot")
        return name != "W_U" or self.unembed == "own"

    @property
    def d_vocab(self) -> int:
        """The P residues, twice where a transformer's embeddings are separate, and "=" where it is a token."""
        return self.p * (1 if not self.is_transformer or self.embeddings == "shared" else 2) + self.has_equals

    @property
    def d_vocab_out(self) -> int:
        """The P residues."""
        return self.p


RATES = ("attention_rate", "dropout")
ACTS = tuple(ACTIVATIONS)


def _said(rate: Any) -> str:
    return f" {rate}" if isinstance(rate, int | float) else ""


def bound(cfg: ModelConfig, numbers: Mapping[str, Any]) -> ModelConfig:
    """The shape with a run's own rates.

    Args:
      cfg: of its problem.
      numbers: by config field, such as "model.dropout"; tracers too.
    """
    if not cfg.traced:
        return cfg
    return dataclasses.replace(cfg, **{name.removeprefix("model."): numbers[name] for name in cfg.traced})
