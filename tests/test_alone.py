"""One run as a pure function, beside the runs of sweeps and under the user's own jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import long_but

import grokjax
from grokjax import config as config_lib
from grokjax import sweeps, tasks
from grokjax.config import FIELDS, TRACED
from grokjax.core import optimizers
from grokjax.core.problem import HYPERPARAMETERS
from grokjax.errors import InputError
from grokjax.store.snapshots import load_params
from grokjax.training import alone, layouts

# Two values of each traced field, in a run short enough for each to matter.
VALUES = {
    "seed": (0, 5),
    "split_seed": (1, 2),
    "label_noise": (0.5, 0.2),
    "init_scale": (1.0, 0.5),
    "learning_rate": (1e-2, 3e-3),
    "weight_decay": (1.0, 0.1),
    "beta1": (0.9, 0.5),
    "beta2": (0.98, 0.9),
    "eps": (1e-8, 1e-3),
    "muon_beta": (0.95, 0.5),
    "muon_learning_rate": (0.02, 0.01),
    "grokfast_alpha": (0.98, 0.5),
    "grokfast_lamb": (2.0, 0.0),
    "l1": (1e-3, 1e-1),
    "l2": (1e-3, 1e-1),
    "schedule_end": (0.0, 0.5),
    "warmup_steps": (10, 3),
    "steps": (40, 20),
    "stop_loss": (0.0, 1e9),
    "stop_evals": (3, 1),
    "model.attention_rate": (0.2, 0.7),
    "model.dropout": (0.1, 0.4),
}


def one_config():
    c = tiny.get_config()
    c.steps = 40
    c.sweep.seed = c.sweep.weight_decay = None
    return c


def all_in_use():
    """A config in which every traced field matters."""
    c = one_config()
    c.task, c.optimizer, c.gradient_transform, c.schedule = "random", "muon", "grokfast", "cosine"
    return c


RATES = {"model.attention_rate": 0.5, "model.dropout": 0.5}


def same(one, other, rtol=0.0):
    for key in one:
        np.testing.assert_allclose(np.asarray(one[key]), np.asarray(other[key]), rtol=rtol, atol=rtol, err_msg=key)


def test_every_traced_field_is_one_of_its_arguments():
    assert set(VALUES) == set(alone.NAMES) == {path for path, field in FIELDS.items() if field.kind == TRACED}
    assert set(HYPERPARAMETERS) < set(VALUES)
    every = sweeps.Run(0, config_lib.flat(all_in_use()) | {"l1": 1.0, "l2": 1.0, **RATES}).problem()
    assert set(optimizers.hyperparameters(every)) == set(VALUES) - (ONE - {"steps", "init_scale"}) - {"label_noise"}


@pytest.mark.parametrize("split", long_but([], ["jax", "python"], exhaustive=["python"]))
def test_any_field_may_be_a_tracer(split):
    """All of them at once, against the same numbers given as numbers, one run at a time."""
    c = all_in_use()
    c.split = split
    # So few steps that rounding, in which programs differ, does not grow: L1's gradient jumps where a weight crosses 0.
    values = VALUES | {"steps": (12, 6)}
    traced = {name: jnp.asarray(both) for name, both in values.items()}

    @jax.jit
    @jax.vmap
    def trained(fields):
        return grokjax.train_one(c, **fields)

    both = trained(traced)
    for i in range(2):
        numbers = {name: value[i] for name, value in values.items()}
        one = grokjax.train_one(c, **numbers)
        run = {key: x[i] for key, x in both.params.items()}
        same(one.params, run, rtol=1e-5)
        np.testing.assert_array_equal(one.inputs.train_pairs, both.inputs.train_pairs[i])
        np.testing.assert_array_equal(one.inputs.train_pairs, tasks.train_pairs(7, 0.6, numbers["split_seed"], split))
        answers = tasks.answers("random", 7, numbers["split_seed"])
        np.testing.assert_array_equal(both.inputs.task_answers[i], answers)
        np.testing.assert_array_equal(one.inputs.answers, both.inputs.answers[i])
        assert 0 < np.sum(np.asarray(one.inputs.answers) != answers) <= round(numbers["label_noise"] * 29)


ONE = {"seed", "split_seed", "stop_loss", "stop_evals", "steps", "init_scale"}  # looked at in the mainline's config


@pytest.mark.parametrize("name", long_but(["seed", "learning_rate", "stop_loss", "steps"], sorted(VALUES)))
def test_each_field_matters(name):
    """A tracer that went nowhere would pass a comparison with numbers that went nowhere."""
    first, second = VALUES[name]
    with_stop = {"stop_evals": {"stop_loss": 1e9}, "stop_loss": {"stop_evals": 1}}.get(name, {})
    c = all_in_use() if name not in ONE else one_config()
    one, other = (grokjax.train_one(c, **with_stop, **{name: value}) for value in (first, second))
    assert any(bool(jnp.any(one.params[key] != other.params[key])) for key in one.params)


@pytest.mark.parametrize("nonzero_b", [False, True])
@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_a_traced_seed_splits_as_a_number_does(seed, nonzero_b):
    values = {"p": 11, "train_fraction": 0.3, "split": "jax"}
    train_pairs = jax.jit(lambda seed: alone._train_pairs(values, nonzero_b, seed))(jnp.uint32(seed))
    np.testing.assert_array_equal(train_pairs, tasks.train_pairs(11, 0.3, seed, nonzero_b=nonzero_b))


@pytest.mark.long
def test_at_equal_width_it_is_the_run_of_a_sweep(tmp_path, monkeypatch):
    """Seeds × λ under the user's own vmap, against a sweep whose runs train under one vmap of that width."""
    c = tiny.get_config()
    c.steps = 60
    seeds, decays = (0, 1), (0.0, 1.0)
    monkeypatch.setattr(layouts, "choose", lambda problem, n_runs, *_, **__: layouts.together(problem, n_runs))
    monkeypatch.setattr(layouts, "on_cpu", lambda device: False)
    status, said = tiny.train(c, tmp_path / "sweep")
    assert status == 0, said
    decay_R, seed_R = (jnp.asarray(x).ravel() for x in np.meshgrid(decays, seeds, indexing="ij"))
    train = jax.jit(jax.vmap(lambda seed, decay: grokjax.train_one(c, seed=seed, weight_decay=decay)))
    state = train(seed_R, decay_R)
    for run in range(4):
        same(load_params(tmp_path / "sweep", run), {key: x[run] for key, x in state.params.items()}, rtol=1e-5)


