"""Sweeps trained and opened from Python: `grokjax.train`, `grokjax.open`, measures and circuits of models."""

import json
import os
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import tiny
from launches import ROOT, assert_equal_sweeps

import grokjax
from grokjax.errors import InputError
from grokjax.interp.measure import measure as measure_file

FIRST = "tests/tiny.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory, monkeypatch_module):
    monkeypatch_module.chdir(ROOT)
    return grokjax.train(f"{FIRST}:paper", tmp_path_factory.mktemp("python") / "sweep")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_it_is_the_sweep_of_the_command_line(results, finished):
    assert_equal_sweeps(results.path, finished[0])
    record = json.loads((results.path / "config.json").read_text())
    assert record["experiment"] == f"{FIRST}:paper"
    assert (results.path / "report" / "index.html").is_file()


def test_a_config_does_as_well_and_a_finished_directory_is_returned(results, capsys):
    c = tiny.get_config("paper")
    again = grokjax.train(c, str(results.path))
    assert "is finished: nothing to do" in capsys.readouterr().out
    pd.testing.assert_frame_equal(again.metrics, results.metrics)


def test_what_is_in_it(results):
    assert repr(results) == f"grokjax.open({str(results.path)!r})  # runs: 4 finished"
    assert results.record["config"]["p"] == 7
    assert len(results.runs) == 4
    assert len(results.metrics) == 44
    assert results.steps(1) == [0, 100, 200]
    np.testing.assert_array_equal(
        results.params(1, 100)["embed.W_E"], grokjax.load_params(results.path, 1, 100)["embed.W_E"]
    )
    assert results.phases()["run"].tolist() == [0, 1, 2, 3]
    assert results.measure(2, groups=["losses"])["test_loss"] == pytest.approx(
        results.metrics.query("run == 2")["test_loss"].iloc[-1], rel=1e-5
    )
    assert results.circuit(2, step=200)["loss"] > 0
    assert len(results.figure("losses").axes) == 2
    drawn = results.figure("column", column="neurons_over_85").axes[0].lines[0]  # no other figure needs it
    np.testing.assert_array_equal(drawn.get_ydata(), results.metrics.query("run == 0")["neurons_over_85"])
    with pytest.raises(InputError, match="figure 'loses' is unknown: did you mean 'losses'"):
        results.figure("loses")
    assert results.report() == results.path / "report" / "index.html"


def test_what_is_no_sweep_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no sweep: name the workdir of one that has begun to train"):
        grokjax.open(tmp_path)
    with pytest.raises(InputError, match="the model is 3, but it must be a file, a snapshot, or parameters by name"):
        grokjax.measure(3)


