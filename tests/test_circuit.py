"""`grokjax circuit`: the table, the file, a whole sweep, what is left out and why; a mistake is one sentence."""

import functools
import itertools
import json
import shutil

import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import REFERENCE, needs_reference, random_case
from commands import assert_refused, call

from grokjax.cli import circuit
from grokjax.errors import InputError
from grokjax.interp import files
from grokjax.interp.circuit import registry, text
from grokjax.interp.circuit.analysis import NO_KEY, NO_TEST, analyse
from grokjax.interp.circuit.registry import NUMBERS, numbers
from grokjax.interp.circuit.runs import circuits_of, schema
from grokjax.interp.circuit.table import rows
from grokjax.interp.measure import NO_SPLIT
from grokjax.interp.measure_table import WIDTH
from grokjax.store import files as files_lib
from tools import blocks, docs
from tools import circuit as circuit_page

P = 7  # with the shape of the tiny sweep's models, so that one compilation serves them all


@pytest.fixture(scope="module")
def case():
    return random_case(P)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, case, finished):
    """model.npz with its split, bare.npz without, and a finished sweep."""
    folder = tmp_path_factory.mktemp("circuits")
    files.save_npz(case.params, case.cfg, folder / "model.npz", case.train_pairs)
    files.save_npz(case.params, case.cfg, folder / "bare.npz")
    shutil.copytree(finished[0], folder / "sweep")
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """The command in this process, among the models."""
    monkeypatch.chdir(folder)
    return functools.partial(call, capsys, circuit.main)


# --- one model ------------------------------------------------------------------------------------------------------


def test_the_table_and_the_file(run, folder):
    status, out, err = run("model.npz", "--keys=1,3", "--out=circuit.json")
    assert (status, err) == (0, "")
    found = json.loads((folder / "circuit.json").read_text())
    assert found == analyse(folder / "model.npz", keys=(1, 3)) | {"measured": found["measured"]}
    assert (found["measured"]["model"], found["measured"]["keys"]) == ("model.npz", {"given": [1, 3]})
    lines = out.splitlines()
    header = next(line for line in lines if line.startswith("claim "))
    table = lines[lines.index(header) + 1 : next(i for i, line in enumerate(lines) if line.startswith("left out"))]
    assert max(map(len, [header, *table])) <= WIDTH
    columns = [header.index(name) for name in ("claim", "paper", "this model", "source")]
    for (begin, end), name in zip(itertools.pairwise(columns), ("claim", "paper", "here"), strict=True):
        held = " ".join(line[begin:end] for line in table).split()  # cells that are too wide go on below
        assert held == " ".join(getattr(row, name) for row in rows(found)).split()
    assert "split  train_mask in the file: 19 of 49 pairs are training pairs" in out


def test_rows_print_numbers_in_few_words(folder):
    found = analyse(folder / "model.npz", keys=(1, 3))
    here = {row.number: row.here for row in rows(found)}
    assert here["key_freqs"] == "1, 3"
    assert here["W_L_directions"] == "4"
    assert here["W_L_residual"] == text.percent_text(found["W_L_residual"])
    each = [text.loss_text(found["loss_without_freq"][k - 1]) for k in (1, 3)]
    assert here["loss_without_freq"] == f"1: {each[0]}, 3: {each[1]}"
    all_pairs, train, test = (text.loss_text(found[f"loss{suffix}"]) for suffix in ("", "_train", "_test"))
    assert here["loss"] == f"{all_pairs} (train {train}, test {test})"


def test_numbers_as_text():
    losses = {
        0: "0",
        5.1275e-8: "5.13e-8",
        2e-4: "2.00e-4",
        0.0241: "0.0241",
        5.27: "5.27",
        24.31: "24.3",
        101.2: "101",
    }
    assert [text.loss_text(x) for x in losses] == list(losses.values())
    assert text.percent_text(0.974770) == "97.48 %"
    found = {"key_freqs": [2], "neurons": [0, 3, 1], "fve": [0.5, 0.25], "none": []}
    assert text.at_some(str)("neurons", found) == "2: 3, 3: 1"
    assert text.at_keys(text.percent_text)("fve", found) == "2: 25 %"
    assert text.freqs("none", found) == "none"


def test_one_step_of_a_run(run, folder):
    assert "sweep:2:100; a snapshot of grokjax" in run("sweep", "--run=2", "--step=100")[1]
    assert "sweep:2:200; a snapshot of grokjax" in run("sweep", "--run=2")[1]