def test_the_stop_rule_ends_it_where_a_sweep_does(tmp_path):
    c = one_config()
    c.stop_loss, c.stop_evals, c.steps = 1e9, 2, 100
    status, said = tiny.train(c, tmp_path / "stopped")
    assert status == 0, said
    assert grokjax.read_runs(tmp_path / "stopped")["last_step"].tolist() == [20]
    stopped = grokjax.train_one(c)
    same(stopped.params, grokjax.train_one(c, stop_loss=0.0, steps=20).params, rtol=1e-6)
    same(stopped.params, load_params(tmp_path / "stopped", 0), rtol=1e-3)
    assert int(stopped.below) == 2


def test_two_calls_are_one_compilation():
    c = one_config()
    grokjax.train_one(c, seed=3, steps=20)
    before = alone._through._cache_size()
    grokjax.train_one(c, seed=4, steps=40, weight_decay=0.3, beta1=0.5)
    assert alone._through._cache_size() == before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weight_decy": 1.0}, "field 'weight_decy' is unknown: did you mean 'weight_decay'"),
        ({"p": 11}, r"p shapes arrays or chooses code, so it is the config's: set config\.p"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, but it must be"),
        ({"seed": np.arange(3)}, r"seed is an array of shape \(3,\), but one run has one number: use jax\.vmap"),
        ({"beta1": 1.5}, r"beta1 is 1\.5, but it must be in \[0, 1\)"),
    ],
)
def test_bad_fields_are_told(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        grokjax.train_one(one_config(), **fields)