class Interrupting(threading.Thread):
    """Sends an interrupt to this process once a sweep has written rows, as a notebook's stop button does."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path

    def run(self):
        while not list((self.path / "metrics").glob("*.parquet")):
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_saves_and_is_raised(tmp_path, capsys):
    c = tiny.get_config("long")
    path = tmp_path / "sweep"
    before = signal.getsignal(signal.SIGINT)
    watch = Interrupting(path)
    watch.start()
    with pytest.raises(KeyboardInterrupt, match="stopped and saved in"):
        grokjax.train(c, path)
    watch.join(10)
    assert signal.getsignal(signal.SIGINT) is before
    said = " ".join(capsys.readouterr().out.split())
    assert "To go on, call grokjax.train again as before; grokjax.open(" in said
    assert "interrupted" in set(grokjax.open(path).runs["status"])
    results = grokjax.train(c, path)
    assert results.runs["status"].tolist() == ["finished"] * 4
    status, _ = tiny.train(c, tmp_path / "whole")
    assert status == 0
    assert_equal_sweeps(path, tmp_path / "whole")


STARTED = """
import jax, sys
sys.path.insert(0, "tests")
jax.numpy.ones(3).block_until_ready()  # JAX has started: a CPU is one device from here on
import grokjax
grokjax.train("tests/tiny.py:paper", sys.argv[1])
"""


@pytest.mark.long
def test_where_jax_has_started_it_says_so_and_the_directory_goes_on_anywhere(tmp_path):
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-c", STARTED, str(tmp_path / "a")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cores = len(os.sched_getaffinity(0))
    assert ("note: JAX has started already, with 1 device where" in " ".join(done.stdout.split())) == (cores > 1)
    record = json.loads((tmp_path / "a" / "config.json").read_text())
    assert record["n_devices"] == 1
    status, said = tiny.train(tiny.get_config("paper"), tmp_path / "a")
    assert status == 0
    assert "is finished" in said


@pytest.mark.long
def test_measure_takes_models_of_every_kind(results):
    """The same model as a snapshot, a file, arrays, JAX's, PyTorch's, and as a state."""
    wanted = measure_file(f"{results.path}:3", groups=["paper"])
    params = results.params(3)
    pairs = {"train_indices": measure_pairs(results)}
    for arrays in (params, {name: jnp.asarray(x) for name, x in params.items()}):
        found = grokjax.measure({**arrays, **pairs}, groups=["paper"])
        for name in ("train_loss", "test_loss", "gini_W_E", "restricted_loss"):
            assert found[name] == pytest.approx(wanted[name], rel=1e-5), name
    bare = grokjax.measure(params, groups=["paper"])
    assert bare["test_loss"] is None
    assert "split" in bare["null"]["test_loss"]
    assert bare["gini_W_E"] == pytest.approx(wanted["gini_W_E"], rel=1e-6)
    assert grokjax.circuit(params)["key_freqs"] == grokjax.circuit(f"{results.path}:3")["key_freqs"]


def measure_pairs(results):
    checkpoint = grokjax.load_checkpoint(f"{results.path}:3")
    assert grokjax.measure(checkpoint, groups=["losses"])["train_loss"] is not None
    return checkpoint.train_pairs


def test_measure_takes_a_state():
    c = tiny.get_config()
    c.steps = 20
    state = grokjax.train_one(c, seed=2)
    with pytest.warns(UserWarning, match="hardly better than a guess"):  # after 20 steps
        assert grokjax.measure(state, groups=["losses"])["train_loss"] > 0


def test_measure_takes_a_module(results, torch):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, x in results.params(3).items():
                self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(torch.tensor(x)))

        def state_dict(self):
            return {name: self.get_parameter(name.replace(".", "_")) for name in results.params(3)}

    found = grokjax.measure(Model(), groups=["paper"])
    assert found["gini_W_E"] == pytest.approx(grokjax.measure(results.params(3), groups=["paper"])["gini_W_E"])


def test_what_is_said_is_worded_for_python(results, capsys):
    grokjax.train(tiny.get_config("paper"), results.path)
    assert "overwrite=True trains it again" in capsys.readouterr().out
    c = tiny.get_config("paper")
    c.learning_rate = 3e-3
    with pytest.raises(
        InputError, match=r"^workdir='.*' holds another sweep .* or overwrite=True to start again there"
    ):
        grokjax.train(c, results.path)
    arrays = results.params(0)
    assert grokjax.measure(arrays, task="add", groups=["losses"])["null"]["train_loss"].startswith(
        "the split is not known (give split, such as split='python:0:0.3')"
    )


def test_a_doubted_task_is_warned_of(results):
    arrays = results.params(3)
    arrays["unembed.W_U"] = np.zeros_like(arrays["unembed.W_U"])
    with pytest.warns(UserWarning, match="the model: its answers to task 'add' are hardly better than a guess"):
        found = grokjax.measure(arrays, groups=["losses"])
    assert found["measured"]["doubt"]


@pytest.mark.long
def test_runs_side_by_side_are_to_be_indexed():
    c = tiny.get_config()
    states = jax.vmap(lambda seed: grokjax.train_one(c, seed=seed, steps=2))(jnp.arange(3))
    with pytest.raises(InputError, match="the state holds 3 runs side by side, and one is measured: index it, such as"):
        grokjax.measure(states)
    one = jax.tree.map(lambda x: x[0], states)
    with pytest.warns(UserWarning, match="hardly better than a guess"):  # after 2 steps
        assert grokjax.measure(one, task="add", groups=["losses"])["train_loss"] > 0


def test_a_longer_sweep_begins_with_the_rows_of_a_shorter_one(tmp_path):
    c = tiny.get_config()
    short = grokjax.train(c, tmp_path / "short", quiet=True)
    c.steps = 400
    longer = grokjax.train(c, tmp_path / "longer", quiet=True)
    pd.testing.assert_frame_equal(
        longer.metrics[longer.metrics["step"] <= 200].reset_index(drop=True), short.metrics, check_exact=True
    )
    with pytest.raises(InputError, match="steps of run 0 is 200 there, 400 here"):
        grokjax.train(c, short.path)
