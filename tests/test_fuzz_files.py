"""Damaged files of every kind are a sentence or read rightly; nothing is unpickled, and no name leaves its place."""

import ast
import json
import os
import pickle
import random
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import doubles
import made_up
import numpy as np
import pyarrow as pa
import pytest
import tiny
from commands import assert_refused, call
from rich.console import Console

from faults import damage, fuzz, readers
from faults.cases import PAYLOAD, Case
from grokjax import errors
from grokjax.cli import check, circuit, export, measure, phases, replay, terminal
from grokjax.cli.train import default_workdir
from grokjax.errors import InputError
from grokjax.interp import replay as replay_lib
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.report.page import html
from grokjax.report.results import read
from grokjax.store import files as files_lib
from grokjax.store.metrics import parts, read_metrics, read_part, read_runs
from grokjax.store.records import read_record
from grokjax.store.sweep import load_sweep
from grokjax.training import progress

ROOT = Path(__file__).parent.parent
FILES = 100  # here; `python -m faults.fuzz --files 1000` damages more


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A made-up sweep: ten weight decays, two seeds, ten evaluations, P = 7."""
    return made_up.make_sweep(tmp_path_factory.mktemp("made") / "small", 20, 10, 7)


# --- damaged files ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_damaged_files_are_a_sentence_or_read_rightly():
    """In processes of their own: none may crash, hang, fill the memory, run code or write elsewhere."""
    told = []
    cases = fuzz.run(range(FILES), say=told.append)
    assert told == []
    record = fuzz.counted(cases)
    assert record["files"] == FILES
    assert {name for counts in record["kind"].values() for name in counts} == {"read", "sentence"}
    assert record["bad"] == []
    for by in fuzz.BY:
        assert fuzz.table(record, by).startswith(f"| {by} | ")


def test_a_reader_that_fails_is_told(tmp_path, monkeypatch):
    """The judge itself: what must not happen is seen."""
    case = Case(0, "npz", "cut", False, "model.npz", "", ("export",))

    def outcome(function):
        monkeypatch.setitem(readers.READERS, "export", function)
        return readers.answer(case, "export", tmp_path)["outcome"]

    def refuse(text):
        raise InputError(text)

    assert outcome(lambda case, folder: 1 / 0) == "traceback"
    assert outcome(lambda case, folder: print("x")) == "read"
    assert outcome(lambda case, folder: refuse("model.npz is cut.")) == "sentence"
    assert outcome(lambda case, folder: sys.exit(3)) == "no sentence"
    assert outcome(lambda case, folder: print("\x1b[31mred")) == "escape sequence"
    assert outcome(lambda case, folder: (tmp_path / "stray").touch()) == "wrote elsewhere"
    (tmp_path / "stray").unlink()
    assert outcome(lambda case, folder: (tmp_path / PAYLOAD).mkdir()) in ("code was run", "wrote elsewhere")


@pytest.mark.long
def test_a_reader_that_crashes_or_hangs_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 2)
    monkeypatch.setattr(fuzz.readers, "make_ready", doubles.not_ready)
    monkeypatch.setattr(fuzz.readers, "answer", doubles.failing_answer)
    monkeypatch.setattr(fuzz.cases, "make", doubles.made_case)
    worker = fuzz.Worker(tmp_path)
    assert [one["outcome"] for one in worker.read(1)["answers"]] == ["crash", "hang"]
    worker.close()


def test_what_lies_where_a_file_was_is_never_waited_for(tmp_path):
    for what in damage.PLACES:
        path = tmp_path / f"{what}.parquet".replace(" ", "_")
        files_lib.write_parquet(pa.table({"run": [1]}), path)
        damage.put_in_place(path, what)
        assert files_lib.trouble(path)
        with pytest.raises(files_lib.Damaged, match=r"is missing|is no file|is too large|cannot be read"):
            read_part(path)
        files_lib.set_aside(path)
        assert not os.path.lexists(path)


def test_a_part_with_another_checksum_is_not_read(tmp_path):
    """Bits turned inside a column are numbers that are wrong, which Parquet itself does not see."""
    path = tmp_path / "part-000000.parquet"
    table = pa.table({"run": np.arange(1_000), "step": np.arange(1_000)})
    files_lib.write_parquet(table, path)
    assert read_part(path).equals(table)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(files_lib.Damaged, match="its checksum differs"):
        read_part(path)
    files_lib.checksum_path(path).unlink()  # a table of somebody else's
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(files_lib.Damaged, match="cannot be read as Parquet"):
        read_part(path)


# --- nothing that is read is run --------------------------------------------------------------------------------------

NEVER = {"eval", "exec", "compile", "__import__", "read_pickle", "to_pickle", "Unpickler", "system", "popen"}


def unsafe_calls(source):
    """Calls that run what they read: by name, with their line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in (
            "pickle",
            "dill",
            "cloudpickle",
            "joblib",
            "shelve",
            "marshal",
        ):
            found.append((node.lineno, node.module))
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        of = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        said = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        bad = (
            (name in NEVER and of not in ("re", "jax"))
            or (name in ("load", "loads", "dump", "dumps") and of in ("pickle", "marshal", "dill", "joblib", "shelve"))
            or (name == "load" and of in ("np", "numpy") and said.get("allow_pickle") is not False)
            or (name == "load" and of == "torch" and said.get("weights_only") is not True)
            or said.get("shell") is True
            or said.get("allow_pickle") is True
        )
        if bad:
            found.append((node.lineno, f"{of}.{name}".strip(".")))
    return found


