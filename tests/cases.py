"""Models to look at: small random ones, and the reference models where they are at hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from grokjax import tasks
from grokjax.core import model
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Problem
from grokjax.measures.registry import MEASURES
from grokjax.measures.shared import Shared

# For jax.jit of what runs once or twice: compiling takes most of these tests' time, and half as much with this.
QUICK = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass(frozen=True)
class Case:
    """One model with its task and split, as NumPy arrays."""

    cfg: ModelConfig
    task: str
    params: dict[str, np.ndarray]
    train_pairs: np.ndarray
    answers: np.ndarray

    @property
    def direction(self):
        return tasks.get(self.task).direction

    @property
    def problem(self) -> Problem:
        return Problem(self.cfg, len(self.train_pairs), direction=self.direction)

    def shared(self, **more) -> Shared:
        """What measures are computed from."""
        return Shared(self.cfg, self.direction, self.params, self.train_pairs, self.answers, **more)


def random_case(p, *, task="add", seed=0, fraction=0.4, scale=1.0, **shape) -> Case:
    """A small model with random weights, biases included."""
    cfg = ModelConfig(p=p, **{"d_model": 8, "n_heads": 2, "d_mlp": 16} | shape)
    rng = np.random.default_rng(seed)
    params = {
        key: rng.normal(0, scale / np.sqrt(shape[-2] if len(shape) > 1 else 4), shape).astype(np.float32)
        for key, shape in model.shapes(cfg).items()
    }
    return Case(cfg, task, params, tasks.train_pairs(p, fraction, seed, "python"), tasks.answers(task, p, seed))


def value(name, shared: Shared) -> np.ndarray:
    """One measure."""
    return np.asarray(MEASURES[name].function(shared))


def hyperparameters(**changed) -> dict[str, np.float32]:
    """The paper's, but for those given."""
    h = {
        "learning_rate": 1e-3,
        "weight_decay": 1.0,
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-8,
        "warmup_steps": 10,
        "init_scale": 1.0,
    }
    return {name: np.float32(value) for name, value in (h | changed).items()}


REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference models beside the checkout")
REFERENCE_MODELS = ("mod113_step400", "mod113_step4000", "mod113_step10000", "released_wd0.1")


def reference_case(name) -> tuple[Case, dict]:
    """A reference model and the values listed for it."""
    arrays = dict(np.load(REFERENCE / f"{name}.npz"))
    cfg = ModelConfig()
    params = {key: arrays[key.rsplit(".", 1)[1]] for key in model.shapes(cfg)}
    case = Case(cfg, "add", params, np.flatnonzero(arrays["train_mask"]).astype(np.int32), tasks.answers("add", cfg.p))
    return case, json.loads((REFERENCE / f"{name}.json").read_text())
