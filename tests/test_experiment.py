"""Experiment files: own tasks and measures, what fails in them, and what is noticed when they are edited."""

import json
import shutil
import textwrap

import pytest
from commands import assert_refused, call

import grokjax
from grokjax import tasks
from grokjax.cli import check, circuit, measure, replay, train
from grokjax.errors import InputError
from grokjax.measures import registry
from grokjax.report import page
from grokjax.report.results import read
from grokjax.store import files
from grokjax.store.records import RECORDS

CONFIG = """
    import tiny
    def get_config(arg=""):
        c = tiny.get_config()
        c.steps, c.snapshot_every = 20, 20
        c.sweep.weight_decay = None
        {fields}
        return c
"""
TASK = """
    from grokjax import tasks
    @tasks.register
    def own_sum(a, b, p):
        return {body}
"""
MEASURE = """
    import jax.numpy as jnp
    from grokjax.measures import measure
    @measure("own", unit="1", description="Of this test.", source="this test"{more})
    def own_number(s):
        return {body}
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(registry, "MEASURES", dict(registry.MEASURES))


def write(path, *pieces, **parts):
    """Writes an experiment of the pieces above."""
    path.write_text(
        "\n".join(textwrap.dedent(piece).format(**{"fields": "pass", "more": "", **parts}) for piece in pieces)
    )
    return path


# --- an edited task -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A finished sweep of an own task, and its experiment."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "TASKS", dict(tasks.TASKS))
        file = write(folder / "own.py", TASK, CONFIG, body="a + 2 * b", fields='c.task = "own_sum"')
        grokjax.train(str(file), folder / "sweep", quiet=True)
    return folder / "sweep", file


def test_answers_are_recorded(own):
    record = json.loads((own[0] / "config.json").read_text())
    assert list(record["answers"]) == ["own_sum mod 7"]


EDITED = "was trained on other answers to task 'own_sum' modulo 7 than its function gives now, so that has been edited"


@pytest.mark.parametrize(
    ("main", "args"),
    [
        (train.main, ["--config={file}", "--workdir={path}"]),
        (train.main, ["--config={file}", "--workdir={path}", "--plan"]),
        (train.main, ["--config={file}", "--workdir={path}", "--only=1"]),
        (measure.main, ["{path}:0", "--experiment={file}"]),
        (circuit.main, ["{path}:0", "--experiment={file}"]),
        (circuit.main, ["{path}", "--all", "--experiment={file}"]),
        (replay.main, ["{path}", "--measures=clock", "--experiment={file}"]),
    ],
)
def test_an_edited_task_is_refused(own, capsys, tmp_path, main, args):
    path, _file = own
    before = sorted(path.rglob("*"))
    edited = write(tmp_path / "own.py", TASK, CONFIG, body="a + 3 * b", fields='c.task = "own_sum"')
    assert_refused(call(capsys, main, *(arg.format(path=path, file=edited) for arg in args)), EDITED)
    assert sorted(path.rglob("*")) == before


def test_an_equal_task_is_not(own, capsys):
    path, file = own
    assert call(capsys, train.main, f"--config={file}", f"--workdir={path}")[0] == 0
    assert call(capsys, measure.main, f"{path}:0", f"--experiment={file}", "--measures=losses")[0] == 0


def test_nor_is_one_of_a_directory_that_tells_no_answers(own, capsys, tmp_path):
    path = shutil.copytree(own[0], tmp_path / "sweep")
    for name in RECORDS:
        record = json.loads((path / name).read_text())
        del record["answers"]
        files.write_text(json.dumps(record), path / name)
    edited = write(tmp_path / "own.py", TASK, CONFIG, body="a + 3 * b", fields='c.task = "own_sum"')
    assert call(capsys, train.main, f"--config={edited}", f"--workdir={path}")[0] == 0
    assert call(capsys, measure.main, f"{path}:0", f"--experiment={edited}", "--measures=losses")[0] == 0


def test_check_needs_no_task(own, capsys):
    status, out, err = call(capsys, check.main, str(own[0]))
    assert (status, err) == (0, "")
    assert "all whole" in out
    assert call(capsys, check.main, str(own[0]), f"--experiment={own[1]}")[0] == 0


# --- measures that fail ---------------------------------------------------------------------------------------------

FAILING = {
    "a key": (
        's.params["W_E"]',
        "",
        ["line 6) failed with KeyError: 'W_E'", "embed.W_E [8, 8], ", "blocks.0.mlp.W_in"],
    ),
    "a name": ("s.logit_NxP", "", ["has no attribute 'logit_NxP'", "s.logits_NxP is [49, 7]"]),
    "a branch": ("1.0 if jnp.sum(s.loss_N) > 0 else 0.0", "", ["failed with TracerBoolConversionError: "]),
    "a shape": ("s.loss_N", "", ["line 4) returned float32[49], but its column, shape=() and ", "holds float[]"]),
    "a list": ("jnp.mean(s.loss_N)", ', shape=("freq",)', ["returned float32[]", "holds float[3]"]),
    "a dtype": ("jnp.sum(s.correct_N) > 0", "", ["returned bool[]"]),
    "no array": ("None", "", ["returned object[]"]),
}


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_an_own_measure_that_fails_is_told_before_anything_is_written(name, plan, capsys, tmp_path):
    body, more, expected = FAILING[name]
    file = write(tmp_path / "own.py", MEASURE, CONFIG, body=body, more=more, fields='c.measures = ("own",)')
    called = call(capsys, train.main, f"--config={file}", f"--workdir={tmp_path / 'sweep'}", *plan)
    for sentence in [f"measure 'own_number' ({file}, ", *expected]:
        assert_refused(called, sentence)
    assert not (tmp_path / "sweep").exists()


def test_it_is_told_of_a_model_and_of_a_replay(own, capsys, tmp_path):
    path, task = own
    file = write(tmp_path / "own.py", MEASURE, body='s.params["W_E"]')
    given = f"--experiment={task}", f"--experiment={file}", "--measures=own"
    before = sorted(path.rglob("*"))
    assert_refused(call(capsys, measure.main, f"{path}:0", *given), "line 6) failed with KeyError: 'W_E'")
    assert_refused(call(capsys, replay.main, str(path), *given), "line 6) failed with KeyError: 'W_E'")
    assert sorted(path.rglob("*")) == before


@pytest.mark.long
def test_what_a_column_can_hold_is_taken(capsys, tmp_path):
    file = write(tmp_path / "own.py", MEASURE, CONFIG, body="jnp.sum(s.correct_N)", fields='c.measures = ("own",)')
    results = grokjax.train(str(file), tmp_path / "sweep", quiet=True)
    assert results.metrics["own_number"].dtype == "float32"


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ('@measure("own")', "measure 'f' has unit='', but its column must say that: give @measure("),
        ("@measure", "@measure is given <function f"),
        (
            '@measure("own", unit="1", description="x", source="x", shape="freq")',
            "shape='freq', but it must be a tuple",
        ),
        ('@measure("own", unit="1", description="x", source="x", dtype="float32")', "dtype 'float32' is unknown"),
        ('@measure("own", unit="1", description="x", source="x", count_of="all")', "count_of 'all' is unknown"),
        ('@measure("own", units="1")', "unexpected keyword argument 'units'"),
    ],
)
def test_a_column_that_says_too_little_is_refused(column, sentence, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(f"from grokjax.measures import measure\n{column}\ndef f(s):\n    return 0.0\n")
    with pytest.raises(InputError) as refused:
        grokjax.train(str(file), tmp_path / "sweep")
    assert sentence in str(refused.value)


# --- files that are given -------------------------------------------------------------------------------------------


def test_a_file_may_hold_a_measure_alone_and_several_may_be_given(own, capsys, tmp_path):
    path, task = own
    file = write(tmp_path / "own.py", MEASURE, body="jnp.max(s.loss_N)")
    status, out, _ = call(
        capsys, measure.main, f"{path}:0", f"--experiment={task}", f"--experiment={file}", "--measures=own"
    )
    assert status == 0
    assert "own_number" in out


@pytest.mark.parametrize("flag", ["--config", "--experiment"])
def test_no_file_and_no_variant_are_told_by_their_flag(flag, own, capsys):
    main, more = (train.main, []) if flag == "--config" else (measure.main, [f"{own[0]}:0"])
    assert_refused(call(capsys, main, *more, f"{flag}=nowhere.py"), f"{flag}=nowhere.py names no file")
    assert_refused(call(capsys, main, *more, f"{flag}={own[1]}:"), "has a colon and no variant after it")


SECOND = """
    @measure("own", unit="1", description="Of this test.", source="this test")
    def second(s):
        return jnp.mean(s.loss_N)
