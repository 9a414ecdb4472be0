"""What no program goes below here that takes each pair through the model's matrices: operations at the machine's rate.

The operations are those of one run's three largest products, one position per pair: 3 (forward, two gradients) × 2 ×
pairs × (d_model·d_mlp + d_mlp·d_model + d_model·P), or a step's bytes at the machine's bandwidth, if that takes
longer. XLA's factored step folds W_out into W_U and so needs a little less; the C++ of grokjax.native has one of
these products left, d_mlp·P. The bytes are those of parameters and both moments, read and written once. Rate and
bandwidth are measured in the same process and rounds as what is compared with them; the rate is the best of a large
square and these shapes.
"""

import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Contestant
from grokjax.core import model
from grokjax.core.problem import Problem

# What a precision's name asks of JAX. On GPUs only these name the emulations outright.
PRECISIONS = {
    "float32": "float32",
    "tensorfloat32": "TF32_TF32_F32",
    "bfloat16_3x": "BF16_BF16_F32_X3",
    "bfloat16_6x": "BF16_BF16_F32_X6",
}
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


def seconds(problem: Problem, rates: Mapping[str, np.ndarray], bandwidth: np.ndarray) -> dict[str, np.ndarray]:
    """The floor in seconds per run-step of each round, by precision.

    Args:
      problem: whose step.
      rates: FLOP per second of each round, by precision.
      bandwidth: bytes per second of each round.
    """
    moved = step_bytes(problem) / bandwidth
    return {precision: np.maximum(step_flop(problem) / rate, moved) for precision, rate in rates.items()}


def contestants(problem: Problem, precisions: Iterable[str], square: int, side_by_side: int) -> list[Contestant]:
    """What measures JAX's rates and the bandwidth.

    Args:
      problem: whose shapes.
      precisions: of the products.
      square: size of the large square.
      side_by_side: runs whose products of these shapes are done together.
    """
    found = []
    for name in precisions:
        big = _repeated(_product(name), *jax.random.normal(jax.random.key(0), (2, square, square)))
        found.append(Contestant(f"square_{name}", f"{name} squares", big, precision=name, work=2.0 * square**3))
        shaped = _repeated(_forward(name), *_forward_arguments(problem, side_by_side))
        work = float(side_by_side * forward_flop(problem))
        found.append(Contestant(f"shapes_{name}", f"{name} products", shaped, precision=name, work=work))
    x = jnp.ones(16 * square**2)
    found.append(Contestant(BANDWIDTH, "bandwidth", _repeated(jax.jit(lambda x: x + 1), x), work=2.0 * x.nbytes))
    for contestant in found:
        contestant.advance(1)
    return found


def _repeated(function: Callable, *args) -> Callable[[int], None]:
    def repeat(n_times: int) -> None:
        for _ in range(n_times):
            result = function(*args)
        result.block_until_ready()

    return repeat


@functools.cache
def _product(precision: str):
    def multiply(a, b):
        with jax.default_matmul_precision(PRECISIONS[precision]):
            return a @ b

    return jax.jit(multiply)


@functools.cache
def _forward(precision: str):
    """Products of a forward pass with nothing between them, for several runs."""

    def multiply(x_RxBxD, W_in, W_out, W_U):
        with jax.default_matmul_precision(PRECISIONS[precision]):
            return x_RxBxD @ W_in @ W_out @ W_U

    return jax.jit(multiply)


def _forward_arguments(problem: Problem, n_runs: int) -> list[jax.Array]:
    cfg = problem.model
    shapes = [(problem.n_train, cfg.d_model), (cfg.d_model, cfg.d_mlp), (cfg.d_mlp, cfg.d_model), (cfg.d_model, cfg.p)]
    keys = jax.random.split(jax.random.key(1), len(shapes))
    return [jax.random.normal(key, (n_runs, *shape)) for key, shape in zip(keys, shapes, strict=True)]
