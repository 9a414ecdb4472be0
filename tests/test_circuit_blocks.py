"""The reverse engineering of models of groups: against definitions in NumPy, and frequencies as the cyclic case."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import oracle_circuit
import oracle_groups
import pyarrow.parquet as pq
import pytest
import tiny
from commands import assert_refused, call
from scipy.special import logsumexp
from tiers import long_but

import grokjax
from grokjax.cli import circuit, export, measure
from grokjax.core import model
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Problem
from grokjax.errors import InputError, in_python
from grokjax.finite_groups import named
from grokjax.interp import files, subject
from grokjax.interp.checkpoint import from_arrays
from grokjax.interp.circuit import analysis
from grokjax.interp.circuit.analysis import analyse
from grokjax.interp.circuit.registry import numbers
from grokjax.interp.circuit.table import block_rows, rows, table
from grokjax.measures import blocks
from grokjax.measures.shared import NEURON_FVE

CLOSE = {"rtol": 1e-8, "atol": 1e-11}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def random_model(p, seed=0):
    """A shape, parameters in float64, and training pairs."""
    cfg, rng = ModelConfig(p=p, d_model=8, n_heads=2, d_mlp=6), np.random.default_rng(seed)
    params = {key: rng.normal(0, 1 / np.sqrt(shape[-1]), shape) for key, shape in model.shapes(cfg).items()}
    return cfg, params, np.sort(rng.choice(p * p, p * p // 3, replace=False)).astype(np.int32)


# --- by definition --------------------------------------------------------------------------------------------------


class Definition:
    """The numbers of a model of a group, slowly: projections are matrices, and products of them are on the grid."""

    def __init__(self, group, params, train, keys):
        self.group, self.n = group, group.order
        self.of = blocks.composition_of(Problem(ModelConfig(p=group.order), 1, group=group.name)).blocks
        self.P = oracle_groups.projections(self.of, group)
        self.keys, self.train = keys, np.isin(np.arange(self.n**2), train)
        self.params, self.parts = params, oracle_circuit.model(params)
        self.logits, self.acts = self.parts["logits"], self.parts["acts"]
        w = oracle_circuit.weights(params)
        self.W_L = (w["W_out"] @ w["W_U"]).T

    def losses(self, logits):
        answers = self.group.table.ravel()
        loss = logsumexp(logits, 1) - logits[np.arange(len(answers)), answers]
        return [loss.mean(), loss[self.train].mean(), loss[~self.train].mean()]

    def products(self, x, k):
        """The projection on span{1, B}(a) ⊗ span{1, B}(b) of block k, the constant of both taken off."""
        both = self.P[0] + self.P[k]
        grid = x.reshape(self.n, self.n, -1)
        return (np.einsum("xa,yb,abm->xym", both, both, grid) - grid.mean((0, 1))).reshape(x.shape)

    def of_products(self, x):
        """The mean over the pairs of each product, at every pair."""
        means = oracle_groups.mean_over_pairs(self.group.table, x.reshape(self.n, self.n, -1))
        return means, self.group.table.ravel()

    def shares(self):
        """Of each neuron's variance in each block's products: [block, neuron]."""
        total = np.sum((self.acts - self.acts.mean(0)) ** 2, 0)
        squares = [np.sum(self.products(self.acts, k) ** 2, 0) for k in range(1, len(self.P))]
        return np.array(squares) / np.where(total > 0, total, 1)

    def numbers(self):
        shares, (means, product) = self.shares(), self.of_products(self.logits)
        own = (np.arange(len(shares))[:, None] == shares.argmax(0)) & (shares > NEURON_FVE)
        polynomials = self.acts.copy()
        for k, mine in enumerate(own, 1):
            polynomials[:, mine] = (self.acts.mean(0) + self.products(self.acts, k))[:, mine]
        every = range(1, len(self.P))
        centred = self.logits - self.logits.mean()
        readout = [self.acts @ (self.P[k] @ self.W_L).T for k in every]
        kept = self.P[0] + sum(self.P[k] for k in self.keys)
        lost = {
            "loss": self.logits,
            "loss_sum_directions": (kept @ means)[product],
            "loss_key_components": self.logits.mean(0) + sum(self.products(self.logits, k) for k in self.keys),
            "loss_neurons_as_polynomials": self.logits + (polynomials - self.acts) @ self.W_L.T,
            "loss_logits_as_cosines": self.characters(),
        }
        found = {name: self.losses(logits) for name, logits in lost.items()}
        neurons = self.acts @ self.W_L.T
        found["loss_without_block"] = [self.losses(self.logits - (self.P[k] @ means)[product]) for k in every]
        found["loss_without_freq"] = [self.losses(self.logits - self.products(neurons, k)) for k in every]
        gone = [np.where(mine, self.acts - self.acts.mean(0), 0) @ self.W_L.T for mine in own]
        found["loss_without_neurons"] = [self.losses(self.logits - x) for x in gone]
        found = {
            name + pairs: np.array(value)[..., i]
            for name, value in found.items()
            for i, pairs in enumerate(("", "_train", "_test"))
        }
        return found | {
            "logit_share": [self.n * np.sum((self.P[k] @ means) ** 2) / np.sum(centred**2) for k in every],
            "neurons_per_freq": own.sum(1),
            "readout_fve": [self.explained(x, k) for k, x in enumerate(readout, 1)],
            "W_L_residual": np.linalg.norm(self.W_L - (kept - self.P[0]) @ self.W_L) / np.linalg.norm(self.W_L),
            "attention_fve": self.attention(),
            "W_L_directions": sum(self.of.sizes[k] for k in self.keys),
        }

    def characters(self):
        """Σ α_ρ χ_ρ over the keys, by least squares on all blocks."""
        eye = np.eye(len(self.P) - 1)
        waves = [oracle_groups.planted(self.group, self.of, row).ravel() for row in eye]
        centred = (self.logits - self.logits.mean(1, keepdims=True)).ravel()
        alphas = np.linalg.lstsq(np.stack(waves, 1), centred, rcond=None)[0]
        return sum(alphas[k - 1] * waves[k - 1] for k in self.keys).reshape(self.logits.shape)

    def explained(self, readout, k):
        """Share of the centred variance of the readout, [pair, class], that a multiple of P_B[a∘b, c] explains."""
        waves = self.P[k][self.group.table.ravel()]
        total = np.sum((readout - readout.mean(0)) ** 2)
        return np.sum(waves * readout) ** 2 / np.sum(waves**2) / total

    def attention(self):
        """By head, the best block's least squares of 1/2 + f(a) - f(b)."""
        a, b = np.divmod(np.arange(self.n**2), self.n)
        best = []
        for head in range(self.parts["pattern"].shape[1]):
            to_a = self.parts["pattern"][:, head, 0]
            fits = []
            for k in range(1, len(self.P)):
                basis = self.of.basis[self.of.block_of_row == k]
                waves = (basis[:, a] - basis[:, b]).T
                rest = to_a - 0.5 - waves @ np.linalg.lstsq(waves, to_a - 0.5, rcond=None)[0]
                fits.append(1 - np.sum(rest**2) / np.sum((to_a - to_a.mean()) ** 2))
            best.append(max(fits))
        return best


