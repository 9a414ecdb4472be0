"""What benchmarks/ compares must be the same model, loss and optimizer; what it tells must follow from its figures."""

import dataclasses
import json
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import QUICK
from commands import assert_refused, call

from benchmarks import (
    command,
    contestants,
    floor,
    host,
    machine,
    mainline,
    markdown,
    measures,
    models,
    run,
    scaling,
    sweep,
    timing,
)
from benchmarks.contestants import EAGER, EVALUATION, PAPER_LOOP, Field, population_key
from benchmarks.host import Flight, idle
from benchmarks.timing import Contestant, spread
from grokjax import config, sweeps
from grokjax.core import backends, model, optimizers
from grokjax.core.model import ModelConfig
from grokjax.core.problem import State
from grokjax.measures import blocks
from grokjax.sweeps import Run
from grokjax.training import one_run
from tools import docs, figures, performance, tables

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
    return State(params, optimizers.build("adamw", inputs.hyperparameters).init(params), inputs)


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
    tensors = {key: torch.tensor(np.asarray(value)) for key, value in params.items()}
    pairs_N = jnp.arange(49)
    theirs = eager.logits(cfg, tensors, torch.tensor(np.asarray(model.tokens(pairs_N, 7)), dtype=torch.long)).numpy()
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
    for key, parameter in theirs.params.items():
        np.testing.assert_allclose(grads[key], parameter.grad, rtol=1e-4, atol=1e-6, err_msg=key)


def test_training_agrees_with_pytorch_beyond_the_warm_up():
    run = tiny_runs()[0]
    state = started(run)
    theirs = in_pytorch(run, state.params)
    theirs.train(15)
    ours = TRAIN(run.problem(), state, 15)
    for key, parameter in theirs.params.items():
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


def test_the_mainline_is_the_papers():
    problem, runs = mainline.mainline(2)
    assert (problem.model, problem.n_train, len(runs)) == (ModelConfig(), 3830, 2)
    assert floor.step_flop(problem) == 3 * 2 * 3830 * (128 * 512 + 512 * 128 + 128 * 113)


def test_the_floor_is_the_larger_of_operations_and_bytes():
    problem, _ = mainline.mainline(1)
    flop, moved = floor.step_flop(problem), floor.step_bytes(problem)
    found = floor.seconds(problem, np.array([flop / 2.0, flop / 0.5]), np.array([moved / 1.0, moved / 1.0]))
    assert found.tolist() == pytest.approx([2, 1])
    n_params = sum(int(np.prod(shape)) for shape in model.shapes(problem.model).values())
    assert moved == 24 * n_params


# --- timing -------------------------------------------------------------------------------------------------------


def test_visits_are_timed_per_run_and_step():
    now = [0.0]

    def advance(n_steps):
        now[0] += 8 * n_steps

    times = timing.measure([Contestant("a", "", advance, n_runs=4, least=3)], 2, 100, clock=lambda: now[0])
    assert times["a"].tolist() == [2, 2]
    assert now[0] == 8 * (3 + 2 * 12)  # a trial visit, two visits of about 100 s


def test_rounds_end_at_the_deadline_but_some_are_kept():
    one = Contestant("a", "", lambda n: None)
    assert len(timing.measure([one], 9, 1e-6, deadline=0)["a"]) == timing.LEAST_ROUNDS


def test_numbers_have_three_digits():
    assert [markdown.number(x) for x in (0, 0.01234, 1.5, 123.4, 12_345)] == ["0", "0.0123", "1.50", "123", "12,345"]


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


def test_figures_without_pytorch():
    entered, times = made_up([EVALUATION, *POPULATIONS])
    found = contestants.figures(mainline.mainline(1)[0], entered, times)
    assert found["lines"]["population_4"]["ratio_to_eager"] is None
    assert "| population_4 | float32 | 25.0 | 40.0 (40.0 – 80.0) | 25.0 % (25.0 – 25.0) | – | – |" in run.steps_table(
        found
    )


TINY = {"p": 7, "d_model": 8, "n_heads": 2, "d_mlp": 16}


