"""`grokjax.measure`: what it computes, what it leaves out and why, what it prints; a mistake is one sentence."""

import functools
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import tiny
from cases import REFERENCE, REFERENCE_MODELS, needs_reference, random_case
from commands import assert_refused, call

from grokjax import tasks
from grokjax.cli import measure
from grokjax.errors import InputError
from grokjax.interp import files
from grokjax.interp import measure as measure_lib
from grokjax.interp.checkpoint import from_arrays, load_checkpoint
from grokjax.interp.measure import NO_SPLIT, NO_UPDATE, to_json
from grokjax.interp.measure_table import WIDTH, heading, summary
from grokjax.interp.subject import doubt, subject_of
from grokjax.measures import registry
from grokjax.measures.registry import MEASURES
from grokjax.store.metrics import read_metrics
from grokjax.store.snapshots import load_params

ROOT = Path(__file__).parent.parent
P = 7


@pytest.fixture(scope="module")
def case():
    return random_case(P)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, case):
    """model.npz with its split, bare.npz without."""
    folder = tmp_path_factory.mktemp("models")
    files.save_npz(case.params, case.cfg, folder / "model.npz", case.train_pairs)
    files.save_npz(case.params, case.cfg, folder / "bare.npz")
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """The command in this process, among the models."""
    monkeypatch.chdir(folder)
    return functools.partial(call, capsys, measure.main)


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper(case):
    """The measures of the paper with given keys, and the definitions' values."""
    checkpoint = from_arrays(case.params | {"train_indices": case.train_pairs})
    found = measure_lib.measure(checkpoint, keys=(1, 3), groups=("losses", "paper"))
    return found, oracle.paper_measures(case.params, case.train_pairs, case.answers, keys=[1, 3])


def test_values_are_the_definitions(paper):
    found, exact = paper
    for name, value in exact.items():
        if name == "key_freqs":
            assert found[name] == [1, 3]
        elif np.any(np.isnan(value)):  # of pairs that are held out, in a split that leaves some sum none
            assert found[name] is None, name
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_accuracies_are_exact_shares(paper, case):
    n = len(case.train_pairs)
    assert paper[0]["train_acc"] * n == round(paper[0]["train_acc"] * n)


def test_sets_of_frequencies_are_lists_of_k(paper):
    found, _ = paper
    assert found["key_freqs_W_L"] == oracle.key_freqs(random_case(P).params)
    assert found["n_key_freqs_W_L"] == len(found["key_freqs_W_L"])


def test_everything_is_ready_for_json(paper):
    found, _ = paper
    assert json.loads(to_json(found)) == found
    assert set(found) - {"null", "measured"} == {m.name for m in registry.of_groups(("losses", "paper"))}
    assert {name for name, value in found.items() if value is None} == set(found["null"])


def test_what_was_measured_is_said(paper):
    said = paper[0]["measured"]
    assert {name: said[name] for name in ("p", "n_layers", "d_model", "n_heads", "d_mlp", "act")} == {
        "p": P,
        "n_layers": 1,
        "d_model": 8,
        "n_heads": 2,
        "d_mlp": 16,
        "act": "relu",
    }
    assert said["shapes"]["blocks.0.attn.W_Q"] == [2, 8, 4]
    assert (said["dtype"], said["computed_in"], said["task"]) == ("float32", "float32", "add")
    assert (said["split"], said["n_train"], said["keys"]) == ("train_indices in the file", 19, {"given": [1, 3]})
    assert said["versions"]["jax"]


# --- the split ------------------------------------------------------------------------------------------------------

SMALL = ("losses", "efficiency")


@pytest.fixture(scope="module")
def without_split(folder):
    return measure_lib.measure(folder / "bare.npz", groups=SMALL)


def test_without_a_split_what_needs_one_is_left_out(without_split, folder):
    """Exactly what depends on it: every other value is the same whatever the split."""
    assert without_split["measured"]["split"] is None
    assert {why for name, why in without_split["null"].items()} == {NO_SPLIT}
    splits = [measure_lib.measure(folder / "bare.npz", groups=SMALL, split=f"python:{seed}:0.3") for seed in (0, 1)]
    differ = {name for name in splits[0] if splits[0][name] != splits[1][name]} - {"measured"}
    assert differ <= set(without_split["null"])
    assert set(without_split["null"]) - differ <= {"train_acc", "test_acc"}  # which may agree by chance
    for name in set(splits[0]) - set(without_split["null"]) - {"null", "measured"}:
        np.testing.assert_allclose(without_split[name], splits[0][name], rtol=1e-6)


