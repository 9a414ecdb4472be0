"""Binary operations modulo P and their train/test split.

A task is one small function of arrays `a`, `b` and the modulus `p`:

    from grokjax import tasks

    @tasks.register
    def a_plus_2b(a, b, p):
        return a + 2 * b

Pairs are numbered a * P + b everywhere in this project. Everything here is NumPy and runs once per run, before
training; the compiled step sees only the resulting integer arrays.
"""

import dataclasses
import functools
import hashlib
import inspect
import random
from collections.abc import Callable

import numpy as np

from grokjax.errors import InputError, refuse_clash, shown, unknown


@dataclasses.dataclass(frozen=True)
class Task:
    """A binary operation with what the rest of the project must know of it.

    Attributes:
      name: what `config.task` says.
      function: `(a, b, p)` or `(a, b, p, rng)`, integer arrays in, integers out (taken modulo p).
      direction: +1 if the answer depends on a + b alone, -1 if on a - b alone, None otherwise. The restricted and
        excluded losses project on functions of that sum; without one they are undefined and logged as null.
      needs_prime: whether the operation only makes sense for prime P.
    """

    name: str
    function: Callable[..., np.ndarray]
    direction: int | None = None
    needs_prime: bool = False

    @property
    def draws(self) -> bool:
        """Whether the answers are drawn (the function takes `rng`), so that they differ between split seeds."""
        return "rng" in inspect.signature(self.function).parameters


TASKS: dict[str, Task] = {}


def register(function=None, *, name: str | None = None, direction: int | None = None, needs_prime: bool = False):
    """Adds a task under its function's name, or under `name`; usable as a plain decorator or with arguments.

    Args:
      function: see `Task.function`.
      name: the name for `config.task`; the function's own by default.
      direction: see `Task.direction`.
      needs_prime: see `Task.needs_prime`.

    Returns:
      The function, unchanged.

    Raises:
      InputError: the name is taken by another function, or the direction is not +1, -1 or None.

    Example:
      >>> @register(direction=1)
      ... def double_sum(a, b, p):
      ...     return 2 * (a + b)
      >>> answers("double_sum", 3).tolist()
      [0, 2, 1, 2, 1, 0, 1, 0, 2]
    """
    if function is None:
        return lambda f: register(f, name=name, direction=direction, needs_prime=needs_prime)
    task = Task(name or function.__name__, function, direction, needs_prime)
    if direction not in (1, -1, None):
        raise InputError(f"task '{task.name}': direction is {shown(direction)}, but it must be +1, -1 or None.")
    old = TASKS.get(task.name)
    if old:
        refuse_clash(f"task '{task.name}'", old.function, function)
    TASKS[task.name] = task
    return function


@register(direction=1)
def add(a, b, p):
    """a + b mod P, the paper's task."""
    return a + b


@register(direction=-1)
def subtract(a, b, p):
    """a - b mod P."""
    return a - b


@register(needs_prime=True)
def multiply(a, b, p):
    """a * b mod P; a group on the non-zero residues when P is prime."""
    return a * b


@register
def quadratic(a, b, p):
    """a² + ab + b² mod P, the "x² + xy + y²" of the grokking literature."""
    return a * a + a * b + b * b


@register(name="random")
def random_answers(a, b, p, rng):
    """Answers drawn uniformly, once per split seed: nothing to generalise to, a control for memorization."""
    return rng.integers(0, p, a.shape)