@pytest.mark.parametrize("folder", ["grokjax", "experiments", "launch.py"])
def test_the_source_never_unpickles_and_never_evaluates(folder):
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert {str(file): found for file in files if (found := unsafe_calls(file.read_text()))} == {}


UNSAFE = """np.load(f); np.load(f, allow_pickle=True); torch.load(f); torch.load(f, weights_only=False); eval('1');
pickle.loads(b''); from pickle import loads; pd.read_pickle(f); os.system('x'); run('x', shell=True)"""


@pytest.mark.parametrize("source", [source.strip() for source in UNSAFE.split(";")])
def test_the_scan_sees_what_it_is_for(source):
    assert unsafe_calls(source)


READERS = {
    "measure": lambda path: measure.main([path]),
    "circuit": lambda path: circuit.main([path]),
    "export": lambda path: export.main([path, f"{path}.out.npz"]),
    "phases": lambda path: phases.main([path]),
    "load": lambda path: load_checkpoint(path),
}
PICKLED = (
    damage.pickled_npz,
    damage.pickled_member,
    damage.pickled_array,
    damage.pickled,
    damage.pickled_zip,
    damage.pickled_parquet,
)


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_runs_what_is_pickled(reader, tmp_path, capsys):
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(damage.Trap(trap)))  # as it would
    trap.rmdir()
    for make in PICKLED:
        for suffix in (".npz", ".npy", ".pth", ".parquet", ".csv"):
            path = tmp_path / f"{make.__name__}{suffix}"
            path.write_bytes(make(random.Random(0), trap))
            status, _, err = call(capsys, lambda argv: READERS[reader](argv[0]), str(path))
            if reader != "phases" or status:
                assert (status, err.count("\n")) == (2, 1)
            assert not trap.exists()


def test_no_reader_runs_the_experiment_that_a_config_names(small, tmp_path, capsys):
    path = tmp_path / "sweep"
    shutil.copytree(small, path)
    evil = tmp_path / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(tmp_path / 'trap')!r})\n")
    record = json.loads((path / "config.json").read_text())
    files_lib.write_text(json.dumps(record | {"experiment": str(evil)}), path / "config.json")
    for command in (measure.main, circuit.main):
        assert_refused(
            call(capsys, command, *([f"{path}:0"] if command is measure.main else [str(path), "--run=0"])), "snapshot"
        )
    for command in (replay.main, check.main):
        call(capsys, command, str(path))
    call(capsys, circuit.main, str(path), "--all")
    assert not (tmp_path / "trap").exists()


def test_a_task_of_the_sweeps_own_is_asked_for(small, tmp_path, capsys):
    path = tmp_path / "sweep"
    shutil.copytree(small, path)
    record = json.loads((path / "config.json").read_text())
    record["experiment"] = "mine.py"
    for run in record["runs"]:
        run["task"] = "mine"
    files_lib.write_text(json.dumps(record), path / "config.json")
    assert_refused(call(capsys, replay.main, str(path)), "give --experiment=FILE, which defines it")
    assert "--experiment" not in "".join(call(capsys, check.main, str(path))[1:])  # which looks at files alone


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = [
    "../../x",
    "/etc/x",
    "..",
    ".",
    "",
    "a\nb",
    "nul\0",
    "x" * 5_000,
    "é" * 200,
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"'><b>",
    "[bold red]x[/]",
    ":smile:",
    "\x1b[2J\x1b]0;x\x07",
    "‮x",
    "`$(id)`",
    "{{data}}",
    "a/b\\c",
    "-rf",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_stay_in_their_folder(name, tmp_path):
    made = errors.file_name(name)
    assert re.fullmatch(r"[\w-][\w.-]*", made)
    assert len(made.encode()) <= 140
    (tmp_path / made).touch()
    assert [path.name for path in tmp_path.iterdir()] == [made]
    folder = Path(default_workdir(f"x.py:{name}"))
    assert folder.parent == Path("results")
    assert ".." not in folder.parts
    assert replay_lib.Replay().name == ""
    wanted = replay_lib.Replay(rule=name, measures=(name, name))
    assert Path("a") / wanted.name != Path("a")
    assert "/" not in wanted.name
    assert wanted.name not in (".", "..")
    assert replay_lib.Replay(measures=(name or "x",)).name not in ("", ".", "..")


def test_long_names_that_differ_stay_apart():
    assert errors.file_name("x" * 500 + "a") != errors.file_name("x" * 500 + "b")


def test_overwrite_of_a_replay_removes_nothing_else(small, tmp_path, capsys):
    path = tmp_path / "sweep"
    shutil.copytree(small, path)
    before = sorted(path.rglob("*"))
    for name in ("..", ".", "../..", "/"):
        assert_refused(call(capsys, replay.main, str(path), "--overwrite", f"--measures={name}"), "is unknown")
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name, capsys):
    out = Console(width=200, force_terminal=True, color_system="truecolor", record=True)
    with out.capture() as captured:
        progress.tell(out, name)
    assert captured.get().rstrip("\n") == errors.plain(name).rstrip("\n")
    terminal.say(name)
    assert "\x1b" not in capsys.readouterr().out
    sentence = str(InputError(f"{name} is wrong."))
    assert sentence.isprintable()
    assert len(sentence) < 2_000


