"""Binary operations on P numbers, most of them modulo P, and their train/test split.

A task is one small function of arrays `a`, `b` and the modulus `p`:

    from grokjax import tasks

    @tasks.register
    def a_plus_2b(a, b, p):
        return a + 2 * b

Beside the tasks that are registered there are two kinds that names make: "group S_5", the composition of a finite group
(`config.task` "group" with `config.group` "S_5"), and polynomials such as "a^2 + a*b + b^2".

Pairs are numbered a * P + b everywhere in this project. Everything here is NumPy and runs once per run, before
training; the compiled step sees only the resulting integer arrays.
"""

import dataclasses
import functools
import hashlib
import inspect
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from grokjax import finite_groups
from grokjax.errors import InputError, refuse_clash, shown, unknown
from grokjax.finite_groups import Group
from grokjax.polynomials import looks_like_one, polynomial


@dataclasses.dataclass(frozen=True)
class Task:
    """A binary operation with what the rest of the project must know of it.

    Attributes:
      name: what `config.task` says.
      function: `(a, b, p)` or `(a, b, p, rng)`, integer arrays in, integers out (taken modulo p).
      direction: +1 if the answer depends on a + b alone, -1 if on a - b alone, None otherwise. The restricted and
        excluded losses project on functions of that sum; without one they are undefined and logged as null.
      needs_prime: whether the operation only makes sense for prime P.
      nonzero_b: whether pairs with b = 0 have no answer, so that they are neither trained on, tested on nor measured.
      group: whose composition this is; P is its order.
    """

    name: str
    function: Callable[..., np.ndarray]
    direction: int | None = None
    needs_prime: bool = False
    nonzero_b: bool = False
    group: Group | None = None

    def direction_at(self, p: int) -> int | None:
        """The direction modulo P, or that of multiplication among its units: of a polynomial found from its answers."""
        if self.name in UNITS:
            return UNITS[self.name]
        return self.direction if self.name in TASKS or self.group else _direction_found(self, p)

    def read_by(self, p: int) -> str | None:
        """The name of the group by whose blocks the task is read; None where it is by frequencies of Z_P.

        Multiplication and division are read in the group of the non-zero residues modulo P.
        """
        if self.name in UNITS and TASKS.get(self.name) is self:
            return units(p)
        return self.group.name if self.group and not self.group.is_addition else None

    @property
    def draws(self) -> bool:
        """Whether the answers are drawn (the function takes `rng`), so that they differ between split seeds."""
        return "rng" in inspect.signature(self.function).parameters


TASKS: dict[str, Task] = {}
UNITS = {"multiply": 1, "divide": -1}  # tasks on the non-zero residues modulo a prime, with their direction


def units(p: int) -> str:
    """The name of the group of the non-zero residues modulo a prime under multiplication."""
    return f"units of Z_{p}"


GROUP = "group"  # config.task of a group's composition


def register(
    function=None,
    *,
    name: str | None = None,
    direction: int | None = None,
    needs_prime: bool = False,
    nonzero_b: bool = False,
):
    """Adds a task under its function's name, or under `name`; usable as a plain decorator or with arguments.

    Args:
      function: see `Task.function`.
      name: the name for `config.task`; the function's own by default.
      direction: see `Task.direction`.
      needs_prime: see `Task.needs_prime`.
      nonzero_b: see `Task.nonzero_b`.

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
        return functools.partial(register, name=name, direction=direction, needs_prime=needs_prime, nonzero_b=nonzero_b)
    task = Task(name or function.__name__, function, direction, needs_prime, nonzero_b)
    if task.name.split(" ")[0] == GROUP:
        raise InputError(f"task '{task.name}': the name is that of groups' composition, so choose another.")
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


@register(needs_prime=True, nonzero_b=True)
def divide(a, b, p):
    """a / b mod P, that is a times the inverse of b; pairs with b = 0 are left out."""
    inverses = np.array([0] + [pow(x, -1, p) for x in range(1, p)])
    return a * inverses[b]


@register
def quadratic(a, b, p):
    """a² + ab + b² mod P, the "x² + xy + y²" of the grokking literature."""
    return a * a + a * b + b * b


@register(name="random")
def random_answers(a, b, p, rng):
    """Answers drawn uniformly, once per split seed: nothing to generalise to, a control for memorization."""
    return rng.integers(0, p, a.shape)


def get(name: str) -> Task:
    """The task of that name: one that is registered, "group S_5", or a polynomial.

    Raises:
      InputError: there is none; names the known ones, or says what is wrong.
    """
    if name in TASKS:
        return TASKS[name]
    if name.startswith(f"{GROUP} "):
        return _group_task(name)
    if looks_like_one(name):
        return _polynomial_task(name)
    raise unknown("task", name, [*TASKS, GROUP])


def of(values: Mapping[str, Any]) -> Task:
    """The task of a run, of which these are the fields by dotted path."""
    return get(name_of(values))


def name_of(values: Mapping[str, Any]) -> str:
    """The name of a run's task: config.task, of a group with the group, such as "group S_5"."""
    return f"{GROUP} {values['group']}" if values["task"] == GROUP else values["task"]