# The paper's numbers of its final model, row by row.
PAPER = """14, 35, 41, 42, 52; 6; about 10; under 0.55 %; 93.2–98.2 %; 95 %; 4.7e-8; 433 of 512; 84.6 %;
14: 44, 35: 93, 41: 145, 42: 87, 52: 64; yes; 20; 20, five blocks; 0.1–0.4 %; 35, 42, 52, 42;
99.03 %, 98.49 %, 99.07 %, 97.91 %; 2.41e-7; 2.48e-7; 5.54e-8; 7.24e-8; 1.19e-7; 5.27;
14: 2.0e-4, 35: 4.6e-4, 41: 1.9e-3, 42: 5.2e-3, 52: 2.4e-2; 9.1e-7; 7.3e-7; 24.3; 19.1; 2.12e-7"""


def test_everything_is_claimed_and_described():
    """Every row of the paper's table of a final model has its numbers, and every number its description and source."""
    assert {f.paper for f in NUMBERS.values()} >= set(PAPER.replace("\n", " ").split("; "))
    for name, f in NUMBERS.items():
        assert f.description.endswith(".") or f.description.endswith(")."), name
        assert f.source, name
        of_all = NUMBERS.get(name.rpartition("_")[0], f)  # of the loss on all pairs
        assert f.claim or f.in_group or of_all.claim or of_all.in_group, name
        assert f.paper == "" or f.claim, name


# --- what is left out -----------------------------------------------------------------------------------------------


def test_without_a_split_there_are_losses_on_all_pairs(folder, run):
    bare, whole = analyse(folder / "bare.npz"), analyse(folder / "model.npz")
    of_pairs = {name for name in numbers(in_blocks=False) if name.endswith(("_train", "_test"))}
    assert {name for name, why in bare["null"].items() if why == NO_SPLIT} == of_pairs
    for name in numbers(in_blocks=False).keys() - of_pairs:
        assert bare[name] == whole[name]
    assert f"left out, since {NO_SPLIT}: loss_train" in run("bare.npz")[1]
    every = analyse(folder / "bare.npz", split="all")
    assert every["loss_train"] == pytest.approx(every["loss"])
    assert every["null"]["loss_test"] == NO_TEST


def test_without_keys_claims_about_them_are_null(folder, monkeypatch):
    names = ("key_freqs", "W_L_residual", "loss_key_directions", "localisation")
    few = {name: NUMBERS[name] for name in names}
    monkeypatch.setattr(registry, "NUMBERS", few)
    found = analyse(folder / "model.npz", rule="neurons")
    assert found["key_freqs"] == []
    keyed = dict.fromkeys(("W_L_residual", "loss_key_directions"), NO_KEY)
    assert found["null"] == keyed | {"localisation": NUMBERS["localisation"].undefined}
    here = {row.number: row.here for row in rows(found)}
    assert (here["key_freqs"], here["W_L_residual"]) == ("none", "–")


def test_without_a_sum_what_projects_on_it_is_null(folder, case, monkeypatch):
    few = {name: NUMBERS[name] for name in ("key_freqs", "loss_sum_directions", "loss")}
    monkeypatch.setattr(registry, "NUMBERS", few)
    found = analyse(folder / "model.npz", task="quadratic")
    assert found["null"] == {"loss_sum_directions": "task 'quadratic' is no function of a ± b"}
    a, b = np.divmod(np.arange(P * P), P)
    assert found["loss"] == pytest.approx(
        oracle.mean_loss(oracle.all_logits(case.params), (a * a + a * b + b * b) % P), rel=1e-5
    )


# --- a sweep --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(folder):
    """circuit.parquet of the sweep."""
    path, missed = circuits_of(folder / "sweep")
    assert missed == {}
    return path


def test_a_row_per_run(table, folder):
    frame, runs = pd.read_parquet(table), pd.read_parquet(folder / "sweep" / "runs.parquet")
    assert frame["run"].tolist() == [0, 1, 2, 3]
    assert (frame["step"] == 200).all()
    both = frame.merge(runs, on="run", suffixes=("", "_of_runs"))
    for name in ("weight_decay", "seed"):
        assert (both[name] == both[f"{name}_of_runs"]).all()
    for keys, of_runs in zip(both["key_freqs"], both["key_freqs_of_runs"], strict=True):
        assert keys.tolist() == of_runs.tolist()
    np.testing.assert_allclose(both["loss_test"], both["test_loss"], rtol=1e-4)


def test_a_row_is_the_run(table, folder):
    row = pd.read_parquet(table).set_index("run").loc[3]
    found = analyse(f"{folder / 'sweep'}:3")
    assert rows(row) == rows(found)
    assert json.loads(row["null"]) == found["null"]
    assert json.loads(row["measured"])["keys"] == {"rule": "W_L", "threshold": 0.25}


