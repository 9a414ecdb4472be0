"""The losses that one can train on: each against its published formula, and the way from config.loss into a run."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import tiny
from tiers import long_but

import grokjax
from grokjax import sweeps
from grokjax.core import backends, losses, model
from grokjax.errors import InputError
from grokjax.training import layouts

N, C = 32, 13
FORMATS = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
NAIVE = {f"cross_entropy_{name}": dtype for name, dtype in FORMATS.items()}


def some(margin=0.0, seed=0, scale=3.0):
    """Float32 logits with the right one raised by `margin`, and labels."""
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.normal(size=(N, C)), rng.integers(0, C, N)
    logits[np.arange(N), labels] += margin
    return logits.astype(np.float32), labels.astype(np.int32)


@pytest.fixture(params=losses.LOSSES)
def name(request):
    return request.param


def loss_and_gradient(name, logits, labels):
    loss, back = jax.vjp(lambda x: losses.get(name)(x, labels), jnp.asarray(logits))
    return loss, back(jnp.ones_like(loss))[0]


# --- every loss ------------------------------------------------------------------------------------------------------


def test_one_number_per_example_of_the_logits_dtype(name):
    logits, labels = some()
    for loss, gradient in (loss_and_gradient(name, logits, labels),):
        assert loss.shape == (N,)
        assert gradient.shape == (N, C)
        assert loss.dtype == gradient.dtype == np.float32
        assert np.all(loss >= 0)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("margin", [-30.0, 0.0, 30.0, 200.0])
def test_finite_at_any_margin(name, margin):
    logits, labels = some(margin)
    loss, gradient = loss_and_gradient(name, logits, labels)
    assert np.all(np.isfinite(loss))
    assert np.all(np.isfinite(gradient))


def test_the_right_logit_is_pulled_up_and_the_classes_are_alike(name):
    logits, labels = some(seed=3, scale=0.3)
    loss, gradient = loss_and_gradient(name, logits, labels)
    assert np.all(np.take_along_axis(np.asarray(gradient), labels[:, None], 1) < 0)
    order = np.random.default_rng(1).permutation(C)
    turned, _ = loss_and_gradient(name, logits[:, order], np.argsort(order)[labels].astype(np.int32))
    np.testing.assert_allclose(turned, loss, rtol=2e-2 if "float16" in name else 1e-5)


def test_same_under_jit_and_vmap(name):
    logits, labels = some(2.0)
    alone = losses.get(name)(logits, labels)
    together = jax.jit(jax.vmap(losses.get(name)))(logits.reshape(4, -1, C), labels.reshape(4, -1))
    np.testing.assert_allclose(together.ravel(), alone, rtol=1e-2 if "float16" in name else 2e-6)


@pytest.mark.parametrize("other", ["cross_entropy", "stablemax", "mse"])
def test_gradients_are_the_derivatives_in_float64(other):
    with jax.enable_x64(True):
        logits, labels = some(1.0)
        logits = logits.astype(np.float64)
        gradient = loss_and_gradient(other, logits, labels)[1]
        step = 1e-6 * np.random.default_rng(2).normal(size=logits.shape)
        up, down = (losses.get(other)(jnp.asarray(logits + sign * step), labels) for sign in (1, -1))
        assert gradient.dtype == up.dtype == np.float64
        np.testing.assert_allclose(np.sum(gradient * step, 1), (up - down) / 2, rtol=1e-6, atol=1e-14)


# --- against their formulas ------------------------------------------------------------------------------------------


def naive(logits, labels, dtype):
    """Log-softmax and its gradient in NumPy's own arithmetic of a format; sums in float32."""
    z = logits.astype(dtype)
    z = z - z.max(1, keepdims=True)
    total = np.exp(z).astype(np.float32).sum(1).astype(dtype)
    log = z - np.log(total)[:, None]
    right = np.eye(C)[labels].astype(dtype)
    return -(log * right).sum(1), np.exp(log) - right


