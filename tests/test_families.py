"""Model families: what every one in the registry owes, and one of the user's own from its file to its measures."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grokjax
from grokjax import sweeps
from grokjax.cli import main as cli
from grokjax.cli import terminal
from grokjax.core import families, model
from grokjax.core.architecture import ModelConfig
from grokjax.errors import InputError

P, M = 7, 16


def init(cfg, key, init_scale):
    """Two embeddings as wide as there are neurons, and W_U."""
    a, b, u = jax.random.split(key, 3)
    return {
        "embed.W_E": init_scale * jax.random.normal(a, (cfg.p, cfg.d_mlp)),
        "embed_b.W_E": init_scale * jax.random.normal(b, (cfg.p, cfg.d_mlp)),
        "unembed.W_U": init_scale / cfg.d_mlp**0.5 * jax.random.normal(u, (cfg.d_mlp, cfg.p)),
    }


def times(cfg, params, pairs, key=None):
    """Neurons that are products."""
    a_BxM, b_BxM = model.spread(pairs, params["embed.W_E"], params["embed_b.W_E"])
    return (a_BxM * b_BxM) @ params["unembed.W_U"], a_BxM * b_BxM


@pytest.fixture
def registry(monkeypatch):
    """The registry with "times" in it, put back afterwards."""
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    model.register(times, init=init)
    return families.FAMILIES


@pytest.fixture(params=["transformer", "mlp", "times"])
def shape(request, registry):
    return ModelConfig(P, d_model=8, n_heads=2, d_mlp=M, architecture=request.param)


def test_the_package_s_own_are_these():
    assert set(families.FAMILIES) >= {"transformer", "mlp"}


def test_every_family_is_drawn_alike_and_scaled(shape):
    """The same key gives the same bits; init_scale multiplies all that is drawn; shapes are known beforehand."""
    params = model.init(shape, jax.random.key(3))
    again, twice = model.init(shape, jax.random.key(3)), model.init(shape, jax.random.key(3), 2.0)
    assert {name: x.shape for name, x in params.items()} == model.shapes(shape)
    assert sum(x.size for x in params.values()) == model.n_parameters(shape)
    for name, x in params.items():
        np.testing.assert_array_equal(x, again[name])
        np.testing.assert_allclose(twice[name], 2 * x, rtol=1e-6)
    assert all(shape.has(name.rpartition(".")[2]) for name in params)
    assert not shape.has("W_nothing") or shape.is_transformer


def test_every_family_answers_some_pairs_as_it_does_all(shape):
    params = model.init(shape, jax.random.key(0))
    logits_NxP, acts_NxM = model.forward_grid(shape, params)
    some = np.array([3, 11, 11, 48])
    logits_BxP, acts_BxM = model.forward(shape, params, model.lookup(jnp.asarray(some), P))
    assert (logits_NxP.shape, acts_NxM.shape) == ((P * P, P), (P * P, M))
    np.testing.assert_allclose(logits_BxP, logits_NxP[some], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(acts_BxM, acts_NxM[some], rtol=2e-5, atol=1e-6)
    assert model.neuron_to_logit(shape, params).shape == (P, M)
    assert model.token_embedding(shape, params).shape[0] == P


def test_every_family_is_differentiable_in_all_it_has(shape):
    params = model.init(shape, jax.random.key(0))
    grads = jax.grad(lambda w: jnp.sum(model.forward_grid(shape, w)[0] ** 2))(params)
    for name, x in grads.items():
        assert np.isfinite(x).all(), name
        assert np.any(np.asarray(x) != 0), name


def test_one_s_own_is_what_its_file_says(registry):
    """Against NumPy, pair by pair, and its embeddings are read side by side."""
    shape = ModelConfig(P, d_mlp=M, architecture="times")
    params = {name: np.asarray(x, float) for name, x in model.init(shape, jax.random.key(1)).items()}
    logits_NxP, _ = model.forward_grid(shape, {name: jnp.asarray(x) for name, x in params.items()})
    for a, b in ((0, 0), (2, 5), (6, 1)):
        wanted = (params["embed.W_E"][a] * params["embed_b.W_E"][b]) @ params["unembed.W_U"]
        np.testing.assert_allclose(logits_NxP[a * P + b], wanted, rtol=1e-5, atol=1e-6)
    read = model.token_embedding(shape, params)
    np.testing.assert_allclose(read, np.concatenate([params["embed.W_E"], params["embed_b.W_E"]], 1), rtol=1e-6)


BROKEN = {
    "must be [3, 7] (P 7, d_mlp 16), but it is [3, 8]": lambda c, w, p, k=None: (jnp.zeros((len(p.pairs_B), 8)),) * 2,
    "its neurons for 3 pairs must be [3, 16]": lambda c, w, p, k=None: (jnp.zeros((len(p.pairs_B), c.p)),) * 2,
    "failed with KeyError: 'W'": lambda c, w, p, k=None: w["W"],
    "failed with ValueError: not enough values": lambda c, w, p, k=None: (times(c, w, p)[0],),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_does_not_fit_is_a_sentence(said, registry):
    model.register(BROKEN[said], init=init, name="broken")
    with pytest.raises(InputError) as caught:
        families.check(ModelConfig(P, d_mlp=M, architecture="broken"))
    assert str(caught.value).startswith("model 'broken'")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("unembed.W_U", (P, M), "unembed.W_U must be [16, 7] (P 7, d_mlp 16), but it is [7, 16]."),
        ("embed.W_E", (P - 1, M), "embed.W_E must be [7 or more, X] (P 7, d_mlp 16), but it is [6, 16]."),
        ("embed.W_E", None, "embed.W_E must be [7 or more, X] (P 7, d_mlp 16), but it is not there."),
    ],
)
def test_parameters_that_measures_read_must_be_there(key, shape, said, registry):
    def lacking(cfg, rng, init_scale):
        params = init(cfg, rng, init_scale)
        del params[key]
        return params | ({key: jnp.zeros(shape)} if shape else {})

    def forward(cfg, params, pairs, rng=None):
        n = pairs.pairs_B.shape[0]
        return jnp.zeros((n, cfg.p)), jnp.zeros((n, cfg.d_mlp))

    model.register(forward, init=lacking, name="lacking")
    with pytest.raises(InputError) as caught:
        families.check(ModelConfig(P, d_mlp=M, architecture="lacking"))
    assert str(caught.value) == f"model 'lacking': {said}"


def test_names_are_known_or_refused(registry):
    with pytest.raises(InputError, match="model 'mlp' is already defined"):
        model.register(times, init=init, name="mlp")
    c = grokjax.config.small()
    c.model.architecture = "timez"
    with pytest.raises(InputError, match=r"config.model.architecture.*timez.*times"):
        sweeps.expand(c)


FILE = """
import jax
from grokjax import config
from grokjax.core import model

