"""The transformer against its slow definition, and the factored forward against the transformer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import QUICK, random_case
from tiers import long_but

from grokjax.core import losses, model
from grokjax.core import pairs as pairs_lib
from grokjax.core.model import ModelConfig

SHAPES = [
    {"p": 5, "n_heads": 1},
    {"p": 12, "d_model": 16, "n_heads": 4, "d_mlp": 32, "act": "gelu"},
    {"p": 31, "d_model": 32, "n_heads": 2, "d_mlp": 20},
]
MAINLINE = {"p": 113, "d_model": 128, "n_heads": 4, "d_mlp": 512}


compiled = functools.partial(jax.jit, compiler_options=QUICK)
init, token_by_token, factored, forward = (
    compiled(f, static_argnums=0) for f in (model.init, model.token_by_token, model.factored, model.forward)
)


def name(shape):
    return "-".join(map(str, shape.values()))


def some_pairs(p, n, seed=0):
    """Pairs in no order, as no training set would have them."""
    return np.random.default_rng(seed).permutation(p * p)[:n].astype(np.int32)


def relative_error(got, expected):
    """The largest difference, relative to the largest value: an entry near 0 is a difference of large ones."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return np.max(np.abs(got - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("n_layers", [1, 2])
def test_parameters_have_transformer_lens_keys_and_axes(n_layers):
    cfg = ModelConfig(p=7, n_layers=n_layers, d_model=12, n_heads=3, d_mlp=20)
    expected = {"embed.W_E": (8, 12), "pos_embed.W_pos": (3, 12), "unembed.W_U": (12, 7)}
    for layer in range(n_layers):
        attn, mlp = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        expected |= {attn + "W_Q": (3, 12, 4), attn + "W_K": (3, 12, 4), attn + "W_V": (3, 12, 4)}
        expected |= {attn + "W_O": (3, 4, 12), mlp + "W_in": (12, 20), mlp + "b_in": (20,)}
        expected |= {mlp + "W_out": (20, 12), mlp + "b_out": (12,)}
    assert model.shapes(cfg) == expected


INITIAL = ModelConfig(p=96, d_model=128, n_heads=4, d_mlp=256)


@pytest.mark.parametrize("init_scale", [1.0, 2.5])
def test_initial_values_are_normal_with_the_paper_s_deviations(init_scale):
    params = init(INITIAL, jax.random.key(3), init_scale)
    assert {key: value.shape for key, value in params.items()} == model.shapes(INITIAL)
    for key, value in params.items():
        assert value.dtype == np.float32
        value, short = np.asarray(value, np.float64), key.rsplit(".", 1)[1]
        if short in ("b_in", "b_out"):
            assert np.all(value == 0)
            continue
        deviation = init_scale / np.sqrt(97 if short == "W_U" else 128)
        noise = 4 / np.sqrt(value.size)
        assert np.std(value) == pytest.approx(deviation, rel=noise), key
        assert abs(np.mean(value)) < noise * deviation, key
        assert np.mean(value**4) / np.mean(value**2) ** 2 == pytest.approx(3, abs=8 * noise), key


def test_initial_values_depend_on_the_key_alone_and_differ_between_parameters():
    one, same, other = (init(INITIAL, jax.random.key(seed), 1.0) for seed in (1, 1, 2))
    for key in one:
        assert np.array_equal(one[key], same[key])
        assert np.array_equal(one[key], other[key]) == key.endswith(("b_in", "b_out"))
    W_Q, W_K, W_V = (np.ravel(one[f"blocks.0.attn.{which}"]) for which in ("W_Q", "W_K", "W_V"))
    for left, right in ((W_Q, W_K), (W_K, W_V), (W_Q, W_V)):
        assert abs(np.corrcoef(left, right)[0, 1]) < 5 / np.sqrt(len(left))


def test_tokens_are_a_b_and_equals():
    p = 5
    expected = [[a, b, p] for a in range(p) for b in range(p)]
    assert model.tokens(jnp.arange(p * p), p).tolist() == expected


@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_token_by_token_is_the_definition(shape):
    case = random_case(**shape)
    pairs = some_pairs(case.cfg.p, 20)
    logits, acts = token_by_token(case.cfg, case.params, model.lookup(pairs, case.cfg.p))
    expected_logits, expected_acts = oracle.forward(case.params, pairs, case.cfg.act)
    assert relative_error(logits, expected_logits) < 2e-6
    assert relative_error(acts, expected_acts) < 2e-6