@pytest.fixture
def only(monkeypatch):
    """Leaves some measures in the registry, so that little needs compiling."""

    def only(*names):
        monkeypatch.setattr(registry, "MEASURES", {name: MEASURES[name] for name in names})

    return only


def test_derivatives_of_the_training_loss_need_a_split(folder, only):
    only("grad_norm", "update_norm", "hessian_top", "weight_norm")
    found = measure_lib.measure(folder / "bare.npz")
    null = {"grad_norm": NO_SPLIT, "update_norm": NO_UPDATE, "hessian_top": NO_SPLIT}
    assert found["null"] == null
    assert found["weight_norm"] > 0


def test_whose_split(folder, case):
    def train_acc(split=None, model="model.npz"):
        found = measure_lib.measure(folder / model, groups=("losses",), split=split)
        return found["measured"]["split"], found["measured"]["n_train"], found["train_acc"], found["null"]

    own = train_acc()
    assert own[:2] == ("train_mask in the file", len(case.train_pairs))
    assert train_acc("mask") == own
    # random_case splits as the released code does, with seed 0 and 40 %.
    assert train_acc("python:0:0.4", "bare.npz")[1:] == own[1:]
    other = train_acc("jax:3:0.5")
    pairs = tasks.train_pairs(P, 0.5, 3)
    assert other[:2] == ("jax:3:0.5", len(pairs))
    assert other[2] == pytest.approx(oracle.accuracy(oracle.all_logits(case.params), case.answers, pairs))


def test_all_pairs_as_training_pairs(folder, case):
    found = measure_lib.measure(folder / "bare.npz", groups=("losses",), split="all")
    assert found["train_loss"] == pytest.approx(
        oracle.mean_loss(oracle.all_logits(case.params), case.answers), rel=1e-5
    )
    assert found["null"] == dict.fromkeys(["test_loss", "test_acc"], "there are no test pairs")


# --- the task and the keys ------------------------------------------------------------------------------------------


def test_tasks(folder, case):
    for task in ("subtract", "multiply"):
        found = measure_lib.measure(folder / "model.npz", task=task, groups=("losses",))
        exact = oracle.mean_loss(oracle.all_logits(case.params), tasks.answers(task, P), case.train_pairs)
        assert found["train_loss"] == pytest.approx(exact, rel=1e-5)
    with pytest.raises(InputError, match="task 'random' draws its answers by the split's seed: give --split=jax"):
        measure_lib.measure(folder / "model.npz", task="random")


def test_what_a_task_has_not_is_left_out(folder, only):
    only("distance_irrelevance", "circularity")
    found = measure_lib.measure(folder / "model.npz", task="quadratic")
    assert found["null"] == {"distance_irrelevance": "task 'quadratic' is no function of a ± b"}
    assert found["circularity"] is not None


@pytest.mark.parametrize("shape", [{"p": 3}, {"p": 12, "n_layers": 2, "act": "gelu"}], ids=["odd", "even"])
def test_any_modulus(only, shape):
    only("train_loss", "restricted_loss", "excluded_loss_max", "key_freqs")
    case = random_case(**shape)
    checkpoint = from_arrays(case.params | {"train_indices": case.train_pairs}, act=case.cfg.act)
    exact = oracle.paper_measures(case.params, case.train_pairs, case.answers, act=case.cfg.act)
    found = measure_lib.measure(checkpoint)
    assert found["key_freqs"] == [int(k) + 1 for k in np.flatnonzero(exact["key_freqs"])]
    for name in ("train_loss", "restricted_loss", "excluded_loss_max"):
        assert found[name] == pytest.approx(exact[name], rel=1e-5)


def test_own_keys_by_rule(folder, case, only):
    only("key_freqs")
    norms = oracle.fourier_norms(case.params["embed.W_E"][:P])[1]
    checkpoint = load_checkpoint(folder / "model.npz")
    found = measure_lib.measure(checkpoint, rule="W_E", threshold=0.8)
    assert found["key_freqs"] == [int(k) + 1 for k in np.flatnonzero(norms > 0.8 * max(norms))]
    assert found["measured"]["keys"] == {"rule": "W_E", "threshold": 0.8}


