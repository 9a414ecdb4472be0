"""Norms of the gradient and of the next update."""

from typing import Any

from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import norm

_NORM: Any = {"range": "[0, ∞)", "source": "this project"}


@measure("gradients", unit="nats", **_NORM, description="Norm of the training loss's gradient by all parameters.")
def grad_norm(s: Shared):
    return norm(s.grads.values())


@measure(
    "gradients",
    unit="1",
    **_NORM,
    needs_update=True,
    description="Norm of what the next step adds to all parameters, weight decay included; 0 at the first step of a"
    " warm-up.",
)
def update_norm(s: Shared):
    return norm(s.updates.values())