def test_columns_say_what_they_are(table):
    written = pq.read_schema(table)
    for field, wanted in zip(written, schema(["weight_decay", "seed"]), strict=True):
        assert (field.name, field.metadata) == (wanted.name, wanted.metadata)
        assert field.metadata[b"description"].endswith((b".", b")")), field.name
    said = {key.decode(): x.decode() for key, x in written.field("W_L_residual").metadata.items()}
    assert (said["paper"], said["unit"], said["source"]) == ("under 0.55 %", "fraction", "Nanda et al. 2023, §4.2")
    assert str(written.field("key_freqs").type) == "list<element: int64>"


def test_runs_that_have_not_ended_are_named(folder, tmp_path, run, capsys):
    shutil.copytree(folder / "sweep", tmp_path / "sweep", ignore=shutil.ignore_patterns("circuit.parquet"))
    frame = pd.read_parquet(tmp_path / "sweep" / "runs.parquet")
    frame.loc[[0, 1], "status"] = ["diverged", "training"]
    frame.loc[0, "last_step"] = 40
    files_lib.write_parquet(pa.Table.from_pandas(frame), tmp_path / "sweep" / "runs.parquet")
    status, out, err = run(str(tmp_path / "sweep"), "--all", "--keys=2")
    assert (status, err) == (0, "")
    assert "left out: run 0: diverged at step 40; run 1: still training" in out
    written = pd.read_parquet(tmp_path / "sweep" / "circuit.parquet")
    assert written["run"].tolist() == [2, 3]
    assert [keys.tolist() for keys in written["key_freqs"]] == [[2], [2]]
    frame["status"] = "waiting"
    files_lib.write_parquet(pa.Table.from_pandas(frame), tmp_path / "sweep" / "runs.parquet")
    with pytest.raises(InputError, match="has no run to analyse: runs 0-3: not begun"):
        circuits_of(tmp_path / "sweep")


# --- mistakes -------------------------------------------------------------------------------------------------------

MISTAKES = {
    "no such file": (["nowhere.npz"], "nowhere.npz is no file"),
    "a sweep alone": (["sweep"], "sweep is a directory: name a run of the sweep with --run, or all of them with --all"),
    "no such run": (["sweep", "--run=9"], "no snapshot of run 9: it has runs 0-3"),
    "no such step": (["sweep", "--run=0", "--step=33"], "no snapshot of run 0 at step 33: it has steps 0, 100, 200"),
    "a run below 0": (["sweep", "--run=-1"], "--run and --step are numbers from 0"),
    "a run of a file": (["model.npz", "--run=1"], "model.npz is no directory"),
    "a step of no run": (["sweep", "--step=100"], "--step needs --run"),
    "all and one": (["sweep", "--all", "--run=0"], "--all takes every run as it is: leave out --run"),
    "all to a file": (["sweep", "--all", "--out=x.json"], "leave out --out"),
    "all of nothing": (["nowhere", "--all"], "nowhere does not exist."),
    "a key of 4": (["model.npz", "--keys=4"], "--keys has 4, but for P = 7 frequencies are 1 to 3"),
    "a key of 4 for all": (["sweep", "--all", "--keys=4"], "--keys has 4, but for P = 7 frequencies are 1 to 3"),
    "rule": (["model.npz", "--rule=W_U"], "--rule 'W_U' is unknown: did you mean"),
    "threshold": (["model.npz", "--threshold=1.5"], "--threshold is 1.5, but it must be in (0, 1)"),
    "split": (["model.npz", "--split=half"], "--split=half is not understood"),
    "task": (["model.npz", "--task=ad"], "task 'ad' is unknown: did you mean 'add'?"),
    "act": (["model.npz", "--act=silu"], "--act 'silu' is unknown"),
    "flag": (["model.npz", "--kees=3"], "--kees"),
    "out": (["model.npz", "--keys=1,3", "--out=no/where.json"], "--out=no/where.json cannot be written"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(run, name):
    args, sentence = MISTAKES[name]
    assert_refused(run(*args), sentence)


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.long
@needs_reference
def test_the_page_has_the_figures_of_the_reference_models():
    models = [str(REFERENCE / f"{name}.npz") for name in ("mod113_step10000", "released_wd0.1")]
    assert blocks.ROOT / "docs" / "circuit.md" not in docs.stale(models)


def test_numbers_may_differ_in_their_last_digit():
    assert circuit_page.same("loss 5.13e-8 in 12", "loss 5.14e-8 in 12")
    assert not circuit_page.same("loss 5.13e-8 in 12", "loss 5.13e-8 in 13")
    assert not circuit_page.same("loss 5.13e-8 in 12", "loss 5.13e-8 of 12")