# --- snapshots ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(folder):
    """A tiny sweep with snapshots of run 0 at steps 0, 20 and 40."""
    c = tiny.get_config()
    c.steps, c.snapshot_every, c.split_seed, c.train_fraction = 40, 20, 5, 0.5
    c.sweep.weight_decay, c.sweep.seed = None, None
    tiny.train(c, folder / "sweep")
    return folder / "sweep"


def test_a_snapshot_is_its_row_of_the_table(sweep):
    rows = read_metrics(sweep).set_index("step")
    for step in (20, 40):
        found = measure_lib.measure(f"{sweep}:0:{step}", groups=("losses",))
        for name in ("train_loss", "test_loss", "train_acc", "test_acc"):
            assert found[name] == pytest.approx(rows.loc[step, name], rel=1e-6)
        assert found["measured"]["split"] == "jax:5:0.5, the run's own"


def test_a_run_without_a_step_is_its_last_snapshot(sweep):
    read = load_checkpoint(f"{sweep}:0")
    assert read.source == f"{sweep}:0:40"
    for name, x in load_params(sweep, 0, 40).items():
        np.testing.assert_array_equal(read.params[name], x)


# --- what is printed ------------------------------------------------------------------------------------------------


def _goes_on(line):
    return line.startswith(" ")


def test_the_table_and_the_file(run, folder):
    status, out, err = run("model.npz", "--keys=1,3", "--measures=losses,spectra", "--out=measures.json")
    assert (status, err) == (0, "")
    found = json.loads((folder / "measures.json").read_text())
    assert found["measured"]["model"] == "model.npz"
    lines = out.splitlines()
    header = next(line for line in lines if line.startswith("measure "))
    for m in registry.of_groups(("losses", "spectra")):
        line = next(line for line in lines if line.startswith(f"{m.name} "))
        at = header.index("source")  # a source that is too wide goes on below
        source = " ".join(below[at:] for below in itertools.takewhile(_goes_on, lines[lines.index(line) + 1 :]))
        assert f"{line[at:]} {source}".split() == m.source.split()
        assert line[header.index("unit") :].startswith(m.unit)
        assert line[header.index("range") :].startswith(m.range)
        shown = line[len(m.name) : header.index("unit")].strip()
        assert float(shown) == pytest.approx(found[m.name], rel=1e-5)
    assert "split  train_mask in the file: 19 of 49 pairs are training pairs" in out
    assert "keys   given" in out


@pytest.mark.long
def test_no_line_of_the_table_is_wider_than_a_terminal(run):
    status, out, _ = run("model.npz")
    assert status == 0
    rows = [line for line in out[out.index("measure ") :].splitlines() if not line.startswith("left out")]
    assert max(map(len, rows)) == WIDTH
    cells = re.search(r"^key_freqs  +([\d, ]+?)  +k  +1 … 3  +\S", out, re.MULTILINE)
    assert cells, "a set of frequencies is listed, and its unit and range are those of k"


def test_the_table_says_what_is_missing(run):
    _, out, _ = run("bare.npz", "--measures=losses")
    assert f"left out, since {NO_SPLIT}: train_loss, test_loss, train_acc, test_acc." in out
    assert "split  not known" in out


def test_lists_are_summarised():
    def shown(name, value):
        return summary(MEASURES[name], value)

    assert shown("freq_norm_W_L", [0.5, 3.0, 0.25, 2.0, 1.0]) == "3 at k = 2, 2 at k = 4, 1 at k = 5, 0.5 at k = 1, …"
    assert shown("trig_coef_all", [-3.0, 0.1]) == "-3 at k = 1, 0.1 at k = 2"
    assert shown("key_freqs", [14, 35]) == "14, 35"
    assert shown("key_freqs", []) == "none"
    assert shown("neuron_freq", [3, 1, 3]) == "3 in 2, 1 in 1"
    assert shown("neuron_fve", [0.5, 0.125, 1.0]) == "0.125 … 0.5 … 1"
    assert shown("train_loss", 1.23456789e-8) == "1.23457e-08"


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        measure.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for flag in ("--keys", "--split", "--out", "--act", "--task", "--measures", "--heads", "--rule", "--threshold"):
        assert flag in out


# --- mistakes -------------------------------------------------------------------------------------------------------