"""


@pytest.mark.long
def test_a_measure_that_is_added_later_is_told_of_with_the_command_that_gives_it(capsys, tmp_path):
    path, parts = tmp_path / "sweep", {"body": "jnp.max(s.loss_N)", "fields": 'c.measures = ("own",)'}
    file = write(tmp_path / "own.py", MEASURE, CONFIG, **parts)
    assert call(capsys, train.main, f"--config={file}", f"--workdir={path}")[0] == 0
    write(file, MEASURE, SECOND, CONFIG, **parts)
    status, out, _ = call(capsys, train.main, f"--config={file}", f"--workdir={path}")
    command = f"grokjax replay {path} --measures=own --experiment={file}"
    assert status == 0
    assert "is finished: nothing to do" in out
    assert "begun without the measures second, " in out
    assert command in out
    assert call(capsys, replay.main, *command.split()[2:])[0] == 0
    assert grokjax.read_table(path / "replay" / "own")["second"].notna().all()
    text = page.html(read(path))  # the measure that the sweep has is drawn
    assert "Measures of the experiment&#x27;s own (pure number)" in text
    assert '"column": "own_number"' in text or '"column":"own_number"' in text
    grokjax.open(path).figure("column", column="own_number")
    write(file, MEASURE, CONFIG, body="jnp.max(s.loss_N)", fields='c.measures = ("own", "clock")')
    called = call(capsys, train.main, f"--config={file}", f"--workdir={path}")
    assert_refused(called, f"Measures of what is there: grokjax replay {path} --measures=GROUPS.")
