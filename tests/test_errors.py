"""Sentences are one line of what a terminal shows, and not a long one; names of files stay in their folder."""

import hashlib

import pytest

from grokjax import errors
from grokjax.errors import InputError, file_name, one_line, plain, shown, unknown


def test_lengths():
    assert (errors.LONGEST, errors.LONGEST_VALUE) == (1_500, 80)
    assert one_line("x" * 1_500) == "x" * 1_500
    text = "a" * 1_000 + "b" * 501
    assert one_line(text) == "a" * 750 + " … " + "b" * 500
    assert str(InputError(text)) == one_line(text)


def test_what_a_terminal_would_not_show_is_escaped():
    assert one_line(" a\n\tb \x1b[31m\u202e ") == r"a b \x1b[31m\u202e"
    assert plain("λ\nb\x07\0") == "λ\nb\\x07\\x00"
    assert plain("λ b") == "λ b"


def test_values():
    assert shown("x" * 78) == repr("x" * 78)
    assert len(shown("x" * 79)) == 80
    assert shown(2**200 - 1) != "an integer of 200 bits"
    assert shown(2**200) == "an integer of 201 bits"
    assert shown(-1.5) == "-1.5"

    class Unshown:
        def __repr__(self):
            raise RuntimeError

    assert "Unshown" in shown(Unshown())


def test_unknown_names():
    assert str(unknown("task", "ad", ["sub", "add", "adds"])) == (
        "task 'ad' is unknown: did you mean 'add'? known are add, adds, sub."
    )
    assert str(unknown("task", "zzz", {"b": 1, "a": 2})) == "task 'zzz' is unknown: known are a, b."
    assert str(unknown("task", 3, ["a"])) == "task '3' is unknown: known are a."
    assert str(unknown("task", "z" * 80, ["a"])) == f"task '{'z' * 80}' is unknown: known are a."
    assert str(unknown("task", "z" * 81, ["a"])) == f"task '{'z' * 80}…' is unknown: known are a."


def test_names_of_files():
    for text, name in {
        "small": "small",
        "a/b c:d": "a_b_c_d",
        "": "_",
        "..": "_..",
        ".hidden": "_.hidden",
        "a.b-c_λ": "a.b-c_λ",
        "x" * 120: "x" * 120,
    }.items():
        assert file_name(text) == name
    digest = hashlib.sha256(b"x" * 121).hexdigest()[:12]
    assert file_name("x" * 121) == f"{'x' * 107}_{digest}"
    assert len(file_name("λ" * 61).encode()) <= 120
    assert file_name("abcdef", 5 + 13).startswith("abcdef")


def test_a_clash_names_the_file_of_the_first():
    def one():
        pass

    def other():
        pass

    errors.refuse_clash("task 'x'", one, one)
    with pytest.raises(InputError) as refused:
        errors.refuse_clash("task 'x'", one, other)
    assert str(refused.value) == f"task 'x' is already defined in {__file__}: choose another name."


def test_an_edited_cell_of_a_notebook_is_no_clash():
    def cell(source, file):
        names = {"__name__": "__main__"}
        exec(compile(source, file, "exec"), names)
        return names

    before = cell("def mine(a, b, p): return a\ndef other(a, b, p): return a", "/tmp/ipykernel_1/1.py")
    after = cell("def mine(a, b, p): return b", "/tmp/ipykernel_1/2.py")
    errors.refuse_clash("task 'mine'", before["mine"], after["mine"])
    with pytest.raises(InputError, match="task 'x' is already defined in __main__: choose another name"):
        errors.refuse_clash("task 'x'", before["other"], after["mine"])
    with pytest.raises(InputError):
        errors.refuse_clash("task 'x'", test_an_edited_cell_of_a_notebook_is_no_clash, after["mine"])


@pytest.mark.parametrize(
    ("shell", "python"),
    [
        ("they fit task 'add' (99 %): give --task=add.", "they fit task 'add' (99 %): give task='add'."),
        ("(give --split, such as --split=python:0:0.3)", "(give split, such as split='python:0:0.3')"),
        (
            "--workdir=results/a holds x: or --overwrite to start",
            "workdir='results/a' holds x: or overwrite=True to start",
        ),
        ("--heads is 0, but it must be 1", "n_heads is 0, but it must be 1"),
        ("To write it: grokjax report a --json", "To write it: grokjax report a --json"),
        (
            "x: give --experiment=FILE, which defines it and is run for it. The",
            "x: import the file that defines it. The",
        ),
        ("no flag in it", "no flag in it"),
    ],
)
def test_a_sentence_for_the_shell_is_worded_for_python(shell, python):
    assert errors.in_python(shell) == python
    with pytest.raises(InputError) as refused, errors.for_python():
        raise InputError(shell)
    assert str(refused.value) == python
