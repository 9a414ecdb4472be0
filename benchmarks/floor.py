"""What no program goes below here that takes each pair through the model's matrices: operations at the machine's rate.

The operations are those of one run's three largest products, one position per pair: 3 (forward, two gradients) × 2 ×
pairs × (d_model·d_mlp + d_mlp·d_model + d_model·P), or a step's bytes at the machine's bandwidth, if that takes
longer. XLA's factored step folds W_out into W_U and so needs a little less; the C++ of grokjax.core.native has one of
these products left, d_mlp·P. The bytes are those of parameters and both moments, read and written once. Rate and
bandwidth are measured in the same process and rounds as what is compared with them; the rate is the best of a large
square and these shapes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Contestant
from grokjax.core import model
from grokjax.core.precision import unemulated
from grokjax.core.problem import Problem

BANDWIDTH = "bandwidth"


def step_flop(problem: Problem) -> int:
    """Operations of one run's step."""
    return 3 * forward_flop(problem)


def forward_flop(problem: Problem) -> int:
    """Operations of one run's forward pass."""
    cfg = problem.model
    return 2 * problem.n_train * (2 * cfg.d_model * cfg.d_mlp + cfg.d_model * cfg.p)


def step_bytes(problem: Problem) -> int:
    """Bytes of one run's float32 parameters and both moments, read and written."""
    return 2 * 3 * 4 * sum(int(np.prod(shape)) for shape in model.shapes(problem.model).values())


def seconds(problem: Problem, rate: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """The floor in seconds per run-step of each round.

    Args:
      problem: whose step.
      rate: FLOP per second of each round.
      bandwidth: bytes per second of each round.
    """
    return np.maximum(step_flop(problem) / rate, step_bytes(problem) / bandwidth)


def contestants(problem: Problem, square: int, side_by_side: int) -> list[Contestant]:
    """What measures JAX's rates in the problem's precision, and the bandwidth.

    Args:
      problem: whose shapes.
      square: size of the large square.
      side_by_side: runs whose products of these shapes are done together.
    """
    name, cfg = problem.precision, problem.model
    sizes = [(problem.n_train, cfg.d_model), (cfg.d_model, cfg.d_mlp), (cfg.d_mlp, cfg.d_model), (cfg.d_model, cfg.p)]
    factors = [jnp.ones((side_by_side, *shape)) / 100 for shape in sizes]
    work = float(side_by_side * forward_flop(problem))
    x = jnp.ones(16 * square**2)
    found = [
        squares(name, square),
        Contestant(f"shapes_{name}", f"{name} products", _products(name, factors), work=work),
        Contestant(BANDWIDTH, "bandwidth", _repeated(jax.jit(lambda x: x + 1), x), work=2.0 * x.nbytes),
    ]
    for contestant in found:
        contestant.advance(1)
    return found


def squares(precision: str, size: int) -> Contestant:
    """What measures the rate of one large square product."""
    factors = jax.random.normal(jax.random.key(0), (2, size, size))
    return Contestant(f"square_{precision}", f"{precision} squares", _products(precision, factors), work=2.0 * size**3)


def _products(precision: str, factors) -> Callable[[int], None]:
    """Multiplies the factors one after another, with nothing between them."""

    def multiply(first, *others):
        for other in others:
            first = first @ other
        return first

    return _repeated(jax.jit(unemulated(multiply, precision)), *factors)


def _repeated(function: Callable, *args) -> Callable[[int], None]:
    def repeat(n_times: int) -> None:
        for _ in range(n_times):
            result = function(*args)
        result.block_until_ready()

    return repeat
