"""Sweeps in Google Cloud Storage and S3, against emulators on this machine; nothing leaves it.

All in one file, so that one process starts the servers.
"""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
from commands import assert_refused, call
from doubles import StopAfter
from launches import ROOT, assert_equal_sweeps, ended, launch, wait_for
from stores import MISSING, environment, free_port, new_bucket, servers, store
from tiny import train

import grokjax
from grokjax.cli import check, circuit, phases, replay, report
from grokjax.errors import InputError, StorageError
from grokjax.report.write import figure_path, page_path
from grokjax.store import checkpoints, files, locks, objects
from grokjax.store.metrics import parts, read_metrics, read_runs

__all__ = ["servers", "store"]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install -e '.[test]'"),
    # gcsfs gives aiohttp bytes whatever their size; Python passes over ResourceWarnings by default.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]


@pytest.fixture
def quick_locks(monkeypatch):
    monkeypatch.setattr(locks, "REFRESH", 0.2)


# --- files and folders ------------------------------------------------------------------------------------------------


def test_sizes_and_times_of_what_a_store_holds(store):
    path = files.path(store) / "a"
    (path / "b" / "c").write_bytes(b"123")
    (path / "d").write_bytes(b"")
    found = files.details(path)
    assert {str(name): size for name, (size, _) in found.items()} == {"b/c": 3, "d": 0}
    assert all(abs(time.time() - at) < 600 for _, at in found.values())
    assert files.details(files.path(store) / "none") == {}


def test_an_object_path_is_like_a_path(store):
    path = files.path(store) / "a" / "b.parquet"
    assert str(path) == f"{store}/a/b.parquet"
    assert (path.name, path.stem, path.suffix, str(path.parent)) == ("b.parquet", "b", ".parquet", f"{store}/a")
    assert path.with_name("c") == files.path(f"{store}/a/c")
    assert str(path.relative_to(files.path(store))) == "a/b.parquet"
    assert files.path(path) is path
    assert not path.exists()
    assert files.listed(path.parent) == []
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    path.write_bytes("λ\r\n".encode())
    assert (path.is_file(), path.is_dir(), path.parent.is_file(), path.parent.is_dir()) == (True, False, False, True)
    assert path.read_text() == "λ\r\n"
    (path.parent.with_name("a-b") / "c").write_bytes(b"")
    (path.parent / "d" / "e").write_bytes(b"x")
    assert [p.name for p in files.listed(path.parent)] == ["b.parquet", "d"]
    assert [p.name for p in files.listed(path.parent.parent)] == ["a", "a-b"]
    assert files.listed(path) == []
    assert [str(name) for name in path.parent.tree()] == ["b.parquet", "d/e"]
    path.unlink()
    path.unlink(missing_ok=True)
    files.drop(path.parent)
    files.drop(path.parent)
    assert [p.name for p in files.listed(path.parent.parent)] == ["a-b"]


def test_a_new_directory_has_its_checksums_in_one_place(store):
    root = files.path(store) / "sweep"
    part, table = root / "metrics" / "part-000000.parquet", root / "replay" / "a" / "b.parquet"
    assert files.trouble(part) == "is missing"
    files.keep_checksums(root)
    for path in (root / "config.json", part, table):
        files.write_bytes(b"x", path)
        assert files.trouble(path) == ""
    code = f"from grokjax.store import files; assert not files.trouble(files.path('{table}'))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert [str(name) for name in root.tree()] == [
        ".checksums/.config.json.sha256",
        ".checksums/metrics/.part-000000.parquet.sha256",
        ".checksums/replay/a/.b.parquet.sha256",
        *("config.json", "metrics/part-000000.parquet", "replay/a/b.parquet"),
    ]
    assert files.checksummed(part.parent) == [part]


def test_an_old_directory_keeps_its_checksums_beside_its_files(store):
    root = files.path(store) / "old"
    part = root / "metrics" / "part-000000.parquet"
    for path in (root / "config.json", part):
        files.write_bytes(b"x", path)
        assert files.trouble(path) == ""
    assert part.with_name(".part-000000.parquet.sha256").is_file()
    assert files.checksummed(part.parent) == [part]


def test_what_others_write_is_seen_at_once(store):
    folder = files.path(store) / "a"
    (folder / "x").write_bytes(b"1")
    assert len(files.listed(folder)) == 1
    code = f"from grokjax.store import files; [(files.path('{folder}') / n).write_bytes(b'22') for n in 'xy']"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert [p.name for p in files.listed(folder)] == ["x", "y"]
    assert (folder / "x").read_bytes() == b"22"


