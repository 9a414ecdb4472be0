"""The loop on the host: sizes of dispatches, who gets which slot, and whose rows and parameters are written."""

import functools

import numpy as np
import pytest
from pretended import FEW, MANY, Population, config, ending, group_of, keep, recorder_of, rows, train, value

from grokjax import sweeps
from grokjax.core.hosts import Hosts
from grokjax.store import checkpoints, snapshots
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.training import population, scheduler
from grokjax.training.layouts import Layout
from grokjax.training.recorder import Dispatch
from grokjax.training.scheduler import Slot, Slots

# --- sizes ------------------------------------------------------------------------------------------------------------


def size(tmp_path, steps, seconds_per_step, offset=0, **fields):
    """What the next dispatch is with runs that have done so many of 400 steps; 2 seconds are aimed at."""
    sweep = sweeps.expand(config(len(steps), steps=400, **fields))
    one = group_of(sweep, tmp_path / "a", Layout(len(steps), 1, 1, 1))
    one.offset, one.seconds_per_step = offset, seconds_per_step
    one.slots.held = {i: Slot(run, step) for i, (run, step) in enumerate(zip(sweep.runs, steps, strict=True))}
    return one._size()


@pytest.mark.parametrize(
    ("seconds", "offset", "expected"),
    [
        (None, 0, (1, 20, True)),  # nothing is known yet
        (None, 7, (1, 13, True)),
        (2 / 20, 0, (1, 20, True)),  # 20 steps in 2 s
        (2 / 39, 0, (1, 20, True)),
        (2 / 40.5, 0, (2, 20, True)),
        (2 / 1000.5, 0, (20, 20, True)),  # to the end of the run
        (2 / 10.5, 0, (1, 20, True)),  # up to twice the time aimed at
        (2 / 9.5, 0, (1, 9, False)),
        (2 / 9.5, 1, (1, 9, False)),  # 19 are left
        (2 / 9.5, 2, (1, 18, True)),
        (2 / 9.5, 19, (1, 1, True)),
        (2 / 1000.5, 5, (1, 15, True)),  # a segment that has begun is ended first
        (100.0, 0, (1, 1, False)),
        (100.0, 18, (1, 2, True)),
        (0.0, 0, (20, 20, True)),
    ],
)
def test_dispatches_of_about_two_seconds(seconds, offset, expected, tmp_path):
    assert size(tmp_path, [0], seconds, offset) == expected


@pytest.mark.parametrize(
    ("steps", "fields", "n_segments"),
    [
        ([340, 100], {}, 3),  # the run that ends first
        ([100, 340], {}, 3),
        ([0, 0], {"snapshot_every": 100}, 5),
        ([80, 0], {"snapshot_every": 100}, 1),
        ([0, 140], {"snapshot_every": 100}, 3),
        ([100, 100], {"snapshot_every": 100}, 5),
        ([0, 0], {"checkpoint_every_steps": 60}, 3),
        ([0, 0], {"checkpoint_every_steps": 61}, 4),  # no fewer than it takes
        ([0, 0], {"checkpoint_every_steps": 1}, 1),
        ([380, 0], {}, 1),
        ([300, 0], {"slow_every": 40}, 5),  # which slow evaluations do not cut
    ],
)
def test_no_dispatch_goes_past_an_end_a_snapshot_or_a_checkpoint(steps, fields, n_segments, tmp_path):
    assert size(tmp_path, steps, 1e-9, **fields) == (n_segments, 20, True)


def test_no_dispatch_has_more_segments_than_its_buffer(tmp_path):
    assert population.MAX_SEGMENTS == 64
    assert size(tmp_path, [0], 1e-9, eval_every=4, snapshot_every=1_000, slow_every=1_000) == (64, 4, True)


# --- slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "order"),
    [
        ([], [0, 3, 1, 4, 2, 5]),
        ([0, 1], [3, 4, 2, 5]),
        ([3], [0, 1, 4, 2, 5]),
        ([0, 4], [1, 3, 2, 5]),
        ([0, 1, 2], [3, 4, 5]),
        ([0, 1, 2, 3, 4, 5], []),
    ],
)
def test_devices_are_kept_equally_busy(taken, order):
    """Two devices, of slots 0 to 2 and 3 to 5."""
    slots = Slots(Layout(3, 1, 1, 2), range(6))
    slots.held = dict.fromkeys(taken)
    assert slots.free() == order