@pytest.mark.parametrize("name", long_but(["Q_8"], ["S_3", "Q_8"]))
def test_numbers_are_the_definitions(name, float64):
    group = named(name)
    _, params, train = random_model(group.order)
    n_blocks = len(blocks.blocks_of(Problem(ModelConfig(p=group.order), 1, group=name))["names"])
    keys = sorted({2, n_blocks})
    exact = Definition(group, params, train, keys).numbers()
    found = analyse(from_arrays(params | {"train_indices": train}, act="relu"), keys, task=f"group {name}")
    assert name != "S_3" or sum(found["neurons_per_freq"]) > 0
    for number, value in exact.items():
        np.testing.assert_allclose(found[number], value, **CLOSE, err_msg=number)


@pytest.mark.long
def test_frequencies_are_the_cyclic_case(float64):
    """The same model read by frequencies and by blocks."""
    cfg, params, train = random_model(8)
    answers = np.add.outer(np.arange(8), np.arange(8)).ravel().astype(np.int32) % 8
    mask = np.isin(np.arange(64), train)
    one = Problem(cfg, 0, direction=1)
    args = (params, mask, answers, np.array([True, False, False, True]))
    by_frequency, _ = analysis._compute(one, *args)
    by_block, _ = analysis._compute(dataclasses.replace(one, group="Z_8", direction=None), *args)
    for name, f in numbers(in_blocks=False).items():
        if not f.cyclic_only:
            np.testing.assert_allclose(by_block[name], by_frequency[name], **CLOSE, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("task", ["multiply", "divide"])
def test_multiplication_is_read_where_neither_is_zero(task, float64):
    """The numbers of functions of the product are those of the model of Z_6 that has the logarithms for tokens."""
    _, params, _ = random_model(7)
    powers = np.array([1, 3, 2, 6, 4, 5])  # of 3
    params["unembed.W_U"][:, 0] = 0  # the class 0 has no part in what W_L's rank counts
    within = dict(params)
    within["embed.W_E"] = params["embed.W_E"][[*powers, 7]]
    within["unembed.W_U"] = params["unembed.W_U"][:, powers]
    train = np.array([1, 8, 9, 20, 30])
    tokens = powers[train // 6] * 7 + powers[train % 6]
    found = analyse(from_arrays(params | {"train_indices": tokens}, act="relu"), [1, 3], task=task)
    one = "add" if task == "multiply" else "subtract"
    wanted = analyse(from_arrays(within | {"train_indices": train}, act="relu"), [1, 3], task=one)
    assert found["measured"]["blocks"]["names"] == ["k=1", "k=2", "k=3"]
    of_product = ["loss_sum_directions", "loss_sum_directions_test", "loss_logits_as_cosines_train", "W_L_residual"]
    of_product += ["neurons_per_freq", "attention_fve", "W_L_rank", "fve_logits_trig_centred"]
    of_product += ["key_freqs_logits", "W_L_directions", "attention_freq"]
    for name in of_product if task == "multiply" else of_product[:-3]:
        np.testing.assert_allclose(found[name], wanted[name], **CLOSE, err_msg=name)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep over a group and a cyclic one, trained for a few steps, and a model of S_3's shape in model.npz."""
    folder = tmp_path_factory.mktemp("groups")
    c = tiny.get_config()
    c.p, c.task, c.sweep.group, c.sweep.weight_decay, c.sweep.seed = 113, "group", ("S_3", "Z_7"), None, (0,)
    c.steps, c.eval_every, c.snapshot_every = 20, 20, 20
    assert tiny.train(c, folder / "sweep")[0] == 0
    cfg, params, train = random_model(6)
    files.save_npz(params, cfg, folder / "model.npz", train)
    return folder


def test_the_table_names_blocks(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    status, out, err = call(capsys, circuit.main, "sweep", "--run=0", "--keys=2", "--out=circuit.json")
    assert (status, err) == (0, "")
    found = json.loads((folder / "circuit.json").read_text())
    assert found["measured"]["blocks"]["names"] == ["1b", "2a"]
    assert {row.number: row.here for row in rows(found)}["key_freqs"] == "2 (2a)"
    header, sign, standard = block_rows(found)
    assert header[:5] == ["block", "dim", "type", "functions", "key"]
    assert (sign[:5], standard[:5]) == (["1 (1b)", "1", "real", "1", ""], ["2 (2a)", "2", "real", "4", "key"])
    assert "cos" not in out.partition("left out")[0]
    assert out.endswith(f"{table(found)}\n")


def test_a_sweep_over_groups_is_one_table(folder, tmp_path, capsys):
    shutil.copytree(folder / "sweep", tmp_path / "sweep")
    assert call(capsys, circuit.main, str(tmp_path / "sweep"), "--all")[0] == 0
    held = pq.read_table(tmp_path / "sweep" / "circuit.parquet")
    assert [len(x) for x in held["loss_without_freq"].to_pylist()] == [2, 3]
    assert [None if x is None else len(x) for x in held["logit_share"].to_pylist()] == [2, None]
    told = json.loads(held.schema.field("logit_share").metadata[b"blocks"])
    assert told == {"S_3": {"names": ["1b", "2a"], "dims": [1, 2], "kinds": ["real", "real"], "sizes": [1, 4]}}
    frame = held.to_pandas()
    assert rows(frame.loc[0])[0].claim == "key blocks in use"
    assert rows(frame.loc[1])[0].claim == "key frequencies in use"


def test_cyclic_tasks_have_no_number_more():
    assert not {"logit_share", "loss_without_block", "readout_fve", "trig_share"} & set(numbers(in_blocks=False))


# --- the group of others' models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", long_but(["measure"], {"measure": measure, "circuit": circuit}))
def test_the_group_is_given_by_name_or_by_its_table(command, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    np.save("mine.npy", named("S_3").table)
    found = {}
    for group in ("S_3", "mine.npy"):
        args = ["--measures=losses"] if command is measure else []
        assert call(capsys, command.main, "model.npz", f"--group={group}", "--out=found.json", *args)[0] == 0
        found[group] = json.loads((folder / "found.json").read_text())
    tasks = [found[group].pop("measured")["task"] for group in found]
    assert tasks[0] == "group S_3"
    assert tasks[1].startswith("group mine.npy@")
    assert found["S_3"] == found["mine.npy"] or command is circuit


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--group=S_4"], "model.npz has P = 6, but group S_4 has 24 elements: name the group that it was trained on."),
        (["--group=S4"], "--group is 'S4', but it must be Z_n, D_n "),
        (["--group=no.npy"], "--group: no.npy cannot be read (No such file or directory)."),
        (["--group=S_3", "--task=add"], "--task is add, but --group is S_3: leave out one of the two."),
        (["--task=group"], "--task is group, but not which: give --group, such as --group=S_5."),
    ],
)
def test_a_group_that_does_not_fit_is_told(args, said, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert_refused(call(capsys, measure.main, "model.npz", *args), said)


def test_a_snapshot_says_its_own(folder, capsys):
    said = "--group is D_3, but {}:0:20 says that its task is group S_3: leave out --group.".format(folder / "sweep")
    assert_refused(call(capsys, measure.main, f"{folder / 'sweep'}:0", "--group=D_3"), said)


def test_an_export_carries_the_group(folder, tmp_path, capsys):
    out = tmp_path / "out.npz"
    assert call(capsys, export.main, str(folder / "model.npz"), str(out), "--group=S_3")[0] == 0
    assert json.loads(str(np.load(out)["grokjax"]))["task"] == "group S_3"
    assert_refused(
        call(capsys, export.main, str(folder / "model.npz"), str(tmp_path / "x.npz"), "--group=Z_7"), "has P = 6, but "
    )


def doubted(task, given):
    """What is said of a model that is measured by a task, and gives these answers."""
    p = len(given)
    _, params, _ = random_model(p)
    return subject.doubt(subject.subject_of(from_arrays(params), (), None, None, None, task), given.ravel())


def test_answers_of_another_group_are_told():
    said = doubted("group A_4", named("D_6").table)
    assert said.endswith("; they fit group 'D_6' (100.0%): give --group=D_6.")
    said = doubted("group Z_2 x Z_4", named("Z_2 x Z_2 x Z_2").table)
    assert said.endswith("; no built-in task or group fits them.") or not said
    assert doubted("add", named("Q_8").table).endswith("; they fit group 'Q_8' (100.0%): give --group=Q_8.")
    said = doubted("group S_3", named("Z_2 x Z_3").table)
    assert said.endswith("; they fit group 'Z_2 x Z_3' (100.0%): give --group='Z_2 x Z_3'.")
    assert in_python(said).endswith("give group='Z_2 x Z_3'.")
    assert doubted("group Z_3 x Z_5", named("Z_15").table).endswith("; they fit task 'add' (100.0%): give --task=add.")


def test_answers_in_the_other_order_are_told(tmp_path):
    table = named("A_4").table
    said = doubted("group A_4", table.T)
    assert "; they fit group 'A_4' with a and b exchanged (100.0%), as where permutations compose from right to" in said
    np.save(tmp_path / "mine.npy", table.T)
    assert doubted(f"group {tmp_path / 'mine.npy'}", table.T) == ""
    assert "with a and b exchanged" in doubted(f"group {tmp_path / 'mine.npy'}", table)


def test_from_python_it_is_an_argument():
    _, params, train = random_model(6)
    with pytest.warns(UserWarning, match="its answers to task 'group S_3' are hardly better than a guess"):
        found = grokjax.measure(params | {"train_indices": train}, group="S_3", groups=("losses",))
    assert found["measured"]["task"] == "group S_3"
    with pytest.raises(InputError, match="task is add, but group is S_3: leave out one of the two"):
        grokjax.measure(params, task="add", group="S_3")
    with pytest.raises(InputError, match=r"^group is 'S3', but it must be Z_n"):
        grokjax.circuit(params, group="S3")
