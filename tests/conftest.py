"""Models that several tests look at, and how hypothesis runs. Test modules import `oracle` from this folder."""

import gc
import os
from pathlib import Path

# Before JAX is imported. Programs compiled by one test serve the others, and the processes that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Most optimizations take longer than programs run here. With 0 in their place, as CI has it on one Python, tests see
# programs as a user does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What tiny sweeps took is not for the user's own plans.
os.environ.setdefault("XDG_CACHE_HOME", str(Path(__file__).parent.parent / ".pytest_cache" / "home"))

import hypothesis
import jax
import numpy as np
import pytest
import tiny
from cases import QUICK, Case, hyperparameters

from grokjax import tasks, waiting
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Inputs, Problem
from grokjax.training import one_run

pytest.register_assert_rewrite("commands", "foreign")  # their asserts say what differs, as a test's do

# The same examples every time: a failure can be repeated, and a passing suite stays passing.
hypothesis.settings.register_profile("grokjax", derandomize=True, deadline=None, max_examples=40, database=None)
hypothesis.settings.load_profile("grokjax")


@pytest.fixture(scope="session")
def training_run() -> dict[int, Case]:
    """A model that learns addition modulo 23, by step: 0, 300 (memorised), 2000 (grokked, train loss near 4e-8)."""
    cfg = ModelConfig(p=23, d_model=32, n_heads=2, d_mlp=128)
    problem = Problem(cfg, n_train=tasks.n_train(23, 0.6))
    inputs = Inputs(
        seed=np.uint32(0),
        hyperparameters=hyperparameters(learning_rate=5e-3),
        train_pairs=tasks.train_pairs(23, 0.6, 0),
        answers=tasks.answers("add", 23),
    )
    state = jax.jit(lambda inputs: one_run.init(problem, inputs), compiler_options=QUICK)(inputs)
    train = jax.jit(lambda state, n: one_run.train(problem, state, n))
    found, done = {}, 0
    for step in (0, 300, 2000):
        state, done = train(state, step - done), step
        params = {key: np.asarray(value) for key, value in state.params.items()}
        found[step] = Case(cfg, "add", params, inputs.train_pairs, inputs.answers)
    return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished tiny sweep with the paper's measures, and what was printed."""
    path = tmp_path_factory.mktemp("sweep") / "tiny"
    return path, tiny.train(tiny.get_config("paper"), path)[1]


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Lets go of compiled programs: each takes some of the 65,530 mappings of memory that Linux allows a process, and
    one that has them all is killed.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 15_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch):
    """Where the machine is busy, commands say what they are doing beside what a test expects: not here."""
    monkeypatch.setattr(waiting, "SLOW_SECONDS", 1e6)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")