# --- whole sweeps -----------------------------------------------------------------------------------------------------


def uneven(**fields):
    """Seven runs of 40 to 240 steps; snapshots every 60 steps, which neither divide the runs nor the slow 80."""
    c = config(**{"snapshot_every": 60, "slow_every": 80} | fields)
    steps = [100, 240, 40, 160, 60, 40, 120]
    return c, lambda c: [{"seed": seed, "steps": n} for seed, n in enumerate(steps)], steps


LAYOUTS = [(1, 1), (2, 1), (3, 1), (1, 3), (2, 2)]


@pytest.mark.parametrize("seconds", [FEW, MANY])
@pytest.mark.parametrize(("slots", "n_devices"), LAYOUTS)
def test_every_row_and_snapshot_is_of_its_run_whatever_the_layout(slots, n_devices, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", seconds)
    c, get_sweep, steps = uneven()
    kept = {}
    progress, ledger = train(monkeypatch, c, tmp_path / "a", slots, n_devices, get_sweep=get_sweep, kept=kept)
    assert rows(tmp_path / "a") == {
        (run, step): value(run, step) for run, n in enumerate(steps) for step in range(0, n + 1, 20)
    }
    assert kept == {(run, step): value(run, step) for run, n in enumerate(steps) for step in {*range(0, n + 1, 60), n}}
    assert [record["status"] for record in ledger.records.values()] == ["finished"] * 7
    assert read_runs(tmp_path / "a")["last_step"].tolist() == steps
    assert progress.run_steps == sum(steps)
    frame = read_metrics(tmp_path / "a")
    assert frame["seed"].tolist() == frame["run"].tolist()
    assert frame["steps"].tolist() == [steps[run] for run in frame["run"]]


def test_slow_measures_at_their_steps_and_null_elsewhere(tmp_path, monkeypatch):
    """Runs whose steps differ share dispatches in which one is due and the other is not."""
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    c, get_sweep, steps = uneven(measures=("curvature",))
    train(monkeypatch, c, tmp_path / "a", 2, get_sweep=get_sweep, kept={})
    frame = read_metrics(tmp_path / "a")
    for name in ("hessian_top", "local_complexity"):
        there = frame[frame[name].notna()]
        assert dict(zip(zip(there["run"], there["step"], strict=True), there[name], strict=True)) == {
            (run, step): value(run, step) for run, n in enumerate(steps) for step in range(0, n + 1, 80)
        }
    assert frame["train_loss"].notna().all()


def test_the_device_is_asked_for_slow_measures_only_where_a_run_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    progress, _ = train(monkeypatch, config(1, steps=200, slow_every=60), tmp_path / "a", 1, kept={})
    at, asked = 0, {}
    for _, n_segments, n_steps, evaluate, slow in progress.dispatches:
        assert evaluate
        assert len(slow) == n_segments
        for one in slow:
            at += n_steps
            asked[at] = one
    assert asked == {step: step in (0, 60, 120, 180) for step in range(0, 201, 20)}


def test_runs_fill_slots_in_order_and_a_freed_slot_is_filled_again(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    c, get_sweep, _ = uneven()
    progress, _ = train(monkeypatch, c, tmp_path / "a", 2, get_sweep=get_sweep, kept={})
    begun = [seed for seeds, _, n_steps, *_ in progress.dispatches for seed in seeds if n_steps == 0]
    assert begun == [0, 1, 2, 3, 4, 5, 6]
    assert max(len(seeds) for seeds, *_ in progress.dispatches) == 2


# --- runs that stop or diverge ----------------------------------------------------------------------------------------


LAST = [60, 80, 200, 0, 20]


@pytest.mark.parametrize("seconds", [FEW, MANY])
@pytest.mark.parametrize(("slots", "n_devices"), LAYOUTS)
def test_runs_end_at_their_own_steps(slots, n_devices, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", seconds)
    kept = {}
    progress, ledger = train(monkeypatch, ending(monkeypatch), tmp_path / "a", slots, n_devices, kept=kept)
    statuses = ["diverged", "stopped", "finished", "diverged", "stopped"]
    assert [record["status"] for record in ledger.records.values()] == statuses
    assert [record["last_step"] for record in ledger.records.values()] == LAST
    expected = {(run, step): value(run, step) for run, last in enumerate(LAST) for step in range(0, last + 1, 20)}
    assert rows(tmp_path / "a") == expected | {(0, 60): None, (3, 0): None}
    wanted = {(0, 0), (0, 40), (1, 0), (1, 40), (1, 80), *((2, step) for step in range(0, 201, 40)), (4, 0), (4, 20)}
    assert kept == {key: value(*key) for key in wanted}
    assert sorted(progress.said) == [
        f"run {run} diverged: its loss is not finite at step {step}." for run, step in ((0, 60), (3, 0))
    ]
    assert progress.run_steps == 5 * 200  # steps that are not needed any more count as done


def test_a_row_of_a_diverged_run_has_nothing_but_its_names(tmp_path, monkeypatch):
    train(monkeypatch, ending(monkeypatch, measures=("stability",)), tmp_path / "a", kept={})
    frame = read_metrics(tmp_path / "a").set_index(["run", "step"])
    assert frame.loc[0, 60].dropna().to_dict() == {"seed": 0}
    assert frame.loc[0, 40].notna().all()
    assert frame.loc[1, 60].notna().all()  # in the same dispatch


def test_without_a_stop_rule_a_loss_of_nothing_is_no_reason_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(Population, "low", {0: range(0, 201, 20)})
    monkeypatch.setattr("pretended.LOW", 0.0)
    _, ledger = train(monkeypatch, config(1, stop_evals=1), tmp_path / "a", 1, kept={})
    assert (ledger.records[0]["status"], ledger.records[0]["test_loss"]) == ("finished", 0.0)
    assert len(rows(tmp_path / "a")) == 11


def test_snapshots_of_one_step_lie_together_in_the_order_of_their_runs(tmp_path, monkeypatch):
    """As the slots may not be, once a checkpoint of several processes has been read."""
    sweep, kept = sweeps.expand(config(5)), {}
    one = recorder_of(sweep, tmp_path / "a")
    monkeypatch.setattr(snapshots, "save_snapshot", functools.partial(keep, kept))
    taken = [(3, 40), (4, 60), (1, 40), (0, 60)]
    params = {"W": np.array([[value(run, step)] * 2 for run, step in taken], np.float32)}
    one.save_snapshots(Dispatch({}, 1, {}, range(5), 0, [(sweep.runs[run], step) for run, step in taken], params))
    assert kept == {key: value(*key) for key in taken}


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoints_after_so_many_steps_and_at_the_end(tmp_path, monkeypatch):
    """Dispatches of 20 and 20 steps, while nothing is known; then of 60, and of 40 to the end."""
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    saved = []
    monkeypatch.setattr(checkpoints, "save", lambda path, state, progress: saved.append((path.name, state, progress)))
    train(monkeypatch, config(1, checkpoint_every_steps=60), tmp_path / "a", 1, kept={})
    assert [name for name, _, _ in saved] == ["000000", "000001", "000002"]
    for (_, state, progress), step in zip(saved, (100, 160, None), strict=True):
        assert progress == {
            **{"group": 0, "offset": 0, "runs": [0] if step else [], "steps": [step] if step else []},
            **{"process": 0, "part": 0, "rows": (step or 200) // 20 + 1},
        }
        assert (state is None) == (step is None)


def test_processes_dispatch_alike_whatever_each_has_measured(tmp_path, monkeypatch):
    """Where another process says 5 s for a step, that holds; after a checkpoint too, which waits for a dispatch."""
    monkeypatch.setattr(scheduler, "DISPATCH_SECONDS", MANY)
    sized_by = []

    def size(group):
        sized_by.append(group.seconds_per_step)
        return _size(group)

    def all_gather(hosts, message):
        return [message, [[], 5.0]] if isinstance(message, list) else [message]

    _size = scheduler.Group._size
    monkeypatch.setattr(scheduler.Group, "_size", size)
    monkeypatch.setattr(Hosts, "all_gather", all_gather)
    train(monkeypatch, config(1, checkpoint_every_steps=60), tmp_path / "a", 1, kept={})
    assert sized_by == [None, 5.0, 5.0, 5.0]
