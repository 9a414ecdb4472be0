"""Runs that begin with the weights of another run's snapshot."""

import numpy as np
import pytest
import tiny
from doubles import StopAfter

import grokjax
from grokjax import sweeps
from grokjax.core import devices
from grokjax.errors import InputError
from grokjax.store.records import read_record
from grokjax.training import starting


def config(**fields):
    c = tiny.get_config()
    c.steps, c.eval_every, c.snapshot_every = 40, 20, 20
    c.sweep.weight_decay = None
    c.update(fields)
    return c


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Two runs of 40 steps with snapshots at 0, 20 and 40."""
    path = tmp_path_factory.mktemp("before") / "there"
    status, said = tiny.train(config(), path)
    assert status == 0, said
    return path


def test_it_begins_there_with_another_split(before, tmp_path):
    c = config(train_fraction=0.4)
    c.sweep.start_from = (f"{before}:0", f"{before}:1", f"{before}:0:20")
    c.sweep.seed = None
    status, said = tiny.train(c, tmp_path)
    assert status == 0, said
    assert "in 1 compiled group" in said
    for run, (old, step) in enumerate([(0, 40), (1, 40), (0, 20)]):
        first, there = grokjax.load_params(tmp_path, run, 0), grokjax.load_params(before, old, step)
        assert all(np.array_equal(first[key], there[key]) for key in there)
        last = grokjax.load_params(tmp_path, run)
        assert all(not np.array_equal(last[key], there[key]) for key in there)
    named = [values["start_from"] for values in read_record(tmp_path)["runs"]]
    assert [name.partition("@")[0] for name in named] == [f"{before}:{at}" for at in ("0:40", "1:40", "0:20")]
    assert all(len(name.partition("@")[2]) == 12 for name in named)
    status, said = tiny.train(c, tmp_path)
    assert status == 0
    assert "nothing to do" in said


def test_the_same_run_alone_and_scaled(before):
    c = config(init_scale=0.5, start_from=f"{before}:1")
    c.sweep.seed = None
    start = grokjax.train_one(c, learning_rate=0.0, steps=1)
    there = grokjax.load_params(before, 1)
    for key, value in there.items():
        np.testing.assert_allclose(start.params[key], value / 2, rtol=1e-6)
    drawn = grokjax.train_one(c, learning_rate=0.0, steps=1, seed=3)
    assert all(np.array_equal(drawn.params[key], start.params[key]) for key in there)


@pytest.mark.long
def test_its_own_weights_are_what_decay_is_towards(before):
    c = config(start_from=f"{before}:0", decay_to="init", optimizer="sgd", warmup_steps=0, weight_decay=9.0, beta1=0.0)
    c.sweep.seed = None
    near = grokjax.train_one(c, learning_rate=0.01, steps=40)
    c.decay_to = "zero"
    far = grokjax.train_one(c, learning_rate=0.01, steps=40)
    there = grokjax.load_params(before, 0)
    for key in ("embed.W_E", "unembed.W_U"):
        assert np.linalg.norm(near.params[key] - there[key]) < 0.3 * np.linalg.norm(far.params[key] - there[key])


def test_other_weights_under_the_same_name_are_noticed(before):
    run = sweeps.Run(0, sweeps.expand(config(start_from=f"{before}:0")).runs[0].values)
    name = starting.recorded(f"{before}:0")
    assert starting.params(name, run.problem()).keys() == grokjax.load_params(before, 0).keys()
    with pytest.raises(InputError, match="that snapshot has other weights by now: restore it"):
        starting.params(name[:-12] + "0" * 12, run.problem())


@pytest.mark.parametrize(
    ("given", "fields", "sentence"),
    [
        ("THERE", {}, r"config.start_from is '.*', but it must be a run of a sweep, such as results/small:3"),
        ("THERE:7", {}, r"config.start_from is '.*:7', but .* has no snapshot of run 7: it has runs 0-1"),
        ("THERE:0:30", {}, r"but .* has no snapshot of run 0 at step 30: it has steps 0, 20, 40"),
        ("nowhere:0", {}, r"config.start_from is 'nowhere:0', but .*nowhere"),
        ("THERE:0", {"p": 5}, r"which has embed.W_E of shape \[8, 8\], but this run's is \[6, 8\]"),
        ("THERE:0", {"model.n_layers": 2}, r"which has no blocks.1.attn.W_K, but this run's is"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(before, tmp_path, given, fields, sentence):
    c = config(start_from=given.replace("THERE", str(before)))
    for path, value in fields.items():
        c.model.n_layers = value if path == "model.n_layers" else 1
        c.p = value if path == "p" else c.p
    with pytest.raises(InputError, match=sentence):
        tiny.train(c, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_all_of_it_goes_on_where_it_was_stopped(before, tmp_path):
    """A state with everything in it that a run can hold, saved and read back: rows as without a stop, bit for bit."""
    c = config(decay_to="init", gradient_transform="grokfast", optimizer="muon", schedule="cosine")
    c.norm_constraint = "init"
    c.steps, c.l1, c.label_noise, c.start_from = 120, 1e-4, 0.2, f"{before}:0"
    c.slots, c.sweep.seed = 1, (0, 1)
    assert tiny.train(c, tmp_path / "whole")[0] == 0
    status, said = tiny.train(c, tmp_path / "halves", stop=StopAfter(4))
    assert status == 143, said
    status, said = tiny.train(c, tmp_path / "halves")
    assert status == 0, said
    assert "going on from" in said
    whole, halves = (grokjax.read_metrics(tmp_path / name) for name in ("whole", "halves"))
    assert whole.equals(halves)
    assert whole.groupby("run").step.max().tolist() == [120, 120]


def test_devices_are_made_before_weights_are_looked_at(before, tmp_path, monkeypatch):
    """Which takes JAX: a CPU's cores could be no devices any more."""
    order = []
    monkeypatch.setattr(devices, "spread", lambda *args: order.append("devices") or 0)
    look = starting.settled
    monkeypatch.setattr(starting, "settled", lambda sweep: order.append("weights") or look(sweep))
    tiny.train(config(start_from=f"{before}:0"), tmp_path, plan_only=True, spread=True)
    assert order == ["devices", "weights"]