{init}

@model.register(init=init, name="from_file")
{forward}

def get_config(arg=""):
    c = config.small()
    c.model.architecture = "from_file"
    c.p, c.steps, c.eval_every, c.snapshot_every, c.model.d_mlp = 7, 40, 20, 20, 16
    c.measures = ("paper", "attention", "gradients", "stability")
    c.sweep.seed = (0, 1)
    return c
"""


@pytest.fixture
def directory(tmp_path, registry, monkeypatch):
    """A sweep of a family from a file, trained, and the file."""
    file = tmp_path / "mine.py"
    file.write_text(FILE.format(init=inspect.getsource(init), forward=inspect.getsource(times)))
    monkeypatch.chdir(tmp_path)
    grokjax.train(str(file), "out", quiet=True)
    return tmp_path


@pytest.mark.long
def test_a_file_s_family_is_trained_measured_and_told(directory, capsys):
    table = grokjax.read_metrics("out")
    assert table["step"].tolist() == [0, 20, 40] * 2
    held = table[table["step"] == 40]
    for name in ("train_loss", "gini_W_E", "gini_W_L", "sum_sq_W_E", "sum_sq_weights", "grad_norm", "neurons_over_85"):
        assert held[name].notna().all(), name
    for name in ("head_similarity", "sum_sq_W_Q", "sum_sq_b_in", "update_weight_cosine_W_in"):
        assert held[name].isna().all(), name
    assert (held["train_loss"].to_numpy() < table[table["step"] == 0]["train_loss"].to_numpy()).all()
    params = grokjax.open("out").params(1)
    total = sum(float(np.sum(np.asarray(x, float) ** 2)) for x in params.values())
    assert held["sum_sq_weights"].iloc[1] == pytest.approx(total, rel=1e-5)
    capsys.readouterr()
    cli.main(["measure", "out:1", "--experiment=mine.py", "--measures=paper", "--json"])
    measured = json.loads(capsys.readouterr().out)
    assert measured["gini_W_E"] == pytest.approx(float(held["gini_W_E"].iloc[1]), rel=1e-5)
    with pytest.raises(SystemExit) as stop:
        terminal.guarded(cli.main, ["export", "out:1", "x.npz"])
    assert stop.value.code == 2
    assert "is of the family 'from_file', which no other tool reads" in capsys.readouterr().err
    # Where the file is not given, results are read all the same, and models are asked for by a sentence.
    del families.FAMILIES["from_file"]
    assert grokjax.open("out").phases()["memorised"].notna().all()
    with pytest.raises(InputError, match="of a model family of its own, 'from_file': give --experiment=FILE"):
        grokjax.load_checkpoint("out:1")


@pytest.mark.long
def test_a_run_of_a_file_s_family_does_not_feel_its_neighbour(directory):
    grokjax.train("mine.py", "out", only=[1], quiet=True)
    (alone,) = map(grokjax.read_metrics, directory.glob("out/only_*"))
    both = grokjax.read_metrics("out")
    for name in ("train_loss", "gini_W_E", "sum_sq_weights"):
        assert alone[name].tolist() == both[both["run"] == 1][name].tolist()