@pytest.mark.long
def test_contestants_are_built_alike():
    flight = Flight()
    with flight.recording():
        field = contestants.gather((1, 6), machine.torch_device() if find_spec("torch") else None, **TINY)
    assert field.agree
    entered = {population_key(1), population_key(6)} | ({EAGER, PAPER_LOOP} if find_spec("torch") else set())
    assert set(field.agreement) == entered
    assert flight.dispatches
    assert all(dispatch.done > dispatch.sent for dispatch in flight.dispatches)
    found = run.steps(field, 1, 0.0, lambda text: None)
    assert set(found["lines"]) == {*entered, EVALUATION}
    assert (field.evaluated, found["evaluation"]["width"]) == (1, 1)
    assert found["evaluation"]["in_steps"]["median"] > 0


@pytest.mark.parametrize(("losses", "agree"), [((4.0, 4.0003), True), ((4.0, 4.0005), False), ((4.0, np.nan), False)])
def test_contestants_that_train_differently_are_told(losses, agree):
    field = Field(mainline.mainline(1)[0], [], {str(i): loss for i, loss in enumerate(losses)}, 1, 2048)
    assert field.agree is agree


# --- the host -----------------------------------------------------------------------------------------------------


def test_idle_time_is_what_no_dispatch_covers():
    assert idle([(0, 1), (0.5, 3), (3.5, 4), (3.6, 6)]) == pytest.approx(0.5)
    assert idle([(0, 1), (1, 2)]) == 0


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
        **figures,
    }


def canned_records():
    entered, times = made_up([EAGER, PAPER_LOOP, EVALUATION, *POPULATIONS])
    start_up = {"import_s": 1.0, "device_s": 0.1, "draw_s": 2.0, "compile_s": 9.0, "total_s": 12.1}
    swept = {"config": "a.py", "wall_s": ONE, "n_runs": 9, "run_steps": 900, "rows": 99}
    ran = canned(
        "run",
        agreement={EAGER: 4.7, "population_1": 4.7},
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
    full = canned("sweep", variant="_a_py", sweep=ran["sweep"])
    timed = dict.fromkeys([EAGER, *map(population_key, models.WIDTHS), "floor"], ONE)
    figured = {"step_flop": 2e9, "run_step_s": timed, "ratios": timed}
    others = canned("models", models=dict.fromkeys(models.MODELS, figured))
    return [ran, others, hosted, scaled, full]


def test_the_page_says_what_was_measured(tmp_path):
    for one in canned_records():
        assert command.file_record(one, tmp_path / "benchmarks" / "records").name.startswith("cpu_")
    found = performance.records(tmp_path / "benchmarks" / "records")
    assert [one for kept in found["cpu"].values() for one in kept] == json.loads(json.dumps(canned_records()))
    cpu, gpu = performance.measured(found).split("## GPU")
    assert "5.00 (5.00 – 5.00)" in cpu
    assert "so 1.0 MiB per slot" in cpu
    assert "adds 2.0 % to training." in cpu
    assert cpu.count("Not yet measured") == 0
    assert gpu.count("Not yet measured") == len(performance.SECTIONS)
    said = performance.headline(found)
    assert "where 4 train side by side on a CPU, the paper's loop takes **10.0 (10.0 – 10.0)** times as long" in said
    assert "PyTorch eager **5.00 (5.00 – 5.00)** times; where one trains alone, 10.0 (10.0 – 10.0) and 5.00 (5." in said


def test_a_command_prints_its_figures_and_files_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    wide = {"wall_s": ONE, "idle_share": ONE, "main_thread_share": ONE, "over_bare": ONE, "checkpoint_s": ONE}
    monkeypatch.setattr(host, "measure", lambda args, say: {"n_runs": 2, "p": args.rounds, "n_steps": 9, **wide})
    host.main(["--rounds=5"])
    assert "at P = 5, evaluated" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "benchmarks").exists()
    host.main(["--rounds=7", "--write"])
    assert "benchmarks/records/cpu_host.json written; python -m tools.docs makes" in capsys.readouterr().out
    filed = json.loads((tmp_path / "benchmarks" / "records" / "cpu_host.json").read_text())
    assert filed["command"] == "python -m benchmarks.host --rounds=7 --write"
    assert (filed["p"], filed["machine"]["platform"], filed["wall_s"]) == (7, "cpu", ONE)


