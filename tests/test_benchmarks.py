"""What benchmarks/ compares must be the same model, loss and optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import QUICK

from benchmarks import step
from grokjax import config, model, optimizers, sweeps, training
from grokjax.model import ModelConfig
from grokjax.sweeps import Run

TRAIN = jax.jit(training.train, static_argnums=0, compiler_options=QUICK)


def tiny_runs() -> tuple[Run, ...]:
    c = config.default()
    c.p = 7
    c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
    c.sweep.seed = (0, 1)
    return sweeps.expand(c).runs


def random_params(cfg: ModelConfig, seed: int = 0) -> model.Params:
    """Parameters of the usual size, biases too, so that they matter."""
    draw = np.random.default_rng(seed)
    return {
        key: jnp.asarray(draw.normal(size=shape) / np.sqrt(cfg.d_model), "float32")
        for key, shape in model.shapes(cfg).items()
    }


def started(run: Run) -> training.State:
    """The run before its first step, from random parameters."""
    inputs = jax.tree.map(jnp.asarray, run.inputs())
    params = random_params(run.problem().model, run.run)
    return training.State(params, optimizers.adamw(inputs.hyperparameters).init(params), inputs)


def in_pytorch(run: Run, params):
    pytest.importorskip("torch")
    from benchmarks import eager

    return eager.Training(run.problem(), run.inputs(), params)


@pytest.mark.parametrize(("n_layers", "act"), [(1, "relu"), (1, "gelu"), (2, "relu")])
def test_logits_agree_with_pytorch(n_layers, act):
    torch = pytest.importorskip("torch")
    from benchmarks import eager

    cfg = ModelConfig(p=7, n_layers=n_layers, d_model=8, n_heads=2, d_mlp=16, act=act)
    params = random_params(cfg)
    net = eager.Transformer(cfg)
    net.load_state_dict({key: torch.tensor(np.asarray(value)) for key, value in params.items()})
    pairs_N = jnp.arange(49)
    with torch.no_grad():
        theirs = net(torch.tensor(np.asarray(model.tokens(pairs_N, 7)), dtype=torch.long)).numpy()
    ours, _ = jax.jit(model.forward, static_argnums=0, compiler_options=QUICK)(cfg, params, model.lookup(pairs_N, 7))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_gradients_agree_with_pytorch():
    run = tiny_runs()[0]
    state = started(run)
    theirs = in_pytorch(run, state.params)
    loss = theirs.loss(theirs.train_data)
    loss.backward()
    batch = training.batch(run.problem(), run.inputs())
    value_and_grad = jax.jit(jax.value_and_grad(training.loss, 1), static_argnums=0, compiler_options=QUICK)
    ours, grads = value_and_grad(run.problem(), state.params, *batch)
    assert float(ours) == pytest.approx(loss.item(), rel=1e-6)
    for key, parameter in theirs.model.named_parameters():
        np.testing.assert_allclose(grads[key], parameter.grad, rtol=1e-4, atol=1e-6, err_msg=key)


def test_training_agrees_with_pytorch_beyond_the_warm_up():
    run = tiny_runs()[0]
    state = started(run)
    theirs = in_pytorch(run, state.params)
    theirs.train(15)
    ours = TRAIN(run.problem(), state, 15)
    for key, parameter in theirs.model.named_parameters():
        np.testing.assert_allclose(ours.params[key], parameter.detach(), atol=2e-5, err_msg=key)
        assert np.abs(ours.params[key] - state.params[key]).max() > 2e-3


def test_the_papers_loop_trains_as_the_step_does():
    run = tiny_runs()[0]
    params = random_params(run.problem().model)
    plain, loop = in_pytorch(run, params), in_pytorch(run, params)
    plain.train(2)
    losses = loop.train_and_test(3)
    assert losses[2][0] == plain.evaluate(plain.train_data)
    assert losses[2][1] == loop.evaluate(loop.test_data)
    assert len(loop.train_data[1]) + len(loop.test_data[1]) == 49


def test_token_by_token_trains_as_the_factored_model_does():
    states = [started(run) for run in tiny_runs()]
    problem = tiny_runs()[0].problem()
    tokens = step.TokenByToken(problem, jax.tree.map(lambda *x: jnp.stack(x), *states))
    tokens.train(3)
    factored = TRAIN(problem, states[1], 3)
    for key, value in tokens.state.params.items():
        np.testing.assert_allclose(value[1], factored.params[key], atol=2e-5, err_msg=key)
    batch = training.batch(problem, states[1].inputs)
    loss = jax.jit(training.loss, static_argnums=0, compiler_options=QUICK)(problem, factored.params, *batch)
    assert tokens.losses()[1] == pytest.approx(float(loss), rel=1e-5)


def test_the_mainline_is_the_papers():
    problem, runs = step.mainline(2)
    assert (problem.model, problem.n_train, len(runs)) == (ModelConfig(), 3830, 2)
    assert step.floor_flop(problem) == 3 * 2 * 3830 * (128 * 512 + 512 * 128 + 128 * 113)


def made_up(names) -> tuple[list[step.Contender], dict[str, np.ndarray]]:
    products = step.floor_flop(step.mainline(1)[0]) / (2 * step.SQUARE**3)
    seconds = {step.EAGER: 0.2, step.EVALUATION: 0.08, step.MATMULS[0]: 0.01 / products}
    seconds |= dict.fromkeys(step.FACTORED.values(), 0.04)
    times = {key: np.array([1.0, 2.0, 1.0]) * seconds[key] for key in [*names, step.MATMULS[0]]}
    return [step.Contender(key, key, lambda n: None) for key in times], times


def test_figures_are_taken_round_by_round():
    contenders, times = made_up([step.EAGER, step.EVALUATION, *step.FACTORED.values()])
    found = step.figures(step.mainline(1)[0], step.Field(contenders, {}), times)
    line = found["lines"]["factored_4"]
    assert (line["ms"]["median"], line["ms"]["min"], line["ms"]["max"]) == pytest.approx((40, 40, 80))
    assert line["ratio_to_eager"]["rounds"] == pytest.approx([5, 5, 5])
    assert line["share_of_floor"]["rounds"] == pytest.approx([0.25, 0.25, 0.25])
    assert found["evaluation_in_steps"]["median"] == pytest.approx(2)
    environment = {"torch_device": "cpu", "platform": "cpu"}
    assert "holds (5.00 at width 1" in step.target_line(found, environment, True)
    assert "not judged on a busy machine (5.00" in step.target_line(found, environment, False)
    assert "different devices" in step.target_line(found, {"torch_device": "cpu", "platform": "gpu"}, True)


def test_figures_without_pytorch():
    contenders, times = made_up([step.EVALUATION, *step.FACTORED.values()])
    found = step.figures(step.mainline(1)[0], step.Field(contenders, {}), times)
    assert found["lines"]["factored_4"]["ratio_to_eager"] is None
    assert "not judged without PyTorch" in step.target_line(found, {}, True)


def test_visits_are_timed_per_run_and_step():
    now = [0.0]

    def advance(n_steps):
        now[0] += 8 * n_steps

    times = step.measure([step.Contender("a", "", advance, n_runs=4, least=3)], 2, 100, lambda: now[0], lambda _: None)
    assert times["a"].tolist() == [2, 2]
    assert now[0] == 8 * (1 + 3 + 2 * 12)  # a first step, a trial visit, two visits of about 100 s


def test_contenders_that_train_differently_are_told():
    assert step.Field([], {"a": 4.0, "b": 4.0003}).agree
    assert not step.Field([], {"a": 4.0, "b": 4.0005}).agree
    assert not step.Field([], {"a": 4.0, "b": float("nan")}).agree
    assert not step.Field([], {"a": float("nan"), "b": 4.0}).agree


def test_a_missing_pytorch_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(step.importlib.util, "find_spec", lambda name: None)
    assert step.main([]) == 2
    assert capsys.readouterr().err == (
        "error: PyTorch is not installed: pip install -e '.[bench]', or leave it out with --no-torch.\n"
    )


@pytest.mark.parametrize("flag", ["--rounds=0", "--rounds=many", "--seconds=-1", "--json=nowhere/to/be.json"])
def test_bad_flags_are_refused(flag, capsys):
    try:
        status: object = step.main([flag])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert flag.split("=")[0] in capsys.readouterr().err
