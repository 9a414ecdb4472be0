"""Several runs in PyTorch as one: torch.func.vmap over their stacked parameters, one AdamW over the stack."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import eager
from grokjax.core.problem import Inputs, Problem


class Vmapped:
    """Runs in training that differ in seed alone: one optimizer, and so one set of hyperparameters, serves them all.

    Args:
      problem: of the runs.
      inputs: of each run, as NumPy arrays.
      params: initial parameters by TransformerLens key, stacked over runs.
      device: PyTorch's name of where to train.
    """

    def __init__(self, problem: Problem, inputs: Sequence[Inputs], params: Mapping[str, Any], device: str = "cpu"):
        data = [eager.pairs_data(problem.model.p, one.train_pairs, one.answers, device) for one in inputs]
        self.tokens_RxBxT, self.labels_RxB = (torch.stack(parts) for parts in zip(*data, strict=True))
        self.params = {
            key: torch.tensor(np.asarray(value), device=device, requires_grad=True) for key, value in params.items()
        }
        model = eager.Transformer(problem.model).to("meta")
        self.optimizer, self.schedule = eager.adamw(self.params.values(), inputs[0].hyperparameters)
        self.device = torch.device(device)

        def loss(params, tokens_BxT, labels_B):
            return F.cross_entropy(functional_call(model, params, tokens_BxT), labels_B)

        self._losses = vmap(loss)

    def losses(self) -> torch.Tensor:
        """Each run's training loss in nats, [runs]."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no rule for vmap
            return self._losses(self.params, self.tokens_RxBxT, self.labels_RxB)

    def train(self, n_steps: int) -> None:
        """Steps of all runs, and waits until they are done."""
        for _ in range(n_steps):
            self.optimizer.zero_grad()
            self.losses().sum().backward()  # each run's parameters meet only their own loss
            self.optimizer.step()
            self.schedule.step()
        eager.wait(self.device)
