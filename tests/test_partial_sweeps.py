"""A directory that was trained with --only is a sweep of its own: every command works on it, and says what it is."""

import json
import shutil

import matplotlib.pyplot as plt
import pytest
import tiny
from commands import call
from doubles import StopAfter

import grokjax
from grokjax.cli import check, circuit, figure, measure, phases, replay, report
from grokjax.errors import InputError
from grokjax.report import write
from grokjax.store import files
from grokjax.store.metrics import read_metrics, read_table
from grokjax.store.records import RECORDS, part, read_record

PART = "a part of its sweep, 2 of 4 runs"


def config():
    c = tiny.get_config("paper")
    c.steps = 100
    return c


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    path = tmp_path_factory.mktemp("partial") / "some"
    status, text = tiny.train(config(), path, only=[3, 1])
    assert status == 0
    assert "     runs  2 of 4, in 1 compiled group" in text
    return path


COMMANDS = {
    "report": (report, []),
    "phases": (phases, ["--runs"]),
    "figure": (figure, ["--kind=time-to-grok", "--out={}/a.svg"]),
    "replay": (replay, ["--runs=3", "--threshold=0.4"]),
    "replay all": (replay, []),
    "circuit --all": (circuit, ["--all"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_works_and_says_that_it_is_a_part(some, tmp_path, capsys, name):
    command, flags = COMMANDS[name]
    status, out, err = call(capsys, command.main, str(some), *(flag.format(tmp_path) for flag in flags))
    assert status == 0, err
    assert f"note: {some} is {PART}." in err
    assert out
    plt.close("all")


def test_check_says_it_in_its_first_line(some, capsys):
    status, out, err = call(capsys, check.main, str(some))
    assert (status, err) == (0, "")
    assert out.startswith(f"{some}: {PART}, ")
    assert "done      runs 1.3" in out


def test_a_run_of_it_is_named_by_its_number_in_the_whole(some, capsys):
    assert call(capsys, measure.main, f"{some}:3", "--measures=paper")[0] == 0
    assert call(capsys, circuit.main, str(some), "--run=3")[0] == 0
    status, _, err = call(capsys, replay.main, str(some), "--runs=0")
    assert status == 2
    assert "--runs names run 0, but this sweep's runs are 1, 3." in err


def test_python_opens_it(some):
    results = grokjax.open(some)
    assert repr(results).endswith(f"# runs: 2 finished; {PART}")
    assert results.phases()["run"].tolist() == [1, 3]
    assert results.steps(1) == [0, 100]
    assert results.measure(1, groups=["paper"])["train_loss"] > 0


def test_the_page_says_it(some):
    write.write(some)
    assert f"This is {PART}." in write.page_path(some).read_text()


def test_the_circuits_and_the_replay_keep_the_numbers(some, capsys):
    call(capsys, circuit.main, str(some), "--all")
    call(capsys, replay.main, str(some), "--threshold=0.3")
    assert read_table(some / "circuit.parquet")["run"].tolist() == [1, 3]
    assert sorted(set(read_table(some / "replay" / "threshold_0.3")["run"])) == [1, 3]


def test_its_own_command_goes_on_with_it(some, tmp_path):
    c = config()
    assert tiny.train(c, tmp_path, only=[1, 3], stop=StopAfter(4))[0] == 143
    status, text = tiny.train(c, tmp_path, only=[1, 3])
    assert status == 0
    assert "going on from" in text
    assert [place.name for place in tmp_path.glob("only_*")] == []
    whole, halves = (read_metrics(path) for path in (some, tmp_path))
    assert whole.map(str).equals(halves.map(str))
    assert "is finished: nothing to do" in tiny.train(c, tmp_path, only=[1, 3])[1]


def test_one_of_its_runs_is_trained_again_in_its_layout(some, tmp_path):
    path = shutil.copytree(some, tmp_path / "some")
    status, text = tiny.train(config(), path, only=[3])
    assert status == 0
    assert f"rows equal those in {path}, bit for bit" in text
    assert read_record(path / "only_3")["groups"] == read_record(path)["groups"]


def test_a_run_that_it_lacks_has_nothing_to_be_compared_with(some, tmp_path):
    path = shutil.copytree(some, tmp_path / "some")
    text = tiny.train(config(), path, only=[0])[1]
    assert f"{path} is {PART}, without these: there is nothing to compare with." in text


def test_the_whole_sweep_is_told_how_to_go_on(some):
    with pytest.raises(InputError) as refused:
        tiny.train(config(), some)
    assert str(refused.value) == (
        f"--workdir={some} holds a part of this sweep, 2 of 4 runs: go on there with --only=1,3, choose another "
        "directory, or --overwrite to start again there."
    )


def test_one_of_an_earlier_version_does_not_know_how_many_there_are(some, tmp_path, capsys):
    path = shutil.copytree(some, tmp_path / "some")
    record = json.loads((path / "config.json").read_text())
    del record["n_runs"]
    for name in RECORDS:
        files.write_text(json.dumps(record), path / name)
    assert part(read_record(path)) == "a part of its sweep, 2 of at least 4 runs"
    assert call(capsys, check.main, str(path))[0] == 0


@pytest.mark.parametrize(
    ("numbers", "n_runs", "text"),
    [
        ([0, 1], 2, ""),
        ([0, 1], None, ""),
        ([0, 1], 3, "a part of its sweep, 2 of 3 runs"),
        ([2], None, "a part of its sweep, 1 of at least 3 runs"),
    ],
)
def test_a_part_by_its_numbers(numbers, n_runs, text):
    assert part({"runs": [{"run": number} for number in numbers], "n_runs": n_runs}) == text


def test_a_wrong_number_of_runs_is_refused(some, tmp_path):
    path = shutil.copytree(some, tmp_path / "some")
    record = json.loads((path / "config.json").read_text())
    for name in RECORDS:
        files.write_text(json.dumps(record | {"n_runs": 3}), path / name)
    with pytest.raises(InputError, match="'n_runs' is no number of the whole sweep's runs"):
        read_record(path)