def get(name: str) -> Task:
    """The task of that name. Raises InputError, naming the known ones, if there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def answers(name: str, p: int, seed: int = 0) -> np.ndarray:
    """The answer to every pair.

    Args:
      name: a registered task.
      p: the modulus.
      seed: the split seed; only tasks that draw their answers depend on it.

    Returns:
      int32 [P²], in [0, P), the answer to (a, b) at a * P + b.

    Raises:
      InputError: unknown task, P not prime where the task needs it, or a function that does not return one integer
        per pair, or one that is not of a + b or a - b although its direction says so.
    """
    task = get(name)
    if task.needs_prime and not is_prime(p):
        raise InputError(f"config.p is {p}, but task '{name}' needs a prime.")
    a, b = np.divmod(np.arange(p * p), p)
    rng = [np.random.default_rng(seed)] if task.draws else []
    try:
        result = np.asarray(task.function(a, b, p, *rng))
    except Exception as error:  # whatever an experiment's function may raise is the user's to mend
        raise InputError(f"task '{name}' failed with {type(error).__name__}: {error}") from error
    if result.shape != (p * p,) or not np.issubdtype(result.dtype, np.integer):
        raise InputError(
            f"task '{name}' returned {result.dtype}{list(result.shape)}, "
            f"but it must return one integer per pair, [{p * p}]."
        )
    found = (result % p).astype(np.int32)
    if task.direction and np.any(found != found[(a + task.direction * b) % p * p]):
        of, other = ("a + b", "a - b") if task.direction == 1 else ("a - b", "a + b")
        raise InputError(
            f"task '{name}' has direction={task.direction:+d}, but its answers are no function of {of} modulo {p}: "
            f"leave direction out, or give {-task.direction:+d} for a function of {other}."
        )
    return found


def check(name: str, p: int) -> None:
    """Makes sure that a task can be had modulo P; its function is called where that is quick.

    Raises:
      InputError: as for `answers`.
    """
    task = get(name)
    if p <= QUICK_P:
        _check(task, p)
    elif task.needs_prime and not is_prime(p):
        raise InputError(f"config.p is {p}, but task '{name}' needs a prime.")


QUICK_P = 1_024


@functools.lru_cache(256)
def _check(task: Task, p: int) -> None:
    answers(task.name, p)


def fingerprint(name: str, p: int) -> str:
    """A short hash of a task's answers modulo P, by which an edited function is noticed; of split seed 0.

    Raises:
      InputError: as for `answers`.
    """
    return _fingerprint(get(name), p)


@functools.lru_cache(256)
def _fingerprint(task: Task, p: int) -> str:
    return hashlib.sha256(answers(task.name, p).astype("<i4").tobytes()).hexdigest()[:16]


def n_train(p: int, fraction: float) -> int:
    """The number of training pairs: floor(fraction * P²), as in the paper's code (3 830 for P = 113 and 30 %)."""
    return int(fraction * (p * p))


@functools.lru_cache(
    512
)  # a run's split is wanted when it begins and when its keys are found, and by others of its seed
def train_pairs(p: int, fraction: float, seed: int, split: str = "jax") -> np.ndarray:
    """The training pairs of one split; every other pair is a test pair.

    Args:
      p: the modulus.
      fraction: the share of all P² pairs, in (0, 1).
      seed: the split seed.
      split: "jax" samples with jax.random; "python" shuffles with Python's `random`, exactly as the code released
        with Nanda et al. 2023 does, so that its models can be met on their own split.

    Returns:
      int32 [n_train], sorted, each a * P + b; not to be written to.
    """
    n = n_train(p, fraction)
    if split == "jax":
        import jax

        # On the host, so that a split does not depend on the accelerator.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            order = np.asarray(shuffled(seed, p))
    elif split == "python":
        pairs = list(range(p * p))
        random.Random(seed).shuffle(pairs)
        order = np.array(pairs)
    else:
        raise unknown("config.split", split, SPLITS)
    pairs_N = np.sort(order[:n]).astype(np.int32)
    pairs_N.flags.writeable = False
    return pairs_N


def shuffled(seed, p: int):
    """All P² pairs in the order in which split "jax" takes training pairs; the seed may be traced."""
    import jax

    return jax.random.permutation(jax.random.fold_in(jax.random.key(seed), 1), p * p)


SPLITS = ("jax", "python")


def is_prime(n: int) -> bool:
    """Whether n is prime, by trial division (n is a vocabulary size, so small)."""
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))
