"""Models of finite groups in sweeps: P is the order, measures run over blocks, and columns are the oracles'."""

import dataclasses
import json
import re

import jax
import numpy as np
import oracle_groups
import pyarrow.parquet as pq
import pytest
import tiny
from cases import QUICK

from grokjax import config, sweeps, tasks
from grokjax.core import model
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Problem
from grokjax.errors import InputError
from grokjax.finite_groups import named
from grokjax.interp import trajectory, trajectory_table
from grokjax.interp.measure import measure
from grokjax.measures import MEASURES, blocks, registry
from grokjax.report import figures
from grokjax.report.page import html
from grokjax.report.results import read as read_results
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.store.records import read_record

NAMES = ["S_3", "Q_8", "A_4", "Z_2 x Z_4"]
READ = ["restricted_loss", "restricted_loss_train", "restricted_loss_test", "restricted_acc", "excluded_loss"]
READ += ["excluded_loss_per_freq", "excluded_loss_max", "trig_coef_all", "fve_logits_trig_centred", "key_freqs_logits"]
READ += ["freq_norm_W_E", "freq_norm_W_L", "neuron_freq", "neuron_fve", "heldout_restricted_loss", "trig_share"]


def random_model(name, seed=0):
    """A problem, random parameters in float64, its training pairs and answers."""
    group = named(name)
    cfg = ModelConfig(p=group.order, d_model=8, n_heads=2, d_mlp=6)
    rng = np.random.default_rng(seed)
    params = {key: rng.normal(0, 1, shape) for key, shape in model.shapes(cfg).items()}
    n = group.order**2
    train = np.sort(rng.choice(n, n // 3, replace=False)).astype(np.int32)
    return Problem(cfg, len(train), direction=None, group=name), params, train, group.table.ravel()


def read(name, keys):
    """Measures in float64, with the logits and activations that they are of."""
    problem, params, train, answers = random_model(name)
    with jax.enable_x64(True):

        @jax.jit
        def compute(params):
            s = blocks.shared_of(problem, params, train, answers, keys)
            return {m: MEASURES[m].function(s) for m in READ}, s.logits_NxP, s.acts_NxM, s.W_L_PxM

        values, *of = compute.lower(params).compile(QUICK)(params)
        values = registry.counts_to_shares(MEASURES, jax.device_get(values), problem)
    return values, params, train, *map(np.asarray, of)


@pytest.mark.parametrize("name", NAMES)
def test_measures_are_the_oracles(name):
    group = named(name)
    n, of = group.order, blocks.composition_of(Problem(ModelConfig(p=group.order), 1, group=name)).blocks
    keys = np.arange(len(of.sizes) - 1) % 2 == 0
    values, params, train, logits, acts, W_L = read(name, keys)
    projections = oracle_groups.projections(of, group)
    kept = sum(p for p, k in zip(projections[1:], keys, strict=True) if k)
    grid, pairs = logits.reshape(n, n, n), [divmod(int(x), n) for x in train]
    close = {"rtol": 1e-9, "atol": 1e-12}
    loss = oracle_groups.restricted_loss(group.table, grid, kept + projections[0])
    np.testing.assert_allclose(values["restricted_loss"], loss, **close)
    parts = (values["restricted_loss_train"], values["restricted_loss_test"])
    share = len(train) / n**2
    np.testing.assert_allclose(parts[0] * share + parts[1] * (1 - share), loss, **close)
    excluded = [oracle_groups.excluded_loss(group.table, grid, p, pairs) for p in projections[1:]]
    np.testing.assert_allclose(values["excluded_loss_per_freq"], excluded, **close)
    assert values["excluded_loss_max"] == values["excluded_loss_per_freq"].max()
    np.testing.assert_allclose(
        values["excluded_loss"], oracle_groups.excluded_loss(group.table, grid, kept, pairs), **close
    )
    # Characters by least squares, on logits less their mean over the classes.
    waves = [oracle_groups.planted(group, of, row).ravel() for row in np.eye(len(keys))]
    centred = (grid - grid.mean(2, keepdims=True)).ravel()
    alphas = np.linalg.lstsq(np.stack(waves, 1), centred, rcond=None)[0]
    np.testing.assert_allclose(values["trig_coef_all"], alphas, **close)
    explained = [np.sum((a * w) ** 2) / np.sum(centred**2) for a, w in zip(alphas, waves, strict=True)]
    np.testing.assert_allclose(values["fve_logits_trig_centred"], np.sum(np.array(explained)[keys]), **close)
    np.testing.assert_allclose(values["trig_share"], np.sum(explained), **close)
    for column, matrix in (("freq_norm_W_E", params["embed.W_E"][:n]), ("freq_norm_W_L", W_L)):
        np.testing.assert_allclose(values[column], [np.linalg.norm(p @ matrix) for p in projections[1:]], **close)
    shares = []
    for p in projections[1:]:
        both = np.einsum("xa,yb,abm->xym", p + projections[0], p + projections[0], acts.reshape(n, n, -1))
        shares.append(((both - both.mean((0, 1))) ** 2).sum((0, 1)))
    total, lives = np.sum((acts - acts.mean(0)) ** 2, 0), np.ptp(acts, 0) > 0
    shares = np.array(shares)[:, lives] / total[lives]
    assert lives.sum() > 2
    np.testing.assert_allclose(values["neuron_fve"][lives], shares.max(0), **close)
    assert values["neuron_freq"][lives].tolist() == (shares.argmax(0) + 1).tolist()
    assert not values["neuron_freq"][~lives].any()


def test_frequencies_are_the_cyclic_case():
    """The same model read by frequencies and by blocks: addition modulo P is a group like any other."""
    p = 8
    problem, params, train, _ = random_model(f"Z_{p}")
    answers = tasks.answers("add", p)
    as_frequencies = dataclasses.replace(problem, group=None, direction=1)
    columns = {name: MEASURES[name] for name in READ}

    def computed(of):
        of_params = jax.jit(lambda params: registry.compute(columns, blocks.shared_of(of, params, train, answers)))
        return jax.device_get(of_params.lower(params).compile(QUICK)(params))

    with jax.enable_x64(True):
        one, other = computed(problem), computed(as_frequencies)
    one["trig_coef_all"] = one["trig_coef_all"] * [2, 2, 2, 1]  # of 2 cos w_k, and of the sign
    for name in READ:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("task", "direction"), [("multiply", 1), ("divide", -1)])
def test_multiplication_is_addition_of_logarithms(task, direction):
    """Measures of the non-zero residues modulo 7 are those of Z_6, of logits that have each class and pair of it."""
    p, powers, rng = 7, np.array([1, 3, 2, 6, 4, 5]), np.random.default_rng(0)
    cfg, small = (ModelConfig(p=q, d_model=8, n_heads=2, d_mlp=6) for q in (p, p - 1))
    params = {key: rng.normal(0, 1, shape) for key, shape in model.shapes(cfg).items()}
    within = params | {"embed.W_E": params["embed.W_E"][powers], "unembed.W_U": params["unembed.W_U"][:, powers]}
    logits, acts = rng.normal(0, 3, (p, p, p)), rng.normal(0, 1, (p, p, 6)) ** 2
    logits[..., 0] = -1e4  # so that the class 0 takes no part in softmax
    inside = np.ix_(powers, powers)
    of_small = logits[inside][..., powers].reshape(36, 6), acts[inside].reshape(36, 6)
    train = np.sort(rng.choice(36, 12, replace=False)).astype(np.int32)
    tokens = (powers[train // 6] * p + powers[train % 6]).astype(np.int32)
    one = Problem(cfg, 12, direction=direction, group=tasks.units(p), nonzero_b=task == "divide")
    other = Problem(small, 12, direction=direction)
    of_p = logits.reshape(-1, p), acts.reshape(-1, 6)
    names = [*READ, "neurons_per_freq", "key_freqs_neurons", "gini_W_E", "gini_W_L", "gini_freq_W_E", "fve_logits_trig"]
    names += ["restricted_loss_train", "n_key_freqs_W_L", "ipr_W_E"]
    if task == "divide":  # in Z_6 a - b is b - a where both are 0 or 3, and such mirror images are held out together
        names.remove("heldout_restricted_loss")
    columns = {name: MEASURES[name] for name in names}

    def computed(problem, params, train, answers, forward):
        def of(params):
            shared = blocks.shared_of(problem, params, train, answers, forward=lambda cfg, params: forward)
            assert not [m.name for m in columns.values() if m.undefined_for(shared)]
            return registry.compute(columns, shared)

        found = jax.device_get(jax.jit(of).lower(params).compile(QUICK)(params))
        return registry.counts_to_shares(columns, found, problem)

    with jax.enable_x64(True):
        found = computed(one, params, tokens, tasks.answers(task, p), of_p)
        wanted = computed(other, within, train, tasks.answers("add" if direction == 1 else "subtract", p - 1), of_small)
    found["trig_coef_all"] = found["trig_coef_all"] * [2, 2, 1]  # of 2 cos w_k, and of the sign
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_multiplication_is_measured_in_its_own_group():
    c = get_config(task="multiply")
    c.p, c.key_rule = 7, "logits"
    problem = sweeps.expand(c).runs[0].problem()
    assert (problem.group, problem.direction) == ("units of Z_7", 1)
    assert blocks.described([problem])["units of Z_7"]["names"] == ["k=1", "k=2", "k=3"]
    assert registry.COUNTS["sums"](problem) == 6
    c.task, c.key_rule = "divide", "neurons"
    assert sweeps.expand(c).runs[0].problem().direction == -1


def test_planted_blocks_are_the_keys():
    """Logits of two characters, and neurons of one of them: every rule that reads them finds these blocks."""
    group, planted = named("S_3 x Z_7"), (10, 11)
    cfg = ModelConfig(p=group.order, d_model=8, n_heads=2, d_mlp=6)
    problem = Problem(cfg, 40, direction=None, group=group.name)
    of, n = blocks.composition_of(problem).blocks, group.order
    keys = np.isin(np.arange(1, len(of.sizes)), planted)
    logits = oracle_groups.planted(group, of, 9.0 * keys).reshape(n * n, n)
    first, second = (of.basis[of.block_of_row == k][0] for k in planted)
    acts = np.stack([np.outer(f, f).ravel() for f in (first,) * 4 + (second,) * 2], 1)
    _, params, train, answers = random_model(group.name)
    names = ["key_freqs_logits", "key_freqs_neurons", "neurons_per_freq", "trig_coef_all", "fve_logits_trig"]
    names += ["restricted_acc", "excluded_loss", "train_loss"]
    with jax.enable_x64(True):
        s = blocks.shared_of(problem, params, train[:40], answers, keys, forward=lambda cfg, params: (logits, acts))
        found = registry.counts_to_shares(MEASURES, {name: MEASURES[name].function(s) for name in names}, problem)
    assert (np.flatnonzero(found["key_freqs_logits"]) + 1).tolist() == list(planted)
    assert (np.flatnonzero(found["key_freqs_neurons"]) + 1).tolist() == list(planted)
    assert found["neurons_per_freq"].tolist() == [0] * 9 + [4, 2]
    np.testing.assert_allclose(found["trig_coef_all"], 9.0 * keys, atol=1e-9)
    np.testing.assert_allclose(found["fve_logits_trig"], 1)
    assert found["restricted_acc"] == 1
    np.testing.assert_allclose(found["excluded_loss"], np.log(n))


def test_columns_of_residues_alone_are_left_out():
    problem, params, train, answers = random_model("S_3")
    found = jax.eval_shape(
        lambda params: registry.compute(MEASURES, blocks.shared_of(problem, params, train, answers)), params
    )
    assert set(MEASURES) - set(found) >= {"gini_W_E", "logit_block_norm", "circularity", "distance_irrelevance"}
    for name, value in found.items():
        assert value.shape == tuple(registry.DIMS[dim](problem) for dim in MEASURES[name].shape), name
    assert found["key_freqs"].shape == (2,)


# --- sweeps ---------------------------------------------------------------------------------------------------------


def get_config(*groups, task="group"):
    c = tiny.get_config("paper")
    c.p = 113
    c.task = task
    c.steps, c.snapshot_every = 40, 20
    c.sweep.weight_decay = None
    if len(groups) == 1:
        c.group = groups[0]
    elif groups:
        c.sweep.group = groups
    return c


def refusal(c):
    with pytest.raises(InputError) as refused:
        sweeps.expand(c)
    return str(refused.value)


def test_p_is_the_order():
    sweep = sweeps.expand(get_config("S_3", "Q_8"))
    assert [(run.values["group"], run.values["p"]) for run in sweep.runs] == [("S_3", 6)] * 2 + [("Q_8", 8)] * 2
    assert len(sweep.groups()) == 2
    c = get_config("A_5")
    c.p = 60
    assert {run.values["p"] for run in sweeps.expand(c).runs} == {60}
    c.p = 61
    assert refusal(c) == "config.p is 61, but group 'A_5' has 60 elements: leave p unset."
    c = get_config("A_5")
    c.sweep.p = (113, 60)
    assert refusal(c) == "config.p is 113, but group 'A_5' has 60 elements: leave p unset."
    c = config.small()
    c.task, c.group = "group", "S_5"
    assert sweeps.expand(c).runs[0].values["p"] == 120


def test_a_cyclic_group_is_addition():
    run, added = sweeps.expand(get_config("Z_7")).runs[0], sweeps.expand(tiny.get_config("paper")).runs[0]
    assert run.problem() == added.problem()
    assert np.array_equal(run.inputs().answers, added.inputs().answers)
    assert np.array_equal(run.inputs().train_pairs, added.inputs().train_pairs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "group"}, "config.task is 'group', but config.group is unset: it must be Z_n, D_n "),
        ({"group": "S_3"}, "config.group is 'S_3', but config.task is 'add': set task to 'group'."),
        ({"task": "group S_3"}, "config.task is 'group S_3': set task to 'group', and group to the group's name."),
        (
            {"task": "group", "group": "Z_2"},
            "config.group is 'Z_2', and its order, P, is 2, but it must be from 3 to 9999.",
        ),
        ({"task": "group", "group": "S5"}, "config.group is 'S5', but it must be Z_n, D_n "),
        ({"task": "group", "group": "no.npy"}, "config.group: no.npy cannot be read (No such file or directory)."),
    ],
)
def test_what_is_wrong_is_told(change, said):
    c = config.default()
    c.update(change)
    assert refusal(c).startswith(said)