def test_files_have_checksums(store):
    path = files.path(store) / "table.bin"
    assert files.trouble(path) == "is missing"
    for data in (b"one", b"", b"three"):
        files.write_bytes(data, path)
        assert files.trouble(path) == ""
        assert files.read(path) == data
    path.write_bytes(b"other")
    assert files.trouble(path) == "is damaged: its checksum differs"
    aside = files.set_aside(path)
    assert aside.read_bytes() == b"other"
    assert [p.name for p in files.listed(path.parent)] == [aside.name]
    path.write_bytes(b"bare")
    assert files.trouble(path) == "has no checksum"
    files.remove(path)
    files.remove(path)
    assert not path.exists()


@pytest.mark.parametrize("at", [1, 2])
def test_a_file_replaced_halfway_is_whole(store, at, monkeypatch):
    path = files.path(store) / "table.bin"
    files.write_bytes(b"before", path)
    write, calls = objects.ObjectPath.write_bytes, []

    def failing(self, data):
        calls.append(self.name)
        if len(calls) == at:
            raise StorageError("killed")
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(objects.ObjectPath, "write_bytes", failing)
        with pytest.raises(StorageError, match="killed"):
            files.write_bytes(b"after", path)
    assert files.trouble(path) == ""
    assert files.read(path) == b"before"
    files.write_bytes(b"after", path)
    assert files.trouble(path) == ""
    assert files.read(path) == b"after"


def test_folders_appear_whole(store):
    target = files.path(store) / "checkpoints" / "000001"
    (target / "debris").write_bytes(b"of an upload that was interrupted")
    neighbour = target.with_name("000001.0-of-2") / "x"
    neighbour.write_bytes(b"")
    assert not files.has_appeared(target)
    assert files.appeared(target.parent) == []
    assert files.folder_trouble(target) == "is incomplete"
    with files.new_folder(target) as local:
        (local / "deep" / "er").mkdir(parents=True)
        (local / "deep" / "er" / "a").write_bytes(bytes(range(256)) * 4000)
        (local / "empty").write_bytes(b"")
    assert not local.exists()
    assert files.appeared(target.parent) == [target]
    with files.folder(target) as local:
        assert sorted(p.name for p in local.rglob("*") if p.is_file()) == [files.MANIFEST, "a", "empty"]
        assert (local / "deep" / "er" / "a").read_bytes() == bytes(range(256)) * 4000
    assert not local.exists()
    (target / "empty").write_bytes(b"x")
    assert files.folder_trouble(target) == "is damaged: empty has another checksum"
    (target / "empty").unlink()
    with pytest.raises(files.Damaged, match="000001 is damaged: empty is missing"), files.folder(target):
        pass
    aside = files.set_aside(target)
    assert files.folder_trouble(target) == "is missing"
    assert files.folder_trouble(aside) == "is damaged: empty is missing"
    assert neighbour.is_file()
    files.drop(aside)
    assert not aside.exists()


def make_folder(target):
    with files.new_folder(target) as local:
        local.mkdir()
        (local / "a").write_bytes(b"1")