def said(name: str, p: int) -> str:
    """A task in words: "add mod 113", "group S_5 (120 elements)"."""
    return f"{name} ({p} elements)" if name.startswith(f"{GROUP} ") else f"{name} mod {p}"


def is_known(name: str) -> bool:
    """Whether a task can be had by this name, or by others' code alone."""
    return name in TASKS or name.split(" ")[0] == GROUP or looks_like_one(name)


@functools.lru_cache(64)
def _group_task(name: str) -> Task:
    group = finite_groups.named(name.removeprefix(f"{GROUP} "))
    return Task(name, lambda a, b, p: group.table[a, b], 1 if group.is_addition else None, group=group)


@functools.lru_cache(64)
def _polynomial_task(name: str) -> Task:
    return Task(name, polynomial(name))


@functools.lru_cache(64)
def _direction_found(task: Task, p: int) -> int | None:
    a, b = np.divmod(np.arange(p * p), p)
    found = answers(task, p)
    return next((d for d in (1, -1) if np.array_equal(found, found[(a + d * b) % p * p])), None)


def answers(task: str | Task, p: int, seed: int = 0) -> np.ndarray:
    """The answer to every pair.

    Args:
      task: or its name.
      p: the modulus, or the order of the task's group.
      seed: the split seed; only tasks that draw their answers depend on it.

    Returns:
      int32 [P²], in [0, P), the answer to (a, b) at a * P + b; 0 for pairs that the task leaves out.

    Raises:
      InputError: unknown task, P not prime or not the group's order where the task needs it, or a function that does
        not return one integer per pair, or one that is not of a + b or a - b although its direction says so.
    """
    task = get(task) if isinstance(task, str) else task
    name = task.name
    _refuse_modulus(task, p)
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


def check(task: str | Task, p: int) -> None:
    """Makes sure that a task can be had modulo P; its function is called where that is quick.

    Raises:
      InputError: as for `answers`.
    """
    task = get(task) if isinstance(task, str) else task
    _refuse_modulus(task, p)
    if p <= QUICK_P:
        _check(task, p)


def _refuse_modulus(task: Task, p: int) -> None:
    if task.needs_prime and not is_prime(p):
        raise InputError(f"config.p is {p}, but task '{task.name}' needs a prime.")
    if task.group and task.group.order != p:
        raise InputError(f"config.p is {p}, but {task.name} has {task.group.order} elements.")


QUICK_P = 1_024


@functools.lru_cache(256)
def _check(task: Task, p: int) -> None:
    answers(task, p)


def fingerprint(name: str, p: int) -> str:
    """A short hash of a task's answers modulo P, by which an edited function is noticed; of split seed 0.

    Raises:
      InputError: as for `answers`.
    """
    return _fingerprint(get(name), p)


@functools.lru_cache(256)
def _fingerprint(task: Task, p: int) -> str:
    return hashlib.sha256(answers(task, p).astype("<i4").tobytes()).hexdigest()[:16]


def n_pairs(p: int, nonzero_b: bool = False) -> int:
    """The number of pairs: P², or P(P - 1) without those whose b is 0."""
    return p * (p - nonzero_b)


def n_train(p: int, fraction: float, nonzero_b: bool = False) -> int:
    """The number of training pairs: floor(fraction * P²), as in the paper's code (3 830 for P = 113 and 30 %)."""
    return int(fraction * n_pairs(p, nonzero_b))


@functools.lru_cache(
    512
)  # a run's split is wanted when it begins and when its keys are found, and by others of its seed
def train_pairs(p: int, fraction: float, seed: int, split: str = "jax", nonzero_b: bool = False) -> np.ndarray:
    """The training pairs of one split; every other pair is a test pair.

    Args:
      p: the modulus.
      fraction: the share of all pairs, in (0, 1).
      seed: the split seed.
      split: "jax" samples with jax.random; "python" shuffles with Python's `random`, exactly as the code released
        with Nanda et al. 2023 does, so that its models can be met on their own split.
      nonzero_b: whether pairs with b = 0 are left out, the others keeping the order in which they are drawn.

    Returns:
      int32 [n_train], sorted, each a * P + b; not to be written to.
    """
    n = n_train(p, fraction, nonzero_b)
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
    order = order[order % p != 0] if nonzero_b else order
    pairs_N = np.sort(order[:n]).astype(np.int32)
    pairs_N.flags.writeable = False
    return pairs_N


def shuffled(seed, p: int, nonzero_b: bool = False):
    """All P² pairs as split "jax" takes training pairs, in order, those left out last; the seed may be traced."""
    import jax
    import jax.numpy as jnp

    order = jax.random.permutation(jax.random.fold_in(jax.random.key(seed), 1), p * p)
    return order[jnp.argsort(order % p == 0, stable=True)] if nonzero_b else order


SPLITS = ("jax", "python")


def is_prime(n: int) -> bool:
    """Whether n is prime, by trial division (n is a vocabulary size, so small)."""
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))
