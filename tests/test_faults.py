"""Faults, one by one: each ends in one sentence or goes on, and then the tables are those of an undisturbed sweep.

What `python -m faults.kills` does at length is in docs/reliability.md.
"""

import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from faultless import assert_goes_on_the_same, config, halfway, whole_and_halfway
from tiers import long_but

from faults import comparison
from grokjax.errors import InputError, StorageError
from grokjax.report import write
from grokjax.store import checkpoints, workdir
from grokjax.store.metrics import parts
from grokjax.store.snapshots import find_snapshots
from grokjax.store.sweep import load_sweep
from grokjax.training import final_keys
from grokjax.training.request import StopRequest

__all__ = ["whole_and_halfway"]
ROOT = Path(__file__).parent.parent


# --- damage -----------------------------------------------------------------------------------------------------------


def files_of(path, kind):
    """Where a fault of each kind strikes: what a resume reads."""
    newest = checkpoints.complete(path / "checkpoints")[0][1][0]
    needed = find_snapshots(path)[3, 0][0]
    part = parts(path / "metrics")[0]
    return {
        "checkpoint": [(newest, largest(newest))],
        "snapshot": [(needed, largest(needed))],
        "part": [(part, part)],
        "config.json and runs.parquet": [(path / name,) * 2 for name in ("config.json", "runs.parquet")],
    }[kind]


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def truncated(place, file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(place, file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def lost(place, file):
    shutil.rmtree(place) if place.is_dir() else place.unlink()


KINDS = ["checkpoint", "part", "snapshot", "config.json and runs.parquet"]


@pytest.mark.parametrize("fault", long_but(["flipped"], {"flipped": flipped, "truncated": truncated, "lost": lost}))
@pytest.mark.parametrize("kind", long_but(["checkpoint", "part"], KINDS))
def test_a_damaged_file_is_noticed_and_costs_nothing_but_time(kind, fault, whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    for place, file in files_of(path, kind):
        fault(place, file)
    text = assert_goes_on_the_same(path, whole_and_halfway)
    assert ("set aside" in text) == (kind in ("checkpoint", "part", "snapshot") and (kind, fault) not in SILENT)
    assert ("training run" in text) == (kind in ("part", "snapshot") and (kind, fault) != ("snapshot", lost))


SILENT = [("checkpoint", lost), ("snapshot", lost)]  # nothing tells that they have been there


# --- the disk ---------------------------------------------------------------------------------------------------------

REFUSALS = [(errno.ENOSPC, 4), (errno.EDQUOT, 1), (errno.EROFS, 9), (errno.EIO, 15)]


@pytest.mark.parametrize(("number", "n"), long_but([REFUSALS[0]], REFUSALS))
def test_a_disk_that_refuses_is_one_sentence_and_the_same_command_goes_on(
    number, n, whole_and_halfway, tmp_path, monkeypatch
):
    calls, replace = [], os.replace

    def refuse(source, target):
        calls.append(target)
        if len(calls) >= n:
            raise OSError(number, os.strerror(number))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "a"
    with pytest.raises(StorageError, match=os.strerror(number)) as caught:
        tiny.train(config(), path)
    assert "the same command goes on from there" in str(caught.value)
    monkeypatch.undo()
    del caught
    assert_goes_on_the_same(path, whole_and_halfway)


# Long enough for a busy machine to see it while it trains.
LAUNCH = ("launch.py", "--config=tests/tiny.py:long", "--config.steps=8000")


def launched(path, **kwargs):
    """The sweep by its command, in a process of its own."""
    command = [sys.executable, *LAUNCH, f"--workdir={path}"]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.Popen(kwargs.pop("before", []) + command, cwd=ROOT, env=env, **kwargs)


def in_time(process, path, name="checkpoints/000000"):
    limit = time.monotonic() + 120
    while not (path / name).exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed launch leaves."""
    path = tmp_path_factory.mktemp("launched") / "whole"
    assert launched(path, stdout=subprocess.DEVNULL).wait() == 0
    return path


def goes_on(path, whole):
    assert launched(path, stdout=subprocess.DEVNULL).wait() == 0
    assert comparison.differences(path, whole) == []


def may_mount():
    return not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode


@pytest.mark.long
@pytest.mark.skipif(bool(may_mount()), reason="a small disk needs the right to mount one")
def test_a_full_disk_and_a_read_only_one(whole, tmp_path):
    """A file system of 150 kB, which fills up; the same, read-only; then with room."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    launch = f"{sys.executable} {' '.join(LAUNCH)} --workdir={disk}/a >&2"
    script = f"""
        mount -t tmpfs -o size=150k tmpfs {disk} || exit 99
        {launch}; echo $?
        mount -o remount,ro {disk}; {launch}; echo $?; mount -o remount,rw,size=50m {disk}
        {launch}; echo $?
        cp -r {disk}/a {copy}
    """
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode == 99:
        pytest.skip(f"no disk may be mounted here: {done.stderr}")
    assert done.stdout.split() == ["1", "2", "0"], done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in errors[0]
    assert "the same command goes on from there" in errors[0]
    assert errors[1] == f"error: --workdir={disk}/a cannot be written (Read-only file system): choose another."
    assert comparison.differences(copy, whole) == []


# --- clocks and neighbours --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_clock_that_jumps_changes_nothing(whole_and_halfway, tmp_path, monkeypatch):
    """Orbax goes by the wall clock; a jump while it saves makes it try once more."""
    asked = iter(range(10**9))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + (-1) ** (next(asked) // 300) * 1e8)
    assert_goes_on_the_same(halfway(whole_and_halfway, tmp_path), whole_and_halfway)


def test_a_dead_process_holds_nothing_and_a_living_one_is_named(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    (path / ".lock").write_text("process 4194304 on a node that is gone")
    sweep = load_sweep(path)
    held = workdir.Workdir(path, sweep)
    with pytest.raises(InputError, match=f"is in use by process {os.getpid()} on "):
        workdir.Workdir(path, sweep)
    held.close()
    workdir.Workdir(path, sweep).close()


# --- signals and terminals --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_stop_while_settling_is_heeded_between_batches(whole_and_halfway, tmp_path, monkeypatch):
    settle, stop = final_keys.finalise, StopRequest()

    def asked(*args):
        stop.signal = signal.SIGTERM
        settle(*args)

    monkeypatch.setattr(final_keys, "finalise", asked)
    monkeypatch.setattr("grokjax.training.scheduler.FINALISED_MODELS", 1)
    monkeypatch.setattr(write, "write", lambda path: None)
    assert tiny.train(config(), tmp_path / "a", stop=stop)[0] == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert_goes_on_the_same(tmp_path / "a", whole_and_halfway)


def test_nothing_is_compiled_for_a_sweep_that_is_to_stop(whole_and_halfway, tmp_path, monkeypatch):
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    monkeypatch.setattr("grokjax.training.population.Population.start", lambda *_: pytest.fail("compiles"))
    path = halfway(whole_and_halfway, tmp_path)
    assert tiny.train(config(), path, stop=stop)[0] == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert_goes_on_the_same(path, whole_and_halfway)


@pytest.mark.long
def test_a_terminal_that_is_closed_saves_the_sweep(whole, tmp_path):
    path, (mine, theirs) = tmp_path / "a", pty.openpty()
    before = ["env", "--default-signal=HUP", "setsid", "-c", "-w"]  # also where the tests themselves ignore it
    process = launched(path, before=before, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    in_time(process, path)
    os.close(mine)
    assert process.wait() == 128 + signal.SIGHUP
    goes_on(path, whole)


@pytest.mark.long
def test_nobody_reads_what_is_printed_and_nohup_is_heeded(whole, tmp_path):
    path = tmp_path / "a"
    process = launched(path, before=["nohup"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.close()
    in_time(process, path)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0
    assert comparison.differences(path, whole) == []


@pytest.mark.long
def test_closed_streams_are_no_files_of_results(whole, tmp_path):
    path = tmp_path / "a"
    process = launched(path, before=["sh", "-c", 'exec "$0" "$@" >&- 2>&-'])
    assert process.wait() == 0
    assert b"run-steps" not in b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
    assert comparison.differences(path, whole) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_before_anything_is_trained(number):
    heeded = f"import os, signal; signal.signal({int(number)}, signal.SIG_DFL)"
    armed = "from grokjax.cli import train; train._on_signals(train._stop_at_once)"
    code = f"{heeded}; {armed}; os.kill(os.getpid(), {int(number)})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stderr.strip() == "stopped while starting: nothing was trained."
