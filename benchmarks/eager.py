"""The same model and training step in plain PyTorch, as one writes it: what grokjax is compared with.

Parameters have TransformerLens's names and axes, as grokjax's have. The input is a, b, "=" and all three positions pass
through the block; only the last is unembedded. An MLP reads one-hot tokens. The loss is PyTorch's own float32
cross-entropy. Size letters as in `grokjax.core.model`: B batch, T position (3), D d_model, H heads, E d_head, P
residues.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from grokjax.core.model import ModelConfig
from grokjax.core.problem import Inputs, Problem

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}

Params = Mapping[str, Tensor]  # by TransformerLens key


def logits(cfg: ModelConfig, params: Params, tokens_BxT: Tensor) -> Tensor:
    """Logits above "=": int [B, 3] to [B, P]; of an MLP from one-hot a and b, float [B, 2 P]."""
    if cfg.is_mlp:
        x = tokens_BxT
        for layer in range(cfg.n_layers):
            x = ACTIVATIONS[cfg.act](x @ params[f"blocks.{layer}.mlp.W_in"])
        return x @ params["unembed.W_U"]
    x_BxTxD = F.embedding(tokens_BxT, params["embed.W_E"]) + params["pos_embed.W_pos"]
    for layer in range(cfg.n_layers):
        x_BxTxD = x_BxTxD + _attention(params, f"blocks.{layer}.attn.", x_BxTxD)
        x_BxTxD = x_BxTxD + _mlp(params, f"blocks.{layer}.mlp.", ACTIVATIONS[cfg.act], x_BxTxD)
    return x_BxTxD[:, -1] @ params["unembed.W_U"]


def _attention(params: Params, at: str, x_BxTxD: Tensor) -> Tensor:
    """Causal attention without biases; scores are divided by √d_head."""
    q, k, v = (torch.einsum("btd,hde->bhte", x_BxTxD, params[at + name]) for name in ("W_Q", "W_K", "W_V"))
    z_BxHxTxE = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return torch.einsum("bhte,hed->btd", z_BxHxTxE, params[at + "W_O"])


def _mlp(params: Params, at: str, act: Callable[[Tensor], Tensor], x_BxTxD: Tensor) -> Tensor:
    """One hidden layer with biases."""
    acts = act(x_BxTxD @ params[at + "W_in"] + params[at + "b_in"])
    return acts @ params[at + "W_out"] + params[at + "b_out"]


class Training:
    """One run: a model, its AdamW with warm-up, and its data.

    Args:
      problem: of the run; its optimizer must be adamw.
      inputs: of the run, as NumPy arrays.
      params: initial parameters, by TransformerLens key.
      device: PyTorch's name of where to train.
      batches: the first epoch's, if steps are to see batches; later epochs shuffle by PyTorch.
    """

    def __init__(
        self,
        problem: Problem,
        inputs: Inputs,
        params: Mapping[str, Any],
        device: str = "cpu",
        batches: Sequence[np.ndarray] = (),
    ):
        if problem.optimizer != "adamw":
            raise ValueError(f"optimizer is '{problem.optimizer}', but only adamw is written here.")
        self.cfg, self.device = problem.model, torch.device(device)
        self.params = {
            key: torch.tensor(np.asarray(value), device=device, requires_grad=True) for key, value in params.items()
        }
        self.optimizer, self.schedule = adamw(list(self.params.values()), inputs.hyperparameters)
        p = problem.model.p
        test_pairs = np.setdiff1d(np.arange(p * p), inputs.train_pairs)
        self.train_data, self.test_data = (
            pairs_data(p, pairs, inputs.answers, device, self.cfg.is_mlp) for pairs in (inputs.train_pairs, test_pairs)
        )
        first = (pairs_data(p, pairs, inputs.answers, device, self.cfg.is_mlp) for pairs in batches)
        self._batches = self._shuffled(problem.batch_size, first)

    def loss(self, data: tuple[Tensor, Tensor]) -> Tensor:
        """The mean loss over some pairs in nats."""
        tokens_BxT, labels_B = data
        return F.cross_entropy(logits(self.cfg, self.params, tokens_BxT), labels_B)

    def evaluate(self, data: tuple[Tensor, Tensor]) -> float:
        """The same without gradients."""
        with torch.no_grad():
            return self.loss(data).item()

    def step(self) -> Tensor:
        """One training step; returns the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(next(self._batches))
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss

    def _shuffled(self, size: int, first: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """What each step sees: all training pairs if `size` is 0, else batches of `first`, then of shuffled pairs."""
        yield from first
        tokens_BxT, labels_B = self.train_data
        while not size:
            yield self.train_data
        while True:
            for taken in torch.randperm(len(labels_B), device=self.device).split(size):
                yield tokens_BxT[taken], labels_B[taken]

    def train(self, n_steps: int) -> None:
        """Steps, and waits until they are done."""
        for _ in range(n_steps):
            self.step()
        wait(self.device)

    def train_and_test(self, n_steps: int) -> list[tuple[float, float]]:
        """Steps that each end with the test loss, as the paper's loop does; returns train and test losses."""
        return [(self.step().item(), self.evaluate(self.test_data)) for _ in range(n_steps)]


def pairs_data(
    p: int, pairs_B: np.ndarray, answers: np.ndarray, device: str, one_hot: bool = False
) -> tuple[Tensor, Tensor]:
    """Tokens [B, 3], or one-hot a and b [B, 2 P], and answers [B] of some pairs."""
    tokens_BxT = np.stack([pairs_B // p, pairs_B % p, np.full_like(pairs_B, p)], 1)
    if one_hot:
        tokens_BxT = np.eye(p, dtype=np.float32)[tokens_BxT[:, :2]].reshape(len(pairs_B), 2 * p)
    return torch.tensor(tokens_BxT).to(device), torch.tensor(answers[pairs_B], dtype=torch.long, device=device)


def adamw(parameters: Sequence[Tensor], hyperparameters: Mapping[str, Any]):
    """AdamW with grokjax's hyperparameters, and the schedule that warms it up."""
    h = {name: float(value) for name, value in hyperparameters.items()}
    betas = (h["beta1"], h["beta2"])
    optimizer = torch.optim.AdamW(parameters, h["learning_rate"], betas, h["eps"], h["weight_decay"])
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