@pytest.mark.parametrize("margin", [0.0, 6.0, 15.0, 30.0])
@pytest.mark.parametrize("name", NAIVE)
def test_rounding_is_that_of_the_format(name, margin):
    logits, labels = some(margin, scale=1.0)
    for got, wanted in zip(loss_and_gradient(name, logits, labels), naive(logits, labels, NAIVE[name]), strict=True):
        wanted = wanted.astype(np.float64)
        ulp = float(ml_dtypes.finfo(NAIVE[name]).eps)
        np.testing.assert_allclose(got, wanted, rtol=2 * ulp, atol=2 * ulp)
        if name != "cross_entropy_float32":  # where the exponentials' own last bit is seen
            assert np.mean(np.asarray(got) == wanted) > 0.97


@pytest.mark.parametrize("name", NAIVE)
def test_softmax_collapses_where_the_sum_absorbs_the_others(name):
    """Of a pair that is right by the margin the format's sum is 1, so that its loss and its pull are exactly 0."""
    margin = {"cross_entropy_float32": 20, "cross_entropy_bfloat16": 8.5, "cross_entropy_float16": 12}[name]
    logits = np.zeros((1, C), np.float32)
    logits[0, 4] = margin
    loss, gradient = loss_and_gradient(name, logits, np.array([4]))
    assert float(loss[0]) == 0
    assert float(gradient[0, 4]) == 0
    exact, pull = loss_and_gradient("cross_entropy", logits, np.array([4]))
    assert float(exact[0]) > 0
    assert float(pull[0, 4]) < 0
    logits[0, 4] = margin / 2
    assert float(loss_and_gradient(name, logits, np.array([4]))[1][0, 4]) < 0


def test_naive_float32_is_optax_s():
    logits, labels = some(3.0)
    loss, gradient = loss_and_gradient("cross_entropy_float32", logits, labels)
    usual, usual_gradient = jax.vjp(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels), logits)
    np.testing.assert_allclose(loss, usual, atol=1e-6)
    np.testing.assert_allclose(gradient, usual_gradient(jnp.ones_like(usual))[0], atol=1e-6)


@pytest.mark.parametrize("margin", [-50.0, 0.0, 50.0, 1e6])
def test_stablemax_is_the_paper_s(margin):
    """As released with Prieto et al. 2025, in long double: s(x), then -log of the right one's share."""
    logits, labels = some(margin)
    x = logits.astype(np.longdouble)
    s = np.where(x < 0, 1 / (1 - np.minimum(x, 0)), x + 1)
    right = s[np.arange(N), labels]
    wanted = np.log1p((s.sum(1) - right) / right)
    np.testing.assert_allclose(losses.stablemax(logits, labels), wanted.astype(float), rtol=3e-6)


def test_mse_is_pytorch_s():
    logits, labels = some()
    wanted = np.mean((logits.astype(np.float64) - np.eye(C)[labels]) ** 2)
    np.testing.assert_allclose(np.mean(losses.mse(logits, labels)), wanted, rtol=1e-6)


# --- names of one's own ----------------------------------------------------------------------------------------------


def test_register_refuses_a_name_that_is_taken_and_get_names_the_known(monkeypatch):
    monkeypatch.setattr(losses, "LOSSES", dict(losses.LOSSES))

    @losses.register(name="halved")
    def half(logits_BxC, labels_B):
        return losses.cross_entropy(logits_BxC, labels_B) / 2

    assert losses.get("halved") is half
    with pytest.raises(InputError, match="loss 'mse' is already defined in"):
        losses.register(half, name="mse")
    with pytest.raises(InputError, match="loss 'cross_entropy_float16' is already defined"):
        losses.register(jax.jit(half), name="cross_entropy_float16")
    with pytest.raises(InputError, match=r"config.loss 'mze' is unknown: did you mean 'mse'\?"):
        losses.get("mze")


# --- from config.loss into a run -------------------------------------------------------------------------------------


def one_run(name, **fields):
    c = tiny.get_config()
    c.loss, c.steps = name, 40
    c.sweep.seed = c.sweep.weight_decay = None
    c.update(fields)
    return c


