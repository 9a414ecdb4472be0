"""The names of `grokjax` itself: what dir and help show, the examples of their docstrings, and what importing costs."""

import doctest
import inspect
import io
import pydoc
import re
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
import tiny
from launches import ROOT

import grokjax
from grokjax import config, measures, phases, tasks

PUBLIC = (grokjax, config, measures, phases, tasks)


def test_dir_shows_the_public_names_alone():
    assert dir(grokjax) == sorted([*grokjax.__all__, "__version__"])
    assert len(grokjax.__all__) == len(set(grokjax.__all__))
    for name in grokjax.__all__:
        assert getattr(grokjax, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        grokjax.trian  # noqa: B018


def test_help_shows_them_with_what_they_do():
    out = io.StringIO()
    with redirect_stdout(out):
        pydoc.Helper(output=out).help(grokjax)
    functions = out.getvalue().partition("\nFUNCTIONS\n")[2].partition("\nDATA\n")[0]
    shown = re.findall(r"^    (\w+)\(", functions, re.MULTILINE)
    wanted = {name for name in grokjax.__all__ if inspect.isfunction(getattr(grokjax, name))}
    assert set(shown) == wanted
    assert "Trains the runs of a sweep side by side" in functions


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder in which results/tiny is a trained sweep, as in the examples."""
    path = tmp_path_factory.mktemp("examples")
    status, said = tiny.train(tiny.get_config("paper"), path / "results" / "tiny")
    assert status == 0, said
    return path


def documented():
    """The functions and classes that are public, by name."""
    for name in grokjax.__all__:
        if not inspect.ismodule(getattr(grokjax, name)):
            yield f"grokjax.{name}", getattr(grokjax, name)
    for module, name in ((tasks, "register"), (config, "default"), (config, "small"), (measures, "measure")):
        yield f"{module.__name__}.{name}", getattr(module, name)
    for name in ("find_phases", "summarize", "shade"):
        yield f"grokjax.phases.{name}", getattr(phases, name)


@pytest.mark.parametrize(("name", "thing"), list(documented()), ids=lambda x: x if isinstance(x, str) else "")
def test_an_example_runs(name, thing, small, monkeypatch):
    """Every public name has a docstring whose example runs and prints what it says."""
    monkeypatch.chdir(small)
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(measures.registry, "MEASURES", dict(measures.registry.MEASURES))
    found = doctest.DocTestFinder().find(thing, name, module=False, globs=vars(sys.modules[thing.__module__]).copy())
    examples = [test for test in found if test.examples]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples:
        said = io.StringIO()
        runner.run(test, out=said.write)
        assert runner.failures == 0, said.getvalue()


def test_importing_it_loads_nothing_heavy():
    program = (
        "import sys, grokjax; dir(grokjax); grokjax.read_metrics; grokjax.open; "
        "print(*sorted({'jax', 'flax', 'matplotlib', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
