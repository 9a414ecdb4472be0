"""Where checksums lie: in one hidden folder of a new directory, beside the files of an old one, for life."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tiny
from doubles import StopAfter

from grokjax.interp.circuit.runs import circuits_of
from grokjax.interp.replay import Replay, replay
from grokjax.store import check, files
from grokjax.store.metrics import parts, read_metrics
from grokjax.store.records import RECORDS, read_record


def old_style(path: Path) -> Path:
    """Makes a directory one of an earlier version, which has its checksums beside its files."""
    for side in sorted((path / files.CHECKSUMS).rglob("*.sha256")):
        side.rename(path / side.relative_to(path / files.CHECKSUMS))
    shutil.rmtree(path / files.CHECKSUMS)
    record = json.loads((path / "config.json").read_text())
    del record["checksums"]
    for name in RECORDS:
        files.write_text(json.dumps(record), path / name)
    return path


def beside(path: Path) -> list[Path]:
    return [side for side in path.rglob("*.sha256") if files.CHECKSUMS not in side.parts]


def whole(path) -> bool:
    return check.check(path)[1]


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy", ignore=shutil.ignore_patterns("only_*", "replay"))


@pytest.fixture
def old(copy):
    return old_style(copy)


def test_a_new_directory_has_nothing_but_tables_beside_its_tables(copy):
    assert read_record(copy)["checksums"] == files.CHECKSUMS
    assert [place.name for place in (copy / "metrics").iterdir()] == ["part-000000.parquet"]
    assert beside(copy) == []
    assert (copy / files.CHECKSUMS / "metrics" / ".part-000000.parquet.sha256").is_file()
    assert whole(copy)


READERS = {
    "pandas": lambda folder: pd.read_parquet(folder, engine="pyarrow"),
    "fastparquet": lambda folder: pd.read_parquet(folder, engine="fastparquet"),
    "polars": lambda folder: pytest.importorskip("polars").read_parquet(folder).to_pandas(),
    "polars, lazily": lambda folder: pytest.importorskip("polars").scan_parquet(folder).collect().to_pandas(),
    "duckdb": lambda folder: pytest.importorskip("duckdb").sql(f"FROM '{folder}/*.parquet'").df(),
    "arrow": lambda folder: pytest.importorskip("pyarrow.dataset").dataset(folder).to_table().to_pandas(),
}


@pytest.mark.filterwarnings("ignore:The 'fastparquet' engine is deprecated")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fastparquet leaves its files open
@pytest.mark.parametrize("name", READERS)
def test_other_programs_read_the_folder(copy, name):
    pytest.importorskip(name.partition(",")[0].replace("arrow", "pyarrow"))
    found = READERS[name](str(copy / "metrics")).sort_values(["run", "step"], ignore_index=True)
    known = read_metrics(copy)
    assert len(found) == 44
    for column in ("run", "step", "train_loss", "weight_decay"):
        assert found[column].astype(float).tolist() == known[column].astype(float).tolist()
    assert list(found["freq_norm_W_E"].iloc[3]) == list(known["freq_norm_W_E"].iloc[3])


def test_an_old_directory_opens_and_keeps_its_checksums_beside(old):
    assert whole(old)
    assert len(beside(old)) >= 4
    replay(old, Replay(threshold=0.4))
    circuits_of(old)
    tiny.train(tiny.get_config("paper"), old)
    assert whole(old)
    assert not (old / files.CHECKSUMS).exists()
    assert (old / ".circuit.parquet.sha256").is_file()
    assert (old / "replay" / "threshold_0.4" / ".runs_0-3.parquet.sha256").is_file()


def test_an_old_directory_that_was_interrupted_goes_on_with_them(tmp_path):
    c = tiny.get_config()
    assert tiny.train(c, tmp_path, stop=StopAfter(3))[0] == 143
    old_style(tmp_path)
    assert tiny.train(c, tmp_path)[0] == 0
    assert whole(tmp_path)
    assert not (tmp_path / files.CHECKSUMS).exists()


def test_overwriting_an_old_directory_makes_a_new_one(old):
    tiny.train(tiny.get_config(), old, overwrite=True)
    assert whole(old)
    assert beside(old) == []


def test_replays_and_circuits_have_theirs_in_the_folder(copy):
    replay(copy, Replay(threshold=0.4))
    path, _ = circuits_of(copy)
    assert beside(copy) == []
    part = copy / "replay" / "threshold_0.4" / "runs_0-3.parquet"
    for file in (path, part):
        assert files.trouble(file) == ""
        file.write_bytes(file.read_bytes() + b"x")
        assert not whole(copy)
        files.remove(file)
        assert not files.checksum_path(file).exists()
    assert whole(copy)


def test_runs_trained_again_inside_have_their_own(copy):
    tiny.train(tiny.get_config("paper"), copy, only=[2])
    assert whole(copy)
    assert beside(copy) == []
    assert (copy / "only_2" / files.CHECKSUMS / ".config.json.sha256").is_file()


def test_an_old_directory_inside_a_new_one_has_its_own_beside(copy, tmp_path):
    inner = old_style(shutil.copytree(copy, tmp_path / "inner"))
    inner = Path(shutil.move(inner, copy / "only_0-3"))
    assert files.checksum_path(inner / "metrics" / "a").parent == inner / "metrics"
    assert whole(copy)


@pytest.mark.parametrize("old_one", [False, True])
@pytest.mark.parametrize("write", [1, 2, 3])
def test_killed_between_the_writes_of_a_file_and_its_checksum(copy, monkeypatch, old_one, write):
    """As SIGKILL leaves it: both the file before and the file after are whole."""
    if old_one:
        old_style(copy)
    part, done, put = parts(copy / "metrics")[0], [], files._put
    before = part.read_bytes()

    def killed(data, path):
        put(data, path)
        done.append(path)
        if len(done) == write:
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "_put", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(before + b"more", part)
    monkeypatch.undo()
    assert files.trouble(part) == ""
    assert part.read_bytes() == before + b"more" * (write > 1)


def test_a_folder_of_checksums_that_is_gone_is_told_and_mended(copy):
    shutil.rmtree(copy / files.CHECKSUMS)
    lines, fine = check.check(copy)
    assert not fine
    assert "damaged   runs.parquet has no checksum" in lines
    assert tiny.train(tiny.get_config("paper"), copy)[0] == 0
    assert whole(copy)
    assert beside(copy) == []


def test_a_killed_start_leaves_a_directory_that_can_be_used(tmp_path):
    (tmp_path / files.CHECKSUMS).mkdir()
    assert tiny.train(tiny.get_config(), tmp_path)[0] == 0
