"""What benchmarks/ compares must be the same model, loss and optimizer; what it tells must follow from its figures."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import QUICK

from benchmarks import command, contestants, floor, host, layouts, mainline, refill, report, run, scaling, sweep, timing
from benchmarks.contestants import EAGER, EVALUATION, PAPER_LOOP, Field, Setting, population_key
from benchmarks.flight import Flight, idle
from benchmarks.timing import Contestant, spread
from benchmarks.tokens import TokenByToken
from grokjax import config, sweeps
from grokjax.core import backends, model, optimizers
from grokjax.core.backends import Native
from grokjax.core.model import ModelConfig
from grokjax.core.native import kernels
from grokjax.core.problem import State
from grokjax.errors import InputError
from grokjax.sweeps import Run
from grokjax.training import one_run
from grokjax.training.layouts import Layout
from grokjax.training.population import Population

TRAIN = jax.jit(one_run.train, static_argnums=0, compiler_options=QUICK)


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


def started(run: Run) -> State:
    """The run before its first step, from random parameters."""
    inputs = jax.tree.map(jnp.asarray, run.inputs())
    params = random_params(run.problem().model, run.run)
    return State(params, optimizers.adamw(inputs.hyperparameters).init(params), inputs)


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
    batch = backends.batch(run.problem(), run.inputs())
    value_and_grad = jax.jit(jax.value_and_grad(backends.loss, 1), static_argnums=0, compiler_options=QUICK)
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
    tokens = TokenByToken(problem, jax.tree.map(lambda *x: jnp.stack(x), *states))
    tokens.train(3)
    factored = TRAIN(problem, states[1], 3)
    for key, value in tokens.state.params.items():
        np.testing.assert_allclose(value[1], factored.params[key], atol=2e-5, err_msg=key)
    batch = backends.batch(problem, states[1].inputs)
    loss = jax.jit(backends.loss, static_argnums=0, compiler_options=QUICK)(problem, factored.params, *batch)
    assert tokens.losses()[1] == pytest.approx(float(loss), rel=1e-5)


def test_vmapped_pytorch_trains_each_run_as_alone():
    pytest.importorskip("torch")
    from benchmarks import vmapped

    runs = tiny_runs()
    params = [random_params(one.problem().model, one.run) for one in runs]
    stacked = {key: np.stack([one[key] for one in params]) for key in params[0]}
    together = vmapped.Vmapped(runs[0].problem(), [one.inputs() for one in runs], stacked)
    alone = in_pytorch(runs[1], params[1])
    together.train(12)
    alone.train(12)
    for key, parameter in alone.model.named_parameters():
        np.testing.assert_allclose(together.params[key][1].detach(), parameter.detach(), atol=2e-5, err_msg=key)
    assert together.losses()[1].item() == pytest.approx(alone.evaluate(alone.train_data), rel=1e-5)


def test_the_mainline_is_the_papers():
    problem, runs = mainline.mainline(2)
    assert (problem.model, problem.n_train, len(runs)) == (ModelConfig(), 3830, 2)
    assert floor.step_flop(problem) == 3 * 2 * 3830 * (128 * 512 + 512 * 128 + 128 * 113)


def test_the_floor_is_the_larger_of_operations_and_bytes():
    problem, _ = mainline.mainline(1)
    flop, moved = floor.step_flop(problem), floor.step_bytes(problem)
    found = floor.seconds(
        problem, {"float32": np.array([flop / 2.0, flop / 0.5])}, np.array([moved / 1.0, moved / 1.0])
    )
    assert found["float32"].tolist() == pytest.approx([2, 1])
    n_params = sum(int(np.prod(shape)) for shape in model.shapes(problem.model).values())
    assert moved == 24 * n_params


# --- timing -------------------------------------------------------------------------------------------------------


def test_visits_are_timed_per_run_and_step():
    now = [0.0]

    def advance(n_steps):
        now[0] += 8 * n_steps

    times = timing.measure([Contestant("a", "", advance, n_runs=4, least=3)], 2, 100, lambda: now[0])
    assert times["a"].tolist() == [2, 2]
    assert now[0] == 8 * (3 + 2 * 12)  # a trial visit, two visits of about 100 s


def test_rounds_end_at_the_deadline_but_some_are_kept():
    one = Contestant("a", "", lambda n: None)
    assert len(timing.measure([one], 9, 1e-6, time.perf_counter, deadline=0)["a"]) == timing.LEAST_ROUNDS


def test_numbers_have_three_digits():
    assert [timing.number(x) for x in (0, 0.01234, 1.5, 123.4, 12_345)] == ["0", "0.0123", "1.50", "123", "12,345"]


def made_up(names) -> tuple[list[Contestant], dict[str, np.ndarray]]:
    """Contestants whose second round takes twice as long, on a machine whose floor is 10 ms."""
    problem = mainline.mainline(1)[0]
    seconds = {EAGER: 0.2, PAPER_LOOP: 0.4, EVALUATION: 0.08, "square_float32": 0.01, floor.BANDWIDTH: 1.0}
    work = {"square_float32": float(floor.step_flop(problem)), floor.BANDWIDTH: 1e12}
    keys = [*names, *work]
    times = {key: np.array([1.0, 2.0, 1.0]) * seconds.get(key, 0.04) for key in keys}
    widths = {key: int(key.split("_")[1]) for key in keys if key.startswith("population")}
    entered = [Contestant(key, key, lambda n: None, widths.get(key, 1), work=work.get(key, 0.0)) for key in keys]
    return entered, times


POPULATIONS = tuple(population_key(width) for width in (1, 4))


def test_figures_are_taken_round_by_round():
    entered, times = made_up([EAGER, PAPER_LOOP, EVALUATION, *POPULATIONS])
    found = contestants.figures(mainline.mainline(1)[0], entered, times)
    line = found["lines"]["population_4"]
    assert [line["run_step_s"][name] for name in ("median", "min", "max")] == pytest.approx([0.04, 0.04, 0.08])
    assert line["ratio_to_eager"]["rounds"] == pytest.approx([5, 5, 5])
    assert line["ratio_to_paper_loop"]["rounds"] == pytest.approx([10, 10, 10])
    assert line["share_of_floor"]["rounds"] == pytest.approx([0.25, 0.25, 0.25])
    cost = contestants.evaluation_in_steps(Setting((1, 4), None), times)
    assert cost
    assert cost["median"] == pytest.approx(2)


def test_figures_without_pytorch():
    entered, times = made_up([EVALUATION, *POPULATIONS])
    found = contestants.figures(mainline.mainline(1)[0], entered, times)
    assert found["lines"]["population_4"]["ratio_to_eager"] is None
    record = canned("run", **found)
    assert "not judged without PyTorch" in run.target_line(record)


TINY = {"p": 7, "d_model": 8, "n_heads": 2, "d_mlp": 16}


@pytest.mark.long
def test_contestants_are_built_alike_or_left_out_with_a_reason(monkeypatch):
    monkeypatch.setattr(contestants.machine, "memory_bytes", lambda: 2**20)
    flight = Flight()
    with flight.recording():
        field = Field(Setting((1, 64), None, side_by_side=1, square=16, measures=(), fields=TINY))
    assert field.agree
    assert set(field.agreement) == {contestants.TOKENS, population_key(1)}
    assert "GiB of memory" in field.left_out[population_key(64)]["reason"]
    assert flight.dispatches[0].n_steps == contestants.AGREEMENT_STEPS
    assert all(dispatch.done >= dispatch.sent or dispatch.done > 0 for dispatch in flight.dispatches)
    times = timing.measure(field.contestants, 1, 1e-3, time.perf_counter)
    found = contestants.figures(field.problem, field.contestants, times)
    assert set(found["lines"]) == {contestants.TOKENS, population_key(1), EVALUATION}


@pytest.mark.parametrize(("losses", "agree"), [((4.0, 4.0003), True), ((4.0, 4.0005), False), ((4.0, np.nan), False)])
def test_contestants_that_train_differently_are_told(losses, agree):
    field = Field.__new__(Field)
    field.agreement = dict(enumerate(losses))
    assert field.agree is agree


# --- the host, refilling ------------------------------------------------------------------------------------------


def test_idle_time_is_what_no_dispatch_covers():
    assert idle([(0, 1), (0.5, 3), (3.5, 4), (3.6, 6)]) == pytest.approx(0.5)
    assert idle([(0, 1), (1, 2)]) == 0


def test_fixed_batches_wait_for_their_longest_run():
    workload = refill.Workload(lengths=(100, 300), seeds=2, slots=2)
    runs = sweeps.expand(workload.config(), workload.overrides).runs
    lengths = [one.steps for one in runs]
    assert sorted(lengths) == [100, 100, 300, 300]
    waits = sum(2 * max(pair) - sum(pair) for pair in (lengths[:2], lengths[2:]))
    assert refill.batch_idle(runs, 2) == waits


# --- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_plain_forms_are_compiled_apart_and_give_the_same():
    problem, runs = mainline.mainline(1, p=7, d_model=8, n_heads=2, d_mlp=16, measures=())
    params = {}
    for piece in ("", "_copied", "relu", ""):
        with layouts._plain(piece):
            one = Population(problem, Layout(1, 1, 1, 1, 8))
            one.start({0: runs[0].inputs()})
            mainline.train(one, 3)
            params.setdefault(piece, []).append(np.asarray(one.state.params["blocks.0.mlp.W_in"]))
    np.testing.assert_array_equal(*params[""])
    for piece in ("_copied", "relu"):
        np.testing.assert_allclose(params[piece][0], params[""][0], rtol=1e-4, atol=1e-6)


def test_layouts_hold_what_is_chosen():
    found = layouts.layouts(2, 3830, 766)
    assert layouts.Layout("a run per core in blocks of 766 pairs", 2, 766) in found
    assert found[0] == layouts.Layout("one run at a time on all cores")
    if not kernels.unavailable():
        assert layouts.Layout("in C++: a run per core", 2, backend=Native(1)) in found
    assert {one.plain for one in found} == {"", "_copied", "relu"}


# --- what is told -------------------------------------------------------------------------------------------------

MACHINE = {
    "processor": "Some CPU",
    "memory_gib": 8,
    "versions": {"python": "3.12", "jax": "0.10"},
    "platform": "cpu",
    "device_kind": "cpu",
    "n_devices": 1,
    "cpu_threads": 2,
    "torch_device": "cpu",
    "torch_threads": 2,
    "git_commit": None,
}
ONE = spread([1.0, 2.0, 3.0])


def canned(benchmark: str, **figures):
    """A record as a quiet machine may have written it."""
    return {
        "benchmark": benchmark,
        "command": f"python -m benchmarks.{benchmark}",
        "date": "2026-01-01",
        "machine": MACHINE,
        "others_share_of_processor": 0.01,
        "others_share_while_timing": 0.01,
        **figures,
    }


def canned_records():
    entered, times = made_up([EAGER, PAPER_LOOP, EVALUATION, *POPULATIONS])
    start_up = {"import_s": 1.0, "device_s": 0.1, "draw_s": 2.0, "compile_s": 9.0, "total_s": 12.1}
    swept = {"config": "a.py", "wall_s": ONE, "n_runs": 9, "run_steps": 900, "rows": 99}
    ran = canned(
        "run",
        one_core=False,
        agreement={EAGER: 4.7, "population_1": 4.7},
        agree=True,
        left_out={"population_64": {"name": "wide", "n_runs": 64, "precision": "float32", "reason": "no time"}},
        **contestants.figures(mainline.mainline(1)[0], entered, times),
        square=2048,
        evaluation={"width": 4, "in_steps": ONE},
        startup=[
            {"width": width, "cached": cached, "peak_bytes": (1 + width) << 20, **start_up}
            for width, cached in ((1, False), (25, False), (25, True))
        ],
        sweep={**swept, "parquet_bytes": 10**6, "bytes": 2 * 10**6},
    )
    shares = dict.fromkeys(("idle_share", "main_thread_share", "over_bare"), spread([0.001, 0.002]))
    hosted = canned("host", n_runs=2, p=113, n_steps=200, wall_s=ONE, checkpoint_s=ONE, **shares)
    points = [{"value": value, "run_step_s": ONE} for value in (1, 2)]
    scaled = canned("scaling", width=2, axes=dict.fromkeys(scaling.AXES, points))
    refilled = canned(
        "refill",
        workload={"lengths": (1, 2), "slots": 2},
        n_runs=4,
        run_steps=6,
        refilled_s=ONE,
        batches_s=ONE,
        saved=ONE,
        refilled_idle=1,
        batches_idle=3,
    )
    full = canned("sweep", variant="_a_py", sweep=ran["sweep"])
    laid = canned("layouts", n_train=9, layouts=[{"name": "some layout", "run_step_s": ONE, "ratio": ONE}])
    sizes = dict.fromkeys(
        ("bytes", "runs_table_bytes", "peak_above_start_bytes", "checkpoint_bytes", "config_bytes"), 9
    )
    times = ("expand_s", "ledger_s", "write_s", "read_losses_s", "check_s", "runs_table_s", "checkpoint_s")
    made = {"n_runs": 2, "n_evaluations": 3, "measures": [], "n_rows": 6, "n_parts": 1}
    large = canned("tables", **made, **sizes, **dict.fromkeys(times, 1.0))
    return [ran, hosted, scaled, refilled, full, laid, large]


def test_the_page_says_what_was_measured(tmp_path):
    for one in canned_records():
        command.save(one, tmp_path / f"cpu_{one['benchmark']}.json")
    found = report.records(tmp_path)
    assert [one for kept in found["cpu"].values() for one in kept] == json.loads(
        json.dumps(sorted(canned_records(), key=lambda one: one["benchmark"]))
    )
    page = report.page(found)
    cpu, gpu = page.split("## GPU")
    assert "5.00 (5.00 – 5.00)" in cpu
    assert "not available: no time" in cpu
    assert "so 1.0 MiB per slot" in cpu
    assert "PyTorch eager's time / this at least 6: missed (5.00 at the slowest width)" in cpu
    assert "of the dense floor at least 65 %: missed (25.0 % at the slowest width)" in cpu
    assert "adds 2.0 % to training. Target, at most 5.0 %: met." in cpu
    assert "under 2.0 % of wall time" in cpu
    assert cpu.count("Not yet measured") == 0
    assert gpu.count("Not yet measured") == len(report.SECTIONS) - len(report.CPU_ONLY)
    text = report.with_section(f"before {report.BEGIN} old {report.END} after", found)
    assert "| population_4 | 5.00 (5.00 – 5.00) | 10.0 (10.0 – 10.0) | 25 % |" in text
    assert "old" not in text


def test_nothing_is_judged_on_a_busy_machine():
    busy = canned_records()[0] | {"others_share_while_timing": 0.5}
    assert "not judged" in run.target_line(busy)
    slow = canned_records()[1] | {"idle_share": spread([0.2])}
    assert "missed" in host.page(slow)


def test_a_gpu_is_judged_by_its_rates():
    record = canned_records()[0]
    record["machine"] = MACHINE | {"platform": "gpu"}
    record["lines"]["population_4"]["run_step_s"] = spread([1 / 30_000])
    assert run.target_line(record).endswith("20,000 in float32: met (30,000).")


def test_the_scaling_figure_is_drawn(tmp_path):
    record = canned_records()[2]
    scaling.draw({"CPU": record, "GPU": record}, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_the_page_is_up_to_date():
    assert not report.stale()


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_missing_pytorch_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        run.main([])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: PyTorch is not installed: pip install -e '.[bench]', or leave it out with --no-torch.\n"
    )


@pytest.mark.parametrize(
    ("main", "flag"),
    [
        *((run.main, flag) for flag in ("--rounds=0", "--rounds=many", "--seconds=-1", "--json=nowhere/to/be.json")),
        *((run.main, flag) for flag in ("--widths=0", "--widths=a", "--only=all", "--minutes=inf", "--what")),
        *((main, "--rounds=0") for main in (host.main, scaling.main, refill.main, sweep.main)),
        (sweep.main, "--what"),
        (report.main, "--what"),
    ],
)
def test_bad_flags_are_refused(main, flag, capsys):
    with pytest.raises(SystemExit) as stop:
        main([flag])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert flag.split("=")[0] in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_a_file_without_figures_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match="holds no figures"):
        command.load(tmp_path / "x.json")
