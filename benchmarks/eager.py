"""The same model and training step in plain PyTorch, as one writes it: what grokjax is compared with.

Parameters have TransformerLens's names and axes, so that a grokjax parameter dict is a state dict of this module. The
input is a, b, "=" and all three positions pass through the block; only the last is unembedded. The loss is PyTorch's
own float32 cross-entropy. Size letters as in `grokjax.model`: B batch, T position (3), D d_model, H heads, E d_head, P
residues.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokjax.core.model import N_CTX, ModelConfig
from grokjax.core.problem import Inputs, Problem

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


class Embed(nn.Module):
    """Token embedding."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.W_E = _empty(cfg.d_vocab, cfg.d_model)

    def forward(self, tokens_BxT: Tensor) -> Tensor:
        return F.embedding(tokens_BxT, self.W_E)


class PosEmbed(nn.Module):
    """Learned positions."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.W_pos = _empty(N_CTX, cfg.d_model)


class Attention(nn.Module):
    """Causal attention without biases; scores are divided by √d_head."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        to_head = (cfg.n_heads, cfg.d_model, cfg.d_head)
        self.W_Q, self.W_K, self.W_V = _empty(*to_head), _empty(*to_head), _empty(*to_head)
        self.W_O = _empty(cfg.n_heads, cfg.d_head, cfg.d_model)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,hde->bhte", x_BxTxD, W) for W in (self.W_Q, self.W_K, self.W_V))
        z_BxHxTxE = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.einsum("bhte,hed->btd", z_BxHxTxE, self.W_O)


class MLP(nn.Module):
    """One hidden layer with biases."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.act = ACTIVATIONS[cfg.act]
        self.W_in, self.b_in = _empty(cfg.d_model, cfg.d_mlp), _empty(cfg.d_mlp)
        self.W_out, self.b_out = _empty(cfg.d_mlp, cfg.d_model), _empty(cfg.d_model)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        return self.act(x_BxTxD @ self.W_in + self.b_in) @ self.W_out + self.b_out


class Block(nn.Module):
    """Attention, then the MLP, each added to the residual stream."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.attn, self.mlp = Attention(cfg), MLP(cfg)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        x_BxTxD = x_BxTxD + self.attn(x_BxTxD)
        return x_BxTxD + self.mlp(x_BxTxD)


class Unembed(nn.Module):
    """Logits over the P residues."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.W_U = _empty(cfg.d_model, cfg.d_vocab_out)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W_U


class Transformer(nn.Module):
    """The model, token by token; its parameters are to be loaded."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.embed, self.pos_embed = Embed(cfg), PosEmbed(cfg)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.unembed = Unembed(cfg)

    def forward(self, tokens_BxT: Tensor) -> Tensor:
        """Logits above "=": int [B, 3] to [B, P]."""
        x_BxTxD = self.embed(tokens_BxT) + self.pos_embed.W_pos
        for block in self.blocks:
            x_BxTxD = block(x_BxTxD)
        return self.unembed(x_BxTxD[:, -1])


class Training:
    """One run: a model, its AdamW with warm-up, and its data.

    Args:
      problem: of the run; its optimizer must be adamw.
      inputs: of the run, as NumPy arrays.
      params: initial parameters, by TransformerLens key.
      device: PyTorch's name of where to train.
      compiled: whether forward pass, loss and their gradients go through torch.compile.
    """

    def __init__(
        self,
        problem: Problem,
        inputs: Inputs,
        params: Mapping[str, Any],
        device: str = "cpu",
        compiled: bool = False,
    ):
        if problem.optimizer != "adamw":
            raise ValueError(f"optimizer is '{problem.optimizer}', but only adamw is written here.")
        self.device, p = torch.device(device), problem.model.p
        self.model = Transformer(problem.model)
        self.model.load_state_dict({key: torch.tensor(np.asarray(value)) for key, value in params.items()})
        self.model.to(self.device)
        self.train_data = pairs_data(p, inputs.train_pairs, inputs.answers, device)
        self.test_data = pairs_data(p, np.setdiff1d(np.arange(p * p), inputs.train_pairs), inputs.answers, device)
        self.optimizer, self.schedule = adamw(self.model.parameters(), inputs.hyperparameters)
        self._loss = torch.compile(self._cross_entropy) if compiled else self._cross_entropy

    def _cross_entropy(self, tokens_BxT: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(self.model(tokens_BxT), labels_B)

    def loss(self, data: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy over some pairs, in nats."""
        return self._loss(*data)

    def evaluate(self, data: tuple[Tensor, Tensor]) -> float:
        """`loss` without gradients."""
        with torch.no_grad():
            return self.loss(data).item()

    def step(self) -> Tensor:
        """One full-batch training step; returns the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(self.train_data)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss

    def train(self, n_steps: int) -> None:
        """Steps, and waits until they are done."""
        for _ in range(n_steps):
            self.step()
        wait(self.device)

    def train_and_test(self, n_steps: int) -> list[tuple[float, float]]:
        """Steps that each end with the test loss, as the paper's loop does; returns train and test losses."""
        return [(self.step().item(), self.evaluate(self.test_data)) for _ in range(n_steps)]


def pairs_data(p: int, pairs_B: np.ndarray, answers: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Tokens [B, 3] and answers [B] of some pairs."""
    tokens_BxT = np.stack([pairs_B // p, pairs_B % p, np.full_like(pairs_B, p)], 1)
    return (
        torch.tensor(tokens_BxT, dtype=torch.long, device=device),
        torch.tensor(answers[pairs_B], dtype=torch.long, device=device),
    )


def adamw(parameters: Iterable[Tensor], hyperparameters: Mapping[str, Any]):
    """AdamW with grokjax's hyperparameters, and the schedule that warms it up."""
    h = {name: float(value) for name, value in hyperparameters.items()}
    optimizer = torch.optim.AdamW(
        parameters,
        lr=h["learning_rate"],
        betas=(h["beta1"], h["beta2"]),
        eps=h["eps"],
        weight_decay=h["weight_decay"],
    )
    warmup_steps = h["warmup_steps"]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(step / warmup_steps, 1.0) if warmup_steps else 1.0
    )


def wait(device: torch.device) -> None:
    """Returns when the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul(n: int, device: str = "cpu") -> Callable[[int], None]:
    """A function that multiplies two float32 [n, n] matrices so many times and waits."""
    a, b = torch.randn(2, n, n, device=device)

    def multiply(n_times: int) -> None:
        for _ in range(n_times):
            a @ b
        wait(a.device)

    return multiply


def in_tensorfloat32(function: Callable[[int], Any]) -> Callable[[int], Any]:
    """The function with TF32 allowed in PyTorch's products, for as long as it runs."""

    def advance(n_steps: int):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return function(n_steps)
        finally:
            torch.set_float32_matmul_precision(before)

    return advance
