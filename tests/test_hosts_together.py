"""Several processes train one sweep: what they leave is what one process leaves."""

import json
import signal

import pytest
from launches import all_ended, assert_equal_sweeps, ended, launch, launch_together, wait_for
from tiers import long_but

from grokjax.store import final_states, merging
from grokjax.store.metrics import part_number, parts, read_runs
from grokjax.store.snapshots import named

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep by one process with as many devices as each of the two has, so that bits are the same."""
    path = tmp_path_factory.mktemp("alone") / "sweep"
    status, text = ended(launch(path, variant="hosts", env={"JAX_NUM_CPU_DEVICES": "2"}))
    assert status == 0, text
    return path


def test_two_processes_leave_what_one_leaves(alone, tmp_path):
    first, second = launch_together(tmp_path / "two", 2)
    for status, text in all_ended([second, first]):
        assert status == 0, text
    assert "metrics" in text
    assert len({part_number(part)[1] for part in parts(tmp_path / "two" / "metrics")}) == 2
    record = json.loads((tmp_path / "two" / "config.json").read_text())
    assert (record["n_processes"], record["n_devices"], record["groups"][0]["n_devices"]) == (2, 2, 4)
    assert {"diverged", "finished"} == set(read_runs(alone)["status"])
    assert_equal_sweeps(tmp_path / "two", alone)


@pytest.mark.parametrize("lost", long_but([], [0, 1], exhaustive=[0]))
def test_when_one_is_killed_the_other_says_so_and_any_number_goes_on(lost, alone, tmp_path):
    processes = launch_together(tmp_path / "two", 2)
    wait_for(lambda: (tmp_path / "two" / "checkpoints" / "000001.1-of-2").exists(), processes[0])
    processes[lost].kill()
    status, text = ended(processes[1 - lost], 60)
    assert status == 1, text
    assert "another of the 2 processes is gone" in text
    assert "Start all processes again with the same command" in text
    ended(processes[lost])
    n = 1 + 2 * lost
    for status, text in all_ended(launch_together(tmp_path / "two", n)):
        assert status == 0, text
    assert_equal_sweeps(tmp_path / "two", alone)


def test_a_signal_to_one_saves_all(alone, tmp_path):
    processes = launch_together(tmp_path / "two", 2)
    wait_for(lambda: (tmp_path / "two" / "checkpoints" / "000000.1-of-2").exists(), processes[0])
    processes[1].send_signal(signal.SIGTERM)
    for status, text in all_ended(processes, 60):
        assert status == 128 + signal.SIGTERM, text
    status, text = ended(launch(tmp_path / "two", variant="hosts", env={"JAX_NUM_CPU_DEVICES": "2"}))
    assert status == 0, text
    assert "going on from" in text
    assert_equal_sweeps(tmp_path / "two", alone)


def test_all_are_refused_alike(alone):
    for status, text in all_ended(launch_together(alone, 2, variant="long")):
        assert status == 2, text
        assert "holds another sweep" in text


WHOLE = ("--config.keep_final_state=1", "--config.sweep.learning_rate=0.01,0.02,1e6")


def test_two_extend_by_values_and_steps_and_the_runs_are_reused(tmp_path):
    """Stopped in between; values of the first axis, so that runs have the numbers of a fresh sweep."""
    smaller = (WHOLE[0], "--config.steps=800", "--config.sweep.learning_rate=0.01,")
    for status, text in all_ended(launch_together(tmp_path / "two", 2, *smaller)):
        assert status == 0, text
    extended = launch_together(tmp_path / "two", 2, *WHOLE, "--extend")
    last = max(place.name for place in (tmp_path / "two" / "checkpoints").iterdir())
    wait_for(lambda: max(place.name for place in (tmp_path / "two" / "checkpoints").iterdir()) > last, extended[0])
    extended[1].send_signal(signal.SIGTERM)
    for status, text in all_ended(extended, 60):
        assert status == 128 + signal.SIGTERM, text
    for status, text in all_ended(launch_together(tmp_path / "two", 2, *WHOLE)):
        assert status == 0, text
    status, text = ended(launch(tmp_path / "fresh", *WHOLE, variant="hosts", env={"JAX_NUM_CPU_DEVICES": "2"}))
    assert status == 0, text
    assert_equal_sweeps(tmp_path / "two", tmp_path / "fresh")
    assert final_states.find(tmp_path / "two").keys() == final_states.find(tmp_path / "fresh").keys()
    done = all_ended(launch_together(tmp_path / "again", 2, *WHOLE, f"--reuse={tmp_path / 'two'}"))
    assert [status for status, _ in done] == [0, 0], done
    finished = read_runs(tmp_path / "two").query("status == 'finished'")["run"]
    assert f"taken from {tmp_path / 'two'}: {named(finished.tolist())}" in " ".join(done[0][1].split())
    assert_equal_sweeps(tmp_path / "again", tmp_path / "fresh")


@pytest.mark.exhaustive
def test_shares_of_a_sweep_by_two_processes_each(alone, tmp_path):
    for i in range(2):
        for status, text in all_ended(launch_together(tmp_path / "two", 2, f"--shard={i}/2")):
            assert status == 0, text
    merging.merge([tmp_path / "two" / f"shard-{i}-of-2" for i in range(2)], tmp_path / "merged")
    assert_equal_sweeps(tmp_path / "merged", alone)