@pytest.mark.parametrize(("n_layers", "act"), [(2, "relu"), (3, "gelu")])
def test_more_layers_are_the_definition(n_layers, act):
    case = random_case(7, n_layers=n_layers, act=act)
    pairs = some_pairs(7, 49)
    expected_logits, expected_acts = oracle.forward(case.params, pairs, act)
    logits, acts = forward(case.cfg, case.params, model.lookup(pairs, 7))
    assert relative_error(logits, expected_logits) < 5e-6
    assert relative_error(acts, expected_acts) < 5e-6
    # The last layer matters: a definition that stopped one short would be told apart.
    shorter = {key: value for key, value in case.params.items() if f"blocks.{n_layers - 1}" not in key}
    assert relative_error(logits, oracle.forward(shorter, pairs, act)[0]) > 0.01


@functools.partial(compiled, static_argnums=(0, 1))
def everything(cfg, forward, params, pairs, answers):
    """The training loss, logits and activations on the way, and the gradient of every parameter."""

    def loss(params):
        logits, acts = forward(cfg, params, pairs)
        return jnp.mean(losses.cross_entropy(logits, answers)), (logits, acts)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return value, *aux, grads


@functools.partial(compiled, static_argnums=0)
def by_the_definition(cfg, params, pairs_B, answers, active_BxM):
    """Logits of one layer, token by token, and the gradient of every parameter, in the precision of `params`.

    ReLU's slope jumps at 0, and rounding decides on which side a neuron falls that is 0 but for rounding. So the
    neurons that pass are given; the MLPs of the other positions, which pass the same, reach no logit.
    """

    def loss(params):
        net = model.module(cfg, params)
        if cfg.act == "relu":
            net.blocks[0].mlp.act = lambda x_BxTxM: jnp.where(active_BxM[:, None], x_BxTxM, 0)
        logits = net(model.tokens(pairs_B, cfg.p))
        return jnp.mean(losses.cross_entropy(logits, answers)), logits

    (_, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return logits, grads


def check_both_forms(case, n_pairs):
    """Loss, logits, activations and gradients, factored (with pairs last too) and token by token, are those of float64.

    5e-6 for each of the three, so that any two agree within 1e-5.
    """
    pairs_B = some_pairs(case.cfg.p, n_pairs)
    answers = case.answers[pairs_B]
    expected_logits, expected_acts = oracle.forward(case.params, pairs_B, case.cfg.act)
    expected_loss = oracle.mean_loss(expected_logits, answers)
    exact = {key: value.astype(np.float64) for key, value in case.params.items()}
    for form, pairs_last in ((model.factored, False), (model.factored, True), (model.token_by_token, False)):
        pairs = model.lookup(pairs_B, case.cfg.p, pairs_last)
        loss, logits, acts, grads = everything(case.cfg, form, case.params, pairs, answers)
        assert float(loss) == pytest.approx(expected_loss, rel=5e-6)
        assert relative_error(logits, expected_logits) < 5e-6
        assert relative_error(acts, expected_acts) < 5e-6
        with jax.enable_x64(True):
            given_logits, expected = by_the_definition(case.cfg, exact, pairs_B, answers, np.asarray(acts) > 0)
        # Neurons that pass here and not in float64, or the reverse, are 0 but for rounding.
        assert relative_error(given_logits, expected_logits) < 1e-6
        assert grads.keys() == expected.keys() == case.params.keys()
        for key in grads:
            assert expected[key].dtype == np.float64
            assert np.max(np.abs(expected[key])) > 0, key
            assert relative_error(grads[key], expected[key]) < 5e-6, (form.__name__, pairs_last, key)


@pytest.mark.parametrize("shape", long_but(SHAPES[:1], SHAPES))
def test_factored_equals_token_by_token(shape):
    case = random_case(**shape)
    check_both_forms(case, case.cfg.p**2 // 2)


@pytest.mark.long
def test_factored_equals_token_by_token_in_the_mainline_s_shape():
    check_both_forms(random_case(**MAINLINE), 600)


def test_factored_equals_token_by_token_on_a_trained_model(training_run):
    check_both_forms(training_run[300], 300)


def test_gradients_with_pairs_last_are_those_of_rows():
    """The same algebra: in float64, in the mainline's shape. `check_both_forms` has what float32 makes of each."""
    case = random_case(**MAINLINE)
    pairs_B = some_pairs(113, 600)
    exact = {key: value.astype(np.float64) for key, value in case.params.items()}
    with jax.enable_x64(True):
        rows, last = (
            everything(case.cfg, model.factored, exact, model.lookup(pairs_B, 113, pairs_last), case.answers[pairs_B])
            for pairs_last in (False, True)
        )
    for key in case.params:
        assert relative_error(last[3][key], rows[3][key]) < 1e-12, key


@pytest.mark.parametrize("pairs_last", [False, True])
def test_factored_in_float64_is_token_by_token(pairs_last):
    with jax.enable_x64(True):
        case = random_case(12, d_model=16, n_heads=4, d_mlp=32, act="gelu")
        params = {key: jnp.asarray(value, float) for key, value in case.params.items()}
        pairs_B, answers = some_pairs(12, 100), case.answers[some_pairs(12, 100)]
        found = everything(case.cfg, model.factored, params, model.lookup(pairs_B, 12, pairs_last), answers)
        expected = everything(case.cfg, model.token_by_token, params, model.lookup(pairs_B, 12), answers)
        for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert relative_error(got, wanted) < 1e-12


def test_gradient_is_that_of_the_definition():
    """Along random directions, by central differences in float64."""
    case = random_case(5, act="gelu")  # smooth, so that differences converge
    pairs = some_pairs(5, 15)
    answers = case.answers[pairs]
    grads = everything(case.cfg, model.factored, case.params, model.lookup(pairs, 5), answers)[3]
    rng = np.random.default_rng(0)
    for key, value in case.params.items():
        direction = rng.normal(size=value.shape)

        def loss(step, key=key, direction=direction):
            moved = case.params | {key: case.params[key].astype(np.float64) + step * direction}
            return oracle.mean_loss(oracle.forward(moved, pairs, "gelu")[0], answers)

        slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
        assert np.sum(np.asarray(grads[key], np.float64) * direction) == pytest.approx(slope, rel=1e-4, abs=1e-6), key


def test_gradient_through_lookup_is_that_of_plain_indexing():
    p = 7
    pairs_B = np.array([0, 3, 3, 8, 48, 15, 15, 15], np.int32)  # some twice: gradients must add up
    pairs = model.lookup(jnp.asarray(pairs_B), p)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, p, 6)).astype(np.float32)
    weights_a, weights_b = rng.normal(size=(2, len(pairs_B), 6)).astype(np.float32)

    def through_lookup(a, b):
        rows_a, rows_b = pairs_lib.spread(pairs, a, b)
        return jnp.sum(jnp.sin(rows_a) * weights_a) + jnp.sum(jnp.cos(rows_b) * weights_b)

    def by_indexing(a, b):
        return jnp.sum(jnp.sin(a[pairs_B // p]) * weights_a) + jnp.sum(jnp.cos(b[pairs_B % p]) * weights_b)

    for got, expected in zip(jax.grad(through_lookup, (0, 1))(a, b), jax.grad(by_indexing, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("act", "pairs_last"), long_but([("relu", True)], [("relu", False), ("gelu", False), ("relu", True)])
)
def test_second_derivatives_are_those_of_token_by_token(act, pairs_last):
    """A Hessian times a vector, forward over reverse, as the curvature measures take it."""
    with jax.enable_x64(True):
        case = random_case(7, d_model=8, n_heads=2, d_mlp=12, act=act)
        params = {key: jnp.asarray(value, float) for key, value in case.params.items()}
        rng = np.random.default_rng(1)
        direction = {key: jnp.asarray(rng.normal(size=value.shape)) for key, value in params.items()}
        pairs = model.lookup(jnp.asarray(some_pairs(7, 30)), 7, pairs_last)
        answers = jnp.asarray(case.answers)[pairs.pairs_B]

        @functools.partial(compiled, static_argnums=0)
        def curved(forward, params, direction):
            def loss(params):
                return jnp.mean(losses.cross_entropy(forward(case.cfg, params, pairs)[0], answers))

            return jax.jvp(jax.grad(loss), (params,), (direction,))[1]

        found, expected = (curved(f, params, direction) for f in (model.factored, model.token_by_token))
        for key in params:
            assert relative_error(found[key], expected[key]) < 1e-11, key


def test_no_scatter_in_the_gradient():
    """The gradient holds no scatter-add, whose order of addition is not fixed on every device."""
    for shape in ({"p": 5}, {"p": 5, "n_layers": 2}):
        case = random_case(**shape)
        pairs = model.lookup(some_pairs(5, 10), 5)
        answers = case.answers[pairs.pairs_B]

        def loss(params, cfg=case.cfg, pairs=pairs, answers=answers):
            return jnp.mean(losses.cross_entropy(model.forward(cfg, params, pairs)[0], answers))

        program = str(jax.make_jaxpr(jax.grad(loss))(case.params))
        assert "dot_general" in program
        assert "scatter" not in program


def test_pairs_last_gathers_nothing():
    """Neither forward nor backward: on a TPU a gather is slow."""
    case = random_case(5)

    def program(pairs_last):
        pairs = model.lookup(some_pairs(5, 10), 5, pairs_last)
        answers = jnp.asarray(case.answers)[pairs.pairs_B]

        def loss(params):
            return jnp.mean(losses.cross_entropy(model.forward(case.cfg, params, pairs)[0], answers))

        return str(jax.make_jaxpr(jax.grad(loss))(case.params))

    assert "gather" in program(False)
    assert "gather" not in program(True)


@pytest.mark.parametrize("pairs_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES[:2], ids=name)
def test_grid_is_lookup_of_all_pairs(shape, pairs_last):
    case = random_case(**shape)
    p = case.cfg.p
    for got, expected in zip(
        factored(case.cfg, case.params, model.grid(p, pairs_last)),
        factored(case.cfg, case.params, model.lookup(jnp.arange(p * p), p)),
        strict=True,
    ):
        assert relative_error(got, expected) < 2e-6
    assert (
        relative_error(
            factored(case.cfg, case.params, model.grid(p, pairs_last))[0], oracle.all_logits(case.params, case.cfg.act)
        )
        < 5e-6
    )


@pytest.mark.parametrize("pairs_last", [False, True])
def test_attention_from_tables_is_the_definition_s_pattern(pairs_last):
    case = random_case(11, d_model=12, n_heads=3)
    pattern, z = model.attend(case.cfg, model.tables(case.cfg, case.params), model.grid(11, pairs_last))
    assert pattern.shape == (121, 3, 3)
    np.testing.assert_allclose(np.sum(pattern, 2), 1, rtol=1e-6)
    weights = {key: value.astype(np.float64) for key, value in case.params.items()}
    a, b = np.divmod(np.arange(121), 11)
    x = [weights["embed.W_E"][t] + weights["pos_embed.W_pos"][i] for i, t in enumerate((a, b, np.full(121, 11)))]
    attn = {which: weights[f"blocks.0.attn.{which}"] for which in ("W_Q", "W_K", "W_V", "W_O")}
    for head in range(3):
        expected = oracle.attention_pattern(attn, x, 2, head)
        np.testing.assert_allclose(pattern[:, head], expected, atol=1e-6)
        expected_z = sum(expected[:, i, None] * (x[i] @ attn["W_V"][head]) for i in range(3))
        np.testing.assert_allclose(z[:, head], expected_z, atol=1e-5)


def test_attention_is_causal():
    case = random_case(7, n_layers=2)
    net = model.module(case.cfg, case.params)

    @compiled
    @functools.partial(jax.vmap, in_axes=(0, None))
    def reach(position, x):
        """How strongly what stands at each position depends on each position's input."""

        def at(x):
            for block in net.blocks:
                x = block(x)
            return jnp.sum(x[0, position] ** 2)

        return jnp.max(jnp.abs(jax.grad(at)(x)[0]), 1)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, case.cfg.d_model)), jnp.float32)
    assert np.array_equal(reach(jnp.arange(3), x) > 0, np.tril(np.ones((3, 3), bool)))


def test_order_of_a_and_b_is_seen():
    case = random_case(7)
    logits = np.asarray(factored(case.cfg, case.params, model.grid(7))[0]).reshape(7, 7, 7)
    assert np.max(np.abs(logits - logits.transpose(1, 0, 2))) > 0.01


@pytest.mark.parametrize("n_layers", [1, 3])
def test_module_and_flatten_are_inverse(n_layers):
    case = random_case(5, n_layers=n_layers)
    net = model.module(case.cfg, case.params)
    assert len(net.blocks) == n_layers
    back = model.flatten(net)
    assert back.keys() == case.params.keys()
    for key, value in back.items():
        assert np.array_equal(value, case.params[key]), key
    pairs = some_pairs(5, 10)
    logits = compiled(lambda tokens: net(tokens))(model.tokens(jnp.asarray(pairs), 5))
    assert relative_error(logits, oracle.forward(case.params, pairs)[0]) < 5e-6


def test_neuron_to_logit():
    for n_layers in (1, 2):
        case = random_case(7, n_layers=n_layers)
        W_L = model.neuron_to_logit(case.cfg, case.params)
        assert W_L.shape == (7, case.cfg.d_mlp)
        assert relative_error(W_L, oracle.neuron_to_logit(case.params)) < 1e-6