MISTAKES = {
    "no such file": (["nowhere.npz"], "nowhere.npz is no file: name one, or a snapshot as workdir:run:step"),
    "directory": (["."], ". is a directory: name a file, or a run of a sweep as .:RUN or .:RUN:STEP"),
    "no sweep": ([".:0"], "holds no sweep: config.json is missing"),
    "no run": (["sweep:7"], "no snapshot of run 7: it has runs 0"),
    "no step": (["sweep:0:33"], "no snapshot of run 0 at step 33: it has steps 0, 20, 40"),
    "no model": ([], "required: model"),
    "a key of 0": (["model.npz", "--keys=0"], "--keys has 0, but for P = 7 frequencies are 1 to 3"),
    "a key of 4": (["model.npz", "--keys=2,4"], "--keys has 4"),
    "a key of a": (["model.npz", "--keys=a"], "--keys"),
    "rule": (["model.npz", "--rule=W_U"], "--rule 'W_U' is unknown: did you mean"),
    "rule without sums": (["model.npz", "--rule=logits", "--task=quadratic"], "no function of a + b or a - b"),
    "threshold": (["model.npz", "--threshold=1.5"], "--threshold is 1.5, but it must be in (0, 1)"),
    "split": (["model.npz", "--split=half"], "--split=half is not understood"),
    "split's kind": (["model.npz", "--split=numpy:0:0.3"], "--split is 'numpy', but it must be one of jax, python"),
    "split's seed": (["model.npz", "--split=jax:-1:0.3"], "--split's seed is -1"),
    "split's fraction": (["model.npz", "--split=jax:0:1.5"], "--split's fraction is 1.5"),
    "tiny fraction": (["model.npz", "--split=jax:0:0.001"], "leaves 0 of 49 pairs to train on"),
    "no mask": (
        ["bare.npz", "--split=mask"],
        "--split=mask asks for the model's own split, but bare.npz does not tell",
    ),
    "task": (["model.npz", "--task=ad"], "task 'ad' is unknown: did you mean 'add'?"),
    "group": (["model.npz", "--measures=papr"], "group 'papr' is unknown: did you mean 'paper'?"),
    "experiment": (["model.npz", "--experiment=nowhere.py"], "nowhere.py names no file"),
    "act": (["model.npz", "--act=silu"], "--act 'silu' is unknown: known are gelu, quadratic, relu"),
    "flag": (["model.npz", "--kees=3"], "--kees"),
    "out": (["model.npz", "--measures=losses", "--out=no/where.json"], "--out=no/where.json cannot be written"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(run, sweep, name):
    args, sentence = MISTAKES[name]
    assert_refused(run(*args), sentence)


def test_a_damaged_sweep_is_one_sentence(run, sweep, tmp_path):
    for name, text in {
        "empty": "",
        "list": "[]",
        "other": '{"a": 1}',
        "runs": '{"runs": [{"p": 7}], "config": {}}',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
        status, _, err = run(f"{tmp_path / name}:0")
        assert status == 2
        assert re.fullmatch(r"error: .*config\.json (cannot be read|is no sweep's).*\n", err)
    path = next((sweep / "snapshots").glob("step_00000020*"))
    broken = tmp_path / "broken" / "snapshots" / path.name
    broken.mkdir(parents=True)
    (tmp_path / "broken" / "config.json").write_text((sweep / "config.json").read_text())
    status, _, err = run(f"{tmp_path / 'broken'}:0:20")
    assert status == 2
    assert re.fullmatch(r"error: .*(cannot be read|is damaged|is incomplete|does not say what it holds).*\n", err)


@pytest.mark.long
def test_in_a_process_of_its_own(folder):
    (folder / "cut.npz").write_bytes((folder / "model.npz").read_bytes()[:1000])
    command = [sys.executable, "-m", "grokjax", "measure", str(folder / "cut.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*cut\.npz cannot be read: it is damaged or cut short \(.*\)\.\n", done.stderr)


def test_an_experiments_own_measures(run, folder, monkeypatch):
    monkeypatch.setattr(registry, "MEASURES", dict(registry.MEASURES))
    (folder / "mine.py").write_text(
        "from grokjax import config\n"
        "from grokjax.measures import measure\n"
        "@measure('mine', unit='1', description='P.', source='this test')\n"
        "def modulus(s):\n    return s.logits_NxP.shape[1] * 1.0\n"
        "def get_config(arg):\n    return config.default()\n"
    )
    status, out, _ = run("model.npz", "--experiment=mine.py", "--measures=mine")
    assert status == 0
    assert re.search(r"^modulus +7 +1 +\(-∞, ∞\) +this test$", out, re.MULTILINE)


# --- the reference models -------------------------------------------------------------------------------------------

# What they list beside measures; trig_coef is trig_coef_all at the keys.
NOT_MEASURED = {"step", "recorded_train_loss", "recorded_test_loss", "trig_coef"}
GROUPS = ("losses", "paper")


def worst(found, listed):
    """The largest relative error of a loss and of anything else that is listed; counts and sets must be equal."""
    errors = {"loss": 0.0, "other": 0.0}
    for name in listed.keys() - NOT_MEASURED:
        got, expected = np.asarray(found[name]), np.asarray(listed[name])
        if expected.dtype.kind == "i":
            np.testing.assert_array_equal(got, expected, err_msg=name)
            continue
        # Coefficients near 0 are sums of large numbers that cancel: they are right relative to the largest.
        scale = np.max(np.abs(expected)) if name == "trig_coef_all" else np.abs(expected)
        kind = "loss" if "loss" in name else "other"
        errors[kind] = max(errors[kind], float(np.max(np.abs(got - expected) / scale)))
    return errors


def listed_values(name):
    return json.loads((REFERENCE / f"{name}.json").read_text())


@needs_reference
@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_reference_models_in_float32(name):
    listed = listed_values(name)
    found = measure_lib.measure(REFERENCE / f"{name}.npz", keys=listed["key_freqs"], groups=GROUPS)
    errors = worst(found, listed)
    assert errors["loss"] < 1e-5
    assert errors["other"] < 1e-4


@pytest.fixture(scope="module")
def float64(tmp_path_factory):
    """What the command writes about all of them, in a process of its own: JAX takes its widest float as it starts."""
    folder = tmp_path_factory.mktemp("float64")
    code = ["from grokjax.cli import measure"]
    for name in REFERENCE_MODELS:
        args = [str(REFERENCE / f"{name}.npz"), f"--measures={','.join(GROUPS)}", f"--out={folder / name}.json"]
        args.append(f"--keys={','.join(map(str, listed_values(name)['key_freqs']))}")
        code.append(f"measure.main({args!r})")
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, env=environment, check=True, capture_output=True)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in REFERENCE_MODELS}


@needs_reference
@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_reference_models_in_float64(name, float64):
    """The listed values were computed in float64 too, and are listed whole."""
    assert float64[name]["measured"]["computed_in"] == "float64"
    errors = worst(float64[name], listed_values(name))
    assert errors["loss"] < 1e-9
    assert errors["other"] < 1e-9


# --- a model under the wrong task -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [12, 23])
@pytest.mark.parametrize("own", ["add", "subtract", "quadratic"])
def test_a_model_under_the_wrong_task_is_told_its_own(p, own):
    given = tasks.answers(own, p)
    for name in ("add", "subtract"):
        subject = subject_of(from_arrays(random_case(p).params, n_heads=2), (), None, None, None, name)
        said = doubt(subject, given)
        if name == own:
            assert said == ""
        else:
            assert f"its answers to task '{name}' are hardly better than a guess" in said
            assert f"they fit task '{own}' (100.0%): give --task={own}." in said


def test_answers_of_no_built_in_task_are_said_to_be_so():
    subject = subject_of(from_arrays(random_case(23).params, n_heads=2), (), None, None, None, None)
    given = np.random.default_rng(0).integers(0, 23, 529)
    assert doubt(subject, given).endswith("so the numbers may say nothing of it; no built-in task or group fits them.")
    half = np.where(np.arange(529) % 5 == 0, tasks.answers("add", 23), given)
    assert doubt(subject, half) == ""


def test_the_doubt_is_printed(run, folder, case):
    found = measure_lib.measure(folder / "model.npz")
    given = np.argmax(oracle.all_logits(case.params), 1)
    subject = subject_of(load_checkpoint(folder / "model.npz"), (), None, None, None, None)
    assert found["measured"]["doubt"] == doubt(subject, given)
    table = "\n".join(heading(found["measured"] | {"doubt": "a doubt."}))
    assert "note   a doubt.\n" in table
    assert "note" not in "\n".join(heading(found["measured"] | {"doubt": ""}))
