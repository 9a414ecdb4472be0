"""tools.mutants: which mutants it draws, which tests it runs on them, and what it keeps."""

import collections

import pytest

pytest.importorskip("cosmic_ray")

from tools import mutants
from tools.mutants import Mutant

SOURCE = '''"""A docstring with 1 + 1."""

def f(x: int | None = 2, *, y: "Float[Array, '3 4']" = None) -> int | None:
    z: int | str = x + 1
    while not y and z > 3:
        z -= 1  # 5 + 5
    return z
'''


def test_annotations_and_texts_are_not_mutated():
    found = mutants.places("grokjax/f.py", SOURCE)
    lines = SOURCE.splitlines()
    kinds = {(mutant.line, mutant.operator.split("_")[0].removeprefix("core/")) for group in found for mutant in group}
    assert {(3, "NumberReplacer"), (4, "ReplaceBinaryOperator"), (5, "ReplaceComparisonOperator")} <= kinds
    assert {line for line, _ in kinds} == {3, 4, 5, 6}
    for mutant in (mutant for group in found for mutant in group):
        changed = mutants.mutate(mutant, SOURCE)
        if changed is not None:
            assert "int | None = " in changed
            assert "'3 4'" in changed
            assert "-> int | None:" in changed
            assert "z: int | str" in changed
            assert lines[mutant.line - 1] not in changed.splitlines()


def test_what_does_not_compile_or_means_the_same_is_no_mutant():
    (places,) = mutants.places("grokjax/f.py", "x = y == 'a'\n")
    outcomes = {mutant.operator.rpartition("_")[2]: mutants.mutate(mutant, "x = y == 'a'\n") for mutant in places}
    assert outcomes["NotEq"] == "x = y != 'a'\n"
    assert outcomes["Is"] is None  # a SyntaxWarning


def test_a_sample_is_in_proportion_and_repeats():
    sources = {
        "grokjax/store/a.py": "x = 1\n" * 30,
        "grokjax/core/b.py": "x = 1\n" * 10,
        "grokjax/c.py": "x = 1\n" * 10,
    }
    drawn = mutants.sample(sources, 10, 0)
    counts = collections.Counter(mutants.room(mutant.path) for mutant in drawn)
    assert counts == {"store": 6, "core": 2, "grokjax": 2}
    assert len({(mutant.path, mutant.line) for mutant in drawn}) == 10
    assert drawn == mutants.sample(sources, 10, 0) != mutants.sample(sources, 10, 1)
    for mutant, text in drawn.items():
        assert text == mutants.mutate(mutant, sources[mutant.path])
    assert len(mutants.sample(sources, 100, 0)) == 50  # all there are


def test_the_tests_of_a_module_are_its_rooms(tmp_path):
    (tmp_path / "tests").mkdir()
    for name in ("files", "files_locked", "ledger", "requests", "filesystem", "tasks", "measures_contract", "keys"):
        (tmp_path / "tests" / f"test_{name}.py").touch()
    modules = ["grokjax/store/files.py", "grokjax/store/ledger.py", "grokjax/tasks.py", "grokjax/measures/keys.py"]

    def tests(path):
        return [test.removeprefix("tests/test_") for test in mutants.tests_of(path, modules, tmp_path)]

    assert tests(modules[0]) == ["files.py", "files_locked.py", "ledger.py", "requests.py"]
    assert tests(modules[1]) == ["ledger.py", "files.py", "files_locked.py", "requests.py"]
    assert tests(modules[2]) == ["tasks.py", "requests.py"]
    assert tests(modules[3]) == ["keys.py", "measures_contract.py"]


@pytest.mark.parametrize(
    ("mark", "wanted", "outcome"),
    [
        ("", 2, "caught"),
        ("@pytest.mark.long\n", 2, "caught"),
        ("", 1, "survived"),
        ("@pytest.mark.long\n", 1, "survived"),
    ],
)
def test_who_survives_meets_the_long_tests_of_its_module(tmp_path, mark, wanted, outcome):
    whole = tmp_path / "whole"
    (whole / "tests").mkdir(parents=True)
    (whole / "grokjax").mkdir()
    (whole / "grokjax" / "a.py").write_text("x = 2\n")
    (whole / "pytest.ini").write_text("[pytest]\nmarkers = long\npythonpath = grokjax\n")
    test = (
        f"import a\nimport pytest\n\n\ndef test_any():\n    pass\n\n\n{mark}def test_a():\n    assert a.x >= {wanted}\n"
    )
    (whole / "tests" / "test_a.py").write_text(test)
    found = mutants.judge(whole, Mutant("grokjax/a.py", 1, "any", 0), "x = 1\n", ["tests/test_a.py"], 60)
    assert (found["outcome"], found["change"]) == (outcome, "x = 2  →  x = 1")


@pytest.mark.parametrize(("body", "status"), [("assert 1 + 1 == 2", 0), ("assert False", 1), ("time.sleep(60)", None)])
def test_tests_pass_fail_or_take_too_long(tmp_path, body, status):
    (tmp_path / "test_x.py").write_text(f"import time\n\n\ndef test_x():\n    {body}\n")
    found, seconds = mutants.run(tmp_path, ["test_x.py"], None if status is not None else 3)
    assert found == status
    assert seconds < 50


def test_the_summary_counts_by_room_and_lists_survivors():
    rows = [
        (Mutant("grokjax/core/a.py", 1, "core/AddNot", 0), {"outcome": "caught"}),
        (Mutant("grokjax/core/a.py", 2, "core/AddNot", 1), {"outcome": "timed out"}),
        (Mutant("grokjax/tasks.py", 3, "core/AddNot", 2), {"outcome": "survived", "change": "if x:  →  if not x:"}),
    ]
    said = mutants.summary(rows)
    assert "| all | 3 | 2 | 67% |\n| core | 2 | 2 | 100% |\n| grokjax | 1 | 0 | 0% |" in said
    assert said.endswith("1 survived.\n- grokjax/tasks.py:3 AddNot 2: `if x:  →  if not x:`")