@pytest.mark.parametrize("name", ["[bold]x[/bold]", ":smile:", "\x1b[31mred"])
def test_names_in_tables_are_printed_as_they_are(name, small, tmp_path, capsys):
    metrics = read_metrics(small, ["run", "step", "train_loss", "test_loss"])
    metrics.assign(**{"label": [f"{name}{run}" for run in metrics["run"]], name: metrics["run"]}).to_csv(
        tmp_path / "x.csv"
    )
    phases.main([str(tmp_path / "x.csv"), f"--by={name}"])
    out = capsys.readouterr().out
    assert errors.plain(name) in out
    assert "\x1b" not in out
    runs = read_runs(small).assign(task=name)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(progress.summary(runs, ["task"]))
    assert errors.plain(name) in captured.get()


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def named_sweep(small, path, names):
    """A sweep whose every text is a name."""
    shutil.copytree(small, path)
    runs = read_part(small / "runs.parquet")
    for column in ("task", "model.act", "precision", "key_rule"):
        index = runs.schema.get_field_index(column)
        values = pa.array([names[i % len(names)] for i in range(runs.num_rows)])
        runs = runs.set_column(index, runs.schema.field(index), values)
    files_lib.write_parquet(runs, path / "runs.parquet")
    part, name = parts(path / "metrics")[0], "".join(names)
    metrics = read_part(part)
    fields = [f.with_metadata({"description": name, "unit": name}) for f in metrics.schema]
    files_lib.write_parquet(metrics.cast(pa.schema(fields, {"config": json.dumps({"task": name})})), part)
    record = json.loads((path / "config.json").read_text())
    record |= {"experiment": name, "device_kind": name, "git_commit": name, "versions": {name: name}, "precision": name}
    files_lib.write_text(json.dumps(record), path / "config.json")
    return path


@pytest.mark.long
def test_names_do_nothing_in_a_page(small, tmp_path):
    names = [name for name in NAMES if "\0" not in name]
    folder = "".join(name[:9] for name in names).replace("/", "∕")
    text = html(read(named_sweep(small, tmp_path / folder, names)))
    usual_names = [f"name{i:02d}" for i in np.argsort(np.argsort(names))]  # in the same order
    plain = html(read(named_sweep(small, tmp_path / "plain", usual_names)))
    tags, usual = (Tags(re.sub(r"(?s)<script>.*?</script>", "", page)).found for page in (text, plain))
    assert [tag for tag, _ in tags] == [tag for tag, _ in usual]
    assert [attrs.keys() for _, attrs in tags] == [attrs.keys() for _, attrs in usual]
    assert not [a for _, attrs in tags for a in attrs if a.startswith("on")]
    assert {a["href"] for tag, a in tags if tag == "a"} == {a["href"] for tag, a in usual if tag == "a"}
    data = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text)[1]
    assert not set("<>&") & set(data)
    assert [run["axes"]["task"] for run in json.loads(data)["runs"][: len(names)]] == names


@pytest.mark.parametrize("name", [name for name in NAMES if name and "\0" not in name and len(name.encode()) < 200])
def test_a_workdir_of_any_name_is_planned_and_reported(name, small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("sub") / name.replace("/", "∕").replace("..", "dots")
    shutil.copytree(small, folder)
    assert call(capsys, check.main, str(folder))[0] in (0, 1)
    out = call(capsys, phases.main, str(folder))[1]
    assert "\x1b" not in out
    told = tiny.train(tiny.get_config(), Path("sub") / "new" / name.replace("/", "∕"), plan_only=True)[1]
    assert errors.one_line(name.replace("/", "∕")) in told or name == "."
    assert not (tmp_path / "sub" / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


# --- config.json ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        "null",
        "{}",
        "[" * 100_000,
        "",
        '{"runs": [], "config": {}, "axes": {}, "groups": []}',
        "\0",
        '"x"',
        "NaN",
    ],
)
def test_a_config_of_another_kind_is_a_sentence(content, small, tmp_path, capsys):
    path = tmp_path / "sweep"
    shutil.copytree(small, path)
    (path / "config.json").write_text(content)
    for command in (check.main, replay.main):
        status, _, err = call(capsys, command, str(path))
        assert (status, err.count("\n")) == (2, 1)
    with pytest.raises(InputError):
        tiny.train(tiny.get_config(), path)
    with pytest.raises(InputError):
        read_record(path) and load_sweep(path)


def test_the_made_up_sweep_is_whole(small):
    """What these tests change."""
    assert made_up.WEIGHT_DECAYS
    assert len(load_sweep(small).runs) == 20