@pytest.mark.parametrize("at", range(2))
def test_an_interrupted_upload_has_not_appeared(store, at, monkeypatch):
    target = files.path(store) / "000001"
    method = ("upload", "write_bytes")[at]
    with monkeypatch.context() as patch:
        patch.setattr(objects.ObjectPath, method, lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_folder(target)
    assert not files.has_appeared(target)
    assert files.folder_trouble(target) == ("is missing", "is incomplete")[at]


def test_names_that_are_no_places(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="has lost a slash"):
        files.path(Path("gs://bucket/path"))
    with pytest.raises(InputError, match="must be s3://BUCKET/PATH"):
        files.path("s3://")
    with pytest.raises(InputError, match="must be s3://BUCKET/PATH"):
        files.path("s3://bucket/../x")
    assert files.path("a/gs:/b") == Path("a/gs:/b")


@pytest.mark.parametrize(("protocol", "package", "extra"), [("gs", "gcsfs", "gcs"), ("s3", "s3fs", "s3")])
def test_a_missing_package_is_a_sentence(protocol, package, extra, capsys, monkeypatch):
    monkeypatch.setattr(objects, "_filesystem", objects._filesystem.__wrapped__)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    said = call(capsys, check.main, f"{protocol}://bucket/sweep")
    assert_refused(said, f"{protocol}:// needs {package}: pip install -e '.[{extra}]'")


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted launch.py leaves on a disk."""
    path = tmp_path_factory.mktemp("launched") / "whole"
    status, text = ended(launch(path))
    assert status == 0, text
    return path


def checked(workdir, capsys):
    status, out, err = call(capsys, check.main, str(workdir))
    assert (status, err) == (0, ""), out
    assert "all whole" in out


def wait_for_checkpoint(workdir, number, process):
    target = files.path(workdir) / "checkpoints" / f"{number:06d}"
    wait_for(lambda: files.has_appeared(target), process)


def test_killed_and_resumed_equals_one_on_a_disk(store, whole, capsys):
    workdir = f"{store}/studies/killed"
    process = launch(workdir)
    wait_for_checkpoint(workdir, 2, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (files.path(workdir) / ".lock").exists()
    assert "finished" not in set(read_runs(workdir)["status"]) or len(read_metrics(workdir)) < 804
    process = launch(workdir)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert "going on from" in text
    assert "set aside" not in text
    assert_equal_sweeps(workdir, whole)
    checked(workdir, capsys)
    names = {path.name for path in files.listed(files.path(workdir)) if not path.name.endswith(".sha256")}
    assert names == {
        *(
            "config.json",
            ".config.json.spare",
            ".checksums",
            "runs.parquet",
            "metrics",
            "snapshots",
            "checkpoints",
            "report",
        )
    }


@pytest.fixture(scope="module", params=["gs", "s3"])
def paper(request, servers):
    """A finished sweep with the paper's measures in a store, and what was printed."""
    path = f"{new_bucket(request.param)}/paper"
    status, text = train(tiny.get_config("paper"), path)
    assert status == 0
    assert "note:" not in text
    return path, text


def test_a_sweep_in_a_store_is_that_on_a_disk(paper, finished, capsys):
    path, text = paper
    assert_equal_sweeps(path, finished[0])
    assert f"grokjax.read_table('{path}/metrics')" in text
    assert f"page      {path}/report/index.html" in text
    checked(path, capsys)
    for name in ("metrics", "runs.parquet"):
        expected = pd.read_parquet(finished[0] / name)
        pd.testing.assert_frame_equal(grokjax.read_table(f"{path}/{name}"), expected, check_exact=True)
    with pytest.raises(FileNotFoundError, match="holds no Parquet files"):
        grokjax.read_table(f"{path}/nothing")
    assert "is finished: nothing to do" in train(tiny.get_config("paper"), path)[1]


def test_pandas_reads_it_with_the_stores_own_file_system(paper, finished):
    import fsspec

    path, _ = paper
    fs, place = fsspec.url_to_fs(f"{path}/metrics", use_listings_cache=False)
    read = pd.read_parquet(place, filesystem=fs)
    pd.testing.assert_frame_equal(read, pd.read_parquet(finished[0] / "metrics"), check_exact=True)
    fs.clear_instance_cache()


def test_it_opens_from_python(paper, finished):
    path, _ = paper
    there, here = grokjax.open(path), grokjax.open(finished[0])
    assert repr(there) == f"grokjax.open({path!r})  # runs: 4 finished"
    pd.testing.assert_frame_equal(there.metrics, here.metrics, check_exact=True)
    pd.testing.assert_frame_equal(there.phases(), here.phases(), check_exact=True)
    assert (there.params(1)["embed.W_E"] == here.params(1)["embed.W_E"]).all()
    assert there.measure(1, groups=["losses"])["test_loss"] == here.measure(1, groups=["losses"])["test_loss"]


def test_the_report_is_written_there(paper, capsys):
    path, _ = paper
    assert figure_path(path).read_bytes().startswith(b"\x89PNG")
    page_path(path).unlink()
    status, out, err = call(capsys, report.main, path)
    assert (status, out, err) == (0, f"written: {path}/report/index.html\n", "")
    page = page_path(path).read_text()
    assert f"sweep = &quot;{path}&quot;" in page or f'sweep = "{path}"' in page
    assert "pd.read_parquet" not in page


def test_phases_circuits_and_replays(paper, finished, capsys, tmp_path):
    path, _ = paper
    phases.main([path])
    there = capsys.readouterr().out
    phases.main([str(finished[0])])
    assert there == capsys.readouterr().out
    status, out, err = call(capsys, circuit.main, path, "--all")
    assert (status, err) == (0, "")
    assert f"written: grokjax.read_table('{path}/circuit.parquet')" in out
    assert len(grokjax.read_table(f"{path}/circuit.parquet")) == 4
    assert call(capsys, circuit.main, path, "--run=1", "--step=100")[0] == 0
    assert_refused(call(capsys, circuit.main, path), f"{path} is a directory")
    assert call(capsys, report.main, path)[0] == 0
    for _ in range(2):
        status, out, err = call(capsys, replay.main, path, "--rule=W_E", "--overwrite")
        assert (status, err) == (0, "")
    assert f"replayed into {path}/replay/rule_W_E: grokjax.read_table('{path}/replay/rule_W_E')" in out
    assert set(grokjax.read_table(f"{path}/replay/rule_W_E")["step"]) == {0, 100, 200}
    checked(path, capsys)


def test_only_trains_again_inside_it(paper):
    path, _ = paper
    status, text = train(tiny.get_config("paper"), path, only=[3, 1])
    assert status == 0
    assert f"all 22 rows equal those in {path}, bit for bit" in text
    assert read_metrics(f"{path}/only_1.3")["run"].unique().tolist() == [1, 3]


def with_checkpoints():
    c = tiny.get_config()
    c.checkpoint_every_steps = 40
    return c


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "whole"
    train(with_checkpoints(), path)
    return path


def test_interrupted_damaged_and_overwritten(store, plain, capsys):
    workdir = files.path(store) / "a"
    status, text = train(with_checkpoints(), workdir, stop=StopAfter(4))
    assert status == 143
    assert f"everything is saved in {workdir}" in text
    other = tiny.get_config()
    other.steps = 20
    with pytest.raises(InputError, match="holds another sweep"):
        train(other, str(workdir))
    found = checkpoints.complete(workdir / "checkpoints")
    (found[0][1][0] / files.MANIFEST).write_bytes(b"{")
    part = parts(workdir / "metrics")[0]
    part.write_bytes(part.read_bytes()[:-1])
    status, out, _ = call(capsys, check.main, str(workdir))
    assert status == 1
    assert "is damaged: its checksum differs" in out
    assert "is damaged: .manifest.json is not what was written" in out
    status, text = train(with_checkpoints(), str(workdir))
    assert status == 0
    assert text.count("it is set aside") == 2
    assert_equal_sweeps(workdir, plain)
    (workdir / "metrics" / "part-000099.parquet").write_bytes(b"old")
    assert train(other, workdir, overwrite=True)[0] == 0
    assert len(read_metrics(workdir)) == 4 * 2


def test_what_cannot_be_used_is_refused(store, monkeypatch, capsys):
    protocol = store.partition(":")[0]
    with pytest.raises(InputError, match=r"--workdir=\w+://no-such-bucket/a cannot be used: .*no such bucket"):
        train(tiny.get_config(), f"{protocol}://no-such-bucket/a")
    (files.path(store) / "thesis.tex").write_bytes(b"dear")
    with pytest.raises(InputError, match=r"holds thesis\.tex but no sweep"):
        train(tiny.get_config(), store)
    with pytest.raises(InputError, match="is a file, but it must be a directory"):
        train(tiny.get_config(), f"{store}/thesis.tex")
    assert [path.name for path in files.listed(files.path(store))] == ["thesis.tex"]
    assert_refused(call(capsys, check.main, f"{store}/empty"), f"{store}/empty holds no sweep")
    assert_refused(call(capsys, report.main, f"{store}/empty"), "holds no metrics yet")
    status, text = train(tiny.get_config(), f"{store}/new", plan_only=True)
    assert status == 0
    assert f"of snapshots in {store}/new" in text
    assert not files.path(f"{store}/new").exists()


def test_what_cannot_be_reached_is_a_sentence(monkeypatch, capsys):
    """Nobody listens there; retries of the packages would take a minute for Google's."""
    pytest.importorskip("s3fs")
    for name, value in environment("", f"http://127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(objects, "_filesystem", objects._filesystem.__wrapped__)
    with pytest.raises(InputError, match=r"^--workdir=s3://bucket/a cannot be used: s3://bucket/a\S* cannot be read"):
        train(tiny.get_config(), "s3://bucket/a")
    assert_refused(call(capsys, check.main, "s3://bucket/a"), "cannot be read (EndpointConnectionError: ")
    status, _, err = call(capsys, phases.main, "s3://bucket/a")
    assert status == 1
    assert "s3://bucket/a cannot be read" in err


class Wire:
    """Carries connections to a server until it is cut."""

    def __init__(self, target, port=0):
        self.target = ("127.0.0.1", int(target.rpartition(":")[2]))
        self.listening = socket.create_server(("127.0.0.1", port))
        self.port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.sockets = []
        self._start(self._accept)

    def _start(self, function, *args):
        threading.Thread(target=function, args=args, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                here, _ = self.listening.accept()
                there = socket.create_connection(self.target)
                self.sockets += [here, there]
                self._start(self._carry, here, there)
                self._start(self._carry, there, here)

    def _carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        for one in [self.listening, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_a_sweep_ended_by_an_outage_goes_on(servers, plain, monkeypatch):
    workdir = f"{new_bucket('s3')}/outage"
    wire = Wire(servers["s3"].url)

    class CutAfterTwo(StopAfter):
        def __call__(self):
            if len(checkpoints.complete(files.path(workdir) / "checkpoints")) == 2:
                wire.cut()
            return False

    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", wire.url)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(objects, "_filesystem", functools.cache(objects._filesystem.__wrapped__))
        with pytest.raises(StorageError, match=f"^{workdir}/.* what was saved before is whole. Once this is mended"):
            train(with_checkpoints(), workdir, stop=CutAfterTwo(1))
    text = train(with_checkpoints(), workdir)[1]
    assert "going on from" in text
    assert "set aside" not in text
    assert_equal_sweeps(workdir, plain)


# --- the lock ---------------------------------------------------------------------------------------------------------


def lock(folder, said=None):
    return locks.take(folder, (said if said is not None else []).append)


def other_machine(folder, **changes):
    """A lock as a process on another machine leaves it."""
    holder = locks._Holder(**{"token": "far", "process": 7, "host": "far"} | changes)
    (folder / locks.NAME).write_bytes(bytes(holder))
    return holder


def test_a_held_lock_is_refused_by_name(store, quick_locks):
    folder, said = files.path(store) / "a", []
    first = lock(folder)
    with pytest.raises(InputError, match=f"--workdir={folder} is in use by process {os.getpid()} on "):
        lock(folder, said)
    assert len(said) == 1
    first.confirm()
    first.close()
    assert not (folder / locks.NAME).exists()
    lock(folder).close()


@pytest.mark.parametrize("content", [None, b"", b"[]", b"process 7 on far", b'{"token": 1}'])
def test_a_lock_that_does_not_change_is_taken_over(store, quick_locks, content):
    folder, said = files.path(store) / "a", []
    other_machine(folder)
    if content is not None:
        (folder / locks.NAME).write_bytes(content)
    held = lock(folder, said)
    assert len(said) == 1
    assert ("process 7 on far" if content is None else "another process") in said[0]
    held.confirm()
    held.close()


def test_a_lock_that_is_let_go_of_meanwhile_is_taken(store, quick_locks):
    folder = files.path(store) / "a"
    other_machine(folder)
    timer = threading.Timer(0.2, (folder / locks.NAME).unlink)
    timer.start()
    lock(folder).close()
    timer.join()


def test_a_holder_that_was_replaced_stops_with_a_sentence(store, monkeypatch):
    monkeypatch.setattr(locks, "REFRESH", 1.0)  # the first is not under way yet
    folder = files.path(store) / "a"
    held = lock(folder)
    other = other_machine(folder)
    with pytest.raises(StorageError, match=f"{folder} was taken over by process 7 on far"):
        held.confirm()
    time.sleep(3 * locks.REFRESH)
    held.close()
    assert (folder / locks.NAME).read_bytes() == bytes(other)


def test_a_removed_lock_is_put_back(store, quick_locks):
    folder = files.path(store) / "a"
    held = lock(folder)
    (folder / locks.NAME).unlink()
    held.confirm()
    time.sleep(3 * locks.REFRESH)
    assert (folder / locks.NAME).exists()
    held.close()


def test_of_several_newcomers_one_takes_over(store, quick_locks):
    folder, taken, refused = files.path(store) / "a", [], []
    other_machine(folder)

    def come():
        try:
            taken.append(lock(folder))
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 3)
    taken[0].confirm()
    taken[0].close()


def test_a_sweep_that_lost_its_lock_writes_no_more(store, monkeypatch):
    monkeypatch.setattr(locks, "REFRESH", 600.0)  # no refresh under way writes over the other's lock
    folder = files.path(store) / "a"

    class Robbed(StopAfter):
        def __call__(self):
            if (folder / "runs.parquet").exists() and self.left > 0:
                self.left = 0
                other_machine(folder)
            return False

    with pytest.raises(StorageError, match="was taken over by process 7 on far, so this process writes no more"):
        train(tiny.get_config(), folder, stop=Robbed(1))
    assert not files.listed(folder / "checkpoints")
    (folder / locks.NAME).unlink()
    assert train(tiny.get_config(), folder)[0] == 0


def test_a_sweep_in_use_is_refused(store, quick_locks):
    held = lock(files.path(store) / "a")
    with pytest.raises(InputError, match="is in use by"):
        train(tiny.get_config(), f"{store}/a")
    held.close()
    assert files.listed(files.path(store)) == []