def test_neurons_give_no_keys_where_pairs_are_left_out(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    tasks.register(lambda a, b, p: a + 2 * b, name="ours", nonzero_b=True)
    c = get_config(task="ours")
    c.p, c.key_rule = 5, "neurons"
    assert refusal(c) == "config.key_rule is 'neurons', but task 'ours' leaves pairs out: choose W_L or W_E."


# --- measures of one's own, and checkpoints of others ----------------------------------------------------------------


@pytest.fixture
def own(monkeypatch):
    """A group of one measure over blocks."""
    monkeypatch.setattr(registry, "MEASURES", dict(registry.MEASURES))
    registry.measure("mine", name="squares", shape=("freq",), unit="1", description="Squares.", source="this test")(
        lambda s: s.norms_W_E[1] ** 2
    )
    return registry.MEASURES


def computed(name):
    problem, params, train, answers = random_model(name)
    return registry.compute(registry.in_step(["mine"]), blocks.shared_of(problem, params, train, answers))


def test_a_measure_of_ones_own_has_a_number_for_each_block(own):
    assert computed("S_3")["squares"].shape == (2,)
    # Z_6 would have 3 frequencies.
    own["squares"] = dataclasses.replace(own["squares"], function=lambda s: s.norms_W_E[1][np.array([0, 1, 1])])
    with pytest.raises(InputError, match=r"returned float32\[3\], but its column, .*holds float\[2\]"):
        computed("S_3")


def test_it_is_null_where_it_is_of_residues_or_of_all_pairs(own):
    own["squares"] = dataclasses.replace(own["squares"], cyclic_only=True)
    assert "squares" not in computed("S_3")
    own["squares"] = dataclasses.replace(own["squares"], cyclic_only=False, whole_grid=True)
    assert "squares" in computed("S_3")


def test_checkpoints_are_a_table_of_blocks(own):
    _, params, train, _ = random_model("S_3")
    held = {step: {**params, "train_indices": train} for step in (0, 10)}
    table = trajectory_table.measure_all(trajectory.within("theirs", held), task="group S_3", groups=["mine"])
    assert [len(x) for x in table["squares"].to_pylist()] == [2, 2]
    assert list(json.loads(table.schema.field("squares").metadata[b"blocks"])) == ["S_3"]
    assert set(table["task"].to_pylist()) == {"group S_3"}


# --- whole sweeps ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished sweep over two groups, one of them from a file."""
    folder = tmp_path_factory.mktemp("groups")
    np.save(folder / "mine.npy", named("Q_8").table)
    c = get_config("S_3", str(folder / "mine.npy"))
    status, text = tiny.train(c, folder / "sweep")
    assert status == 0, text
    return folder, text


@pytest.mark.long
def test_a_sweep_over_groups_logs_their_blocks(trained):
    folder, text = trained
    metrics, runs = read_metrics(folder / "sweep"), read_runs(folder / "sweep")
    assert runs["p"].tolist() == [6, 6, 8, 8]
    mine = runs["group"].iloc[-1]
    assert mine.startswith(str(folder / "mine.npy@"))
    lengths = metrics.groupby("group")["excluded_loss_per_freq"].agg(lambda column: {len(x) for x in column})
    assert lengths.to_dict() == {"S_3": {2}, mine: {4}}
    filled = metrics[["restricted_loss", "excluded_loss", "restricted_loss_online", "heldout_restricted_loss_online"]]
    assert filled.iloc[:, :3][metrics["step"] % 20 == 0].notna().all(axis=None)
    assert metrics["gini_W_E"].isna().all()
    assert metrics["gini_freq_W_E"].notna().all()
    schema = pq.read_schema(next((folder / "sweep" / "metrics").glob("*.parquet")))
    told = json.loads(schema.field("freq_norm_W_E").metadata[b"blocks"])
    assert told["S_3"] == {"names": ["1b", "2a"], "dims": [1, 2], "kinds": ["real", "real"], "sizes": [1, 4]}
    assert told[mine]["kinds"] == ["real", "real", "real", "quaternionic"]
    assert b"blocks" not in schema.field("test_loss").metadata
    record = read_record(folder / "sweep")
    assert record["elements"]["S_3"] == list(named("S_3").elements)
    assert list(record["answers"]) == ["group S_3 mod 6", f"group {mine} mod 8"]
    assert "group S_3 (6 elements)" in text or "task" not in text


@pytest.mark.long
def test_a_snapshot_is_measured_by_its_group(trained):
    folder, _ = trained
    found = measure(f"{folder / 'sweep'}:0", groups=["paper"])
    last = read_metrics(folder / "sweep").query("run == 0").iloc[-1]
    np.testing.assert_allclose(found["restricted_loss"], last["restricted_loss"], rtol=1e-5)
    assert found["measured"]["task"] == "group S_3"
    assert len(found["freq_norm_W_E"]) == 2
    with pytest.raises(InputError, match="--keys has 3, but blocks of S_3 are 1 to 2"):
        measure(f"{folder / 'sweep'}:0", keys=[3])


@pytest.mark.long
def test_its_page_and_figure_speak_of_blocks(trained):
    folder, _ = trained
    results = read_results(folder / "sweep")
    assert results.axes == ["group", "seed"]
    page = html(results)
    assert "<dt>key blocks</dt>" in page
    assert "S_3: 1b (1), 2a (4); " in page
    for said in ("Key frequencies", "key frequencies", "Fourier norms", "of one frequency", "× p"):
        assert said not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL), said
    drawn = figures.figure(results, "frequencies")
    assert drawn.axes[0].get_xlabel() == "key block"
    assert drawn.axes[0].get_xlim() == (0.5, 4.5)
    assert figures.title(results, []).startswith("composition in groups, 0.6 of all pairs")