@pytest.mark.long
@pytest.mark.parametrize("name", models.MODELS)
def test_other_models_train_as_pytorch_does(name):
    pytest.importorskip("torch")
    sizes = {"p": 11, "d_model": 16, "n_heads": 2, "d_mlp": 32}
    sizes |= {"batch_size": 8} if "batch_size" in models.MODELS[name] else {}
    entered, agreement = models.gather(models.MODELS[name] | sizes, "cpu", lambda text: None)
    assert [one.n_runs for one in entered] == [1, *models.WIDTHS]
    assert [*agreement.values()] == pytest.approx([agreement[EAGER]] * len(entered), rel=1e-5)
    for one in entered:
        one.advance(5)  # into the second epoch: the first has five batches, the fifth of which is smaller


def test_the_operations_of_an_mlp_are_those_of_its_products():
    """Beside W_in's tables: two gradients and the forward of both dense layers, and one-hot columns for the tables."""
    fields = models.MODELS["MLP 200–200 on one-hot tokens"] | {"p": 31, "d_mlp": 64}
    problem, runs = mainline.mainline(1, measures=(), **fields)
    n, p, m = problem.n_train, 31, 64
    dense, tables = 3 * 2 * n * (m * m + m * p), 2 * 2 * n * m * p
    assert models.step_flop(problem, runs[0].inputs()) == pytest.approx(dense + tables, rel=0.05)


def test_a_busy_machine_is_told():
    assert machine.others_line(0.04).endswith("meanwhile")
    assert machine.others_line(0.5).endswith("50 % of the processor meanwhile: not quiet enough to quote speeds")
    assert "unknown" in machine.others_line(None)


def test_the_scaling_figure_is_drawn(tmp_path):
    record = canned_records()[3]
    figures.draw_scaling({"CPU": record, "GPU": record}, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_missing_pytorch_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    assert_refused(call(capsys, run.main), "pip install -e '.[bench]', or leave it out with --no-torch.")
    assert_refused(call(capsys, models.main), "PyTorch is not installed: pip install -e '.[bench]'.")


def test_contestants_that_disagree_are_not_timed(monkeypatch, capsys):
    field = Field(mainline.mainline(1)[0], [], {"a": 1.0, "b": 2.0}, 1, 2048)
    monkeypatch.setattr(contestants, "gather", lambda *args, **fields: field)
    status, out, err = call(capsys, run.main, "--quick", "--no-torch")
    assert (status, out) == (1, "")
    assert "DISAGREE: a 1.000000, b 2.000000" in err


@pytest.mark.parametrize(
    ("main", "flag"),
    [
        *((run.main, flag) for flag in ("--rounds=0", "--rounds=many", "--minutes=inf", "--minutes=-1", "--what")),
        (run.main, "--precision=half"),
        *((main, "--rounds=0") for main in (host.main, scaling.main, measures.main)),
        (sweep.main, "--what"),
        (docs.main, "--what"),
    ],
)
def test_bad_flags_are_refused(main, flag, capsys):
    assert_refused(call(capsys, main, flag), flag.split("=")[0])


@pytest.mark.long
def test_costs_by_task_are_filed_and_told(monkeypatch, tmp_path, capsys):
    """Every task is trained and evaluated as what it is read by; small ones here."""
    shape = {"d_model": 8, "n_heads": 2, "d_mlp": 8}
    small = {"added": ({"p": 5, **shape}, {}), "composed": ({"task": "group", "group": "S_3", **shape}, {})}
    monkeypatch.setattr(measures, "TASKS", small)
    monkeypatch.setattr(measures, "ROOT", tmp_path)
    monkeypatch.setattr(measures, "TASKS_RECORD", tmp_path / "by_task.json")
    assert tables.costs_by_task() == "Not yet measured: `python -m benchmarks.measures --tasks --write`."
    status, out, _ = call(capsys, measures.main, "--tasks", "--rounds=2", "--write")
    assert status == 0
    assert "by_task.json written" in out
    told = tables.costs_by_task()
    assert [line.split(" | ")[0] for line in told.splitlines()[2:4]] == ["| added", "| composed"]
    assert "`python -m benchmarks.measures --tasks --write` on cpu (cpu)" in told


@pytest.mark.parametrize("name", measures.TASKS)
def test_tasks_that_are_compared_are_read_as_their_names_say(name):
    fields, changed = measures.TASKS[name]
    problem = dataclasses.replace(mainline.mainline(1, **fields)[0], **changed)
    read_by = blocks.composition_of(problem)
    assert ("blocks" in name) == (read_by is not None)
    order = read_by.order if read_by else problem.model.p
    assert order == (120 if "S_5" in name else 112 if "units" in name else 113)