def problem_of(c):
    return sweeps.expand(c).runs[0].problem()


def test_only_the_exact_one_is_served_by_the_c_plus_plus(name):
    problem = problem_of(one_run(name, model={"d_model": 16}))
    wanted = backends.unsuited(problem)
    assert ("loss cross_entropy" in wanted) == (name != "cross_entropy")
    layout = layouts.choose(problem, 1)
    assert layout.backend.n_parts == 0 or name == "cross_entropy"


@pytest.mark.parametrize("name", long_but(["cross_entropy", "mse"], [*losses.LOSSES]))
def test_every_loss_is_what_a_run_descends(name):
    """A step of plain SGD from the same weights, against the gradient of that loss by JAX."""
    c = one_run(name, optimizer="sgd", warmup_steps=0, weight_decay=0.0, beta1=0.0, learning_rate=1.0)
    start, after = grokjax.train_one(c, learning_rate=0.0, steps=1), grokjax.train_one(c, steps=1)
    problem = problem_of(c)
    pairs, labels = backends.batch(problem, start.inputs)

    def loss(params):
        return jnp.mean(losses.get(name)(model.token_by_token(problem.model, params, pairs)[0], labels))

    gradient = jax.grad(loss)(start.params)
    for key, before in start.params.items():
        scale = float(jnp.max(jnp.abs(gradient[key]))) + 1e-6
        rtol = 3e-2 if name[-3:] == "t16" else 1e-4
        np.testing.assert_allclose(before - after.params[key], gradient[key], atol=rtol * scale, err_msg=key)


@pytest.mark.parametrize("name", long_but(["cross_entropy"], [*losses.LOSSES]))
def test_blocks_of_pairs_give_the_same_gradient(name):
    c = one_run(name)
    problem = problem_of(c)
    state = grokjax.train_one(c, steps=2)
    whole, parts = (
        backends.gradient(problem, state.params, backends.blocks(problem, state.inputs, size)) for size in (0, 9)
    )
    for key in whole:
        np.testing.assert_allclose(whole[key], parts[key], rtol=1e-4, atol=2e-4 if name[-3:] == "t16" else 1e-7)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*hardly better than a guess")  # after so few steps
def test_a_sweep_over_losses_logs_the_exact_one_and_the_objective(tmp_path):
    c = one_run("cross_entropy")
    c.sweep.loss = ("cross_entropy", "mse", "stablemax")
    status, said = tiny.train(c, tmp_path)
    assert status == 0, said
    assert "in 3 compiled groups" in said
    frame = grokjax.read_metrics(tmp_path)
    last = frame[frame.step == 40].set_index("loss")
    for kind in ("train", "test"):
        np.testing.assert_allclose(last[f"{kind}_objective"]["cross_entropy"], last[f"{kind}_loss"]["cross_entropy"])
        assert abs(last[f"{kind}_objective"]["mse"] - last[f"{kind}_loss"]["mse"]) > 0.1
    params = grokjax.load_params(tmp_path, 1)
    problem, inputs = (lambda run: (run.problem(), run.inputs()))(sweeps.expand(c).runs[1])
    objective = float(backends.loss(problem, params, *backends.batch(problem, inputs)))
    np.testing.assert_allclose(last["train_objective"]["mse"], objective, rtol=1e-5)
    measured = grokjax.measure(f"{tmp_path}:1", groups=("objective",))
    np.testing.assert_allclose(measured["train_objective"], objective, rtol=1e-5)


def test_the_mainline_has_no_such_columns(tmp_path):
    status, said = tiny.train(one_run("cross_entropy"), tmp_path)
    assert status == 0, said
    assert "train_objective" not in grokjax.read_metrics(tmp_path)


def test_an_unknown_loss_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"config.loss 'stable_max' is unknown: did you mean 'stablemax'\?"):
        tiny.train(one_run("stable_max"), tmp_path / "there")
    assert not (tmp_path / "there").exists()