@pytest.mark.long
def test_it_goes_on_with_the_table_that_it_began_with_alone(trained):
    folder, _ = trained
    path = str(folder / "mine.npy")
    status, text = tiny.train(get_config("S_3", path), folder / "sweep")
    assert status == 0
    assert "nothing to do" in text
    np.save(path, named("D_4").table)
    try:
        with pytest.raises(InputError, match=r"holds another sweep \(group of run 2 is '.*there, '.* here"):
            tiny.train(get_config("S_3", path), folder / "sweep")
    finally:
        np.save(path, named("Q_8").table)


@pytest.mark.long
def test_division_leaves_zeros_out_of_every_count(tmp_path):
    c = get_config(task="divide")
    c.p = 5
    c.measures = ("paper", "efficiency")
    assert tiny.train(c, tmp_path / "sweep")[0] == 0
    metrics = read_metrics(tmp_path / "sweep")
    run = sweeps.expand(c).runs[0]
    inputs, problem = run.inputs(), run.problem()
    assert registry.n_pairs(problem) == 20
    assert (inputs.train_pairs % 5 > 0).all()
    assert ((metrics["test_acc"] * (20 - problem.n_train)).round(9) % 1 == 0).all()
    assert metrics[["test_loss", "logit_scale", "right_logit_per_norm_test"]].notna().all(axis=None)
    # What is read over a group is read over the non-zero residues, by the frequencies of Z_4.
    assert metrics[["neuron_fve", "restricted_loss_online", "gini_W_E"]].notna().all(axis=None)
    assert metrics[["products_loss_online", "logit_block_norm"]].isna().all(axis=None)
    assert {len(x) for x in metrics["freq_norm_W_E"]} == {2}
    assert ((metrics["restricted_acc_online"] * 4).round(9) % 1 == 0).all()


@pytest.mark.parametrize("p", [3, 5, 7, 23])
def test_sizes_of_multiplication_are_known_without_its_table(p):
    problem = Problem(ModelConfig(p, 1, 8, 2, 16), 4, group=tasks.units(p))
    read_by = blocks.composition_of(problem)
    assert blocks.n_sums(problem) == read_by.order
    assert blocks.n_blocks(problem) == len(read_by.blocks.sizes) - 1
