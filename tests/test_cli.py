"""The command line as a user meets it: every mistake is one sentence on stderr, exit status 2, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

from grokjax import config
from grokjax.cli.train import default_workdir, main

ROOT = Path(__file__).parent.parent
TINY = "--config=tests/tiny.py"


def launch(*args):
    """The real thing, in a process of its own."""
    return subprocess.run([sys.executable, "launch.py", *args], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def here(capsys, monkeypatch):
    """The same in this process, which saves its start-up."""
    monkeypatch.chdir(ROOT)

    def launch(*args):
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as stopped:
            main(["launch.py", *args])
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(args, stopped.value.code, out, err)

    return launch


EXPERIMENTS = {
    "empty.py": ("", "empty.py has no get_config(arg)"),
    "broken.py": ("def get_config(arg):\n    return 1 / 0\n", "broken.py, line 2, failed with ZeroDivisionError"),
    "syntax.py": ("def get_config(:\n", "syntax.py failed with SyntaxError"),
    "typo.py": (
        "from grokjax import config\ndef get_config(arg):\n    c = config.default()\n    c.stps = 3\n    return c\n",
        "typo.py, line 4, failed with AttributeError",
    ),
    "axis.py": (
        "from grokjax import config\n\ndef get_config(arg):\n    c = config.default()\n"
        "    c.sweep.weight_decy = (1.0,)\n    return c\n",
        "axis.py, line 5, failed with AttributeError",
    ),
    "nothing.py": ("def get_config(arg):\n    return None\n", "get_config returned None"),
}
MISTAKES = {
    "no config": ([], "--config is missing"),
    "no such file": (["--config=experiments/nope.py"], "--config=experiments/nope.py names no file"),
    "no such variant": (["--config=experiments/wd_sweep.py:smal"], "did you mean 'small'?"),
    "unknown flag": ([TINY, "--wrkdir=x"], "wrkdir"),
    "stray argument": ([TINY, "stray"], "argument 'stray' is not understood"),
    "unknown field": ([TINY, "--config.stps=3"], "config field 'stps' is unknown: did you mean 'steps'?"),
    "wrong type": ([TINY, "--config.steps=many"], "config.steps must be an integer"),
    "no value": ([TINY, "--config.steps", "--plan"], "--config.steps needs a value"),
    "a tree": ([TINY, "--config.model=3"], "config.model holds fields, set those"),
    "unknown axis": ([TINY, "--config.sweep.weight_dcay=(1,)"], "sweep axis 'weight_dcay' is unknown"),
    "empty axis": ([TINY, "--config.sweep.weight_decay=()"], "config.sweep.weight_decay is empty"),
    "bad axis value": ([TINY, "--config.sweep.weight_decay=(-1.0,)"], "weight_decay is -1.0, but it must be 0 or more"),
    "not prime": ([TINY, "--config.task=multiply", "--config.p=9"], "config.p is 9, but task 'multiply' needs a prime"),
    "heads": ([TINY, "--config.model.n_heads=3"], "divisible by model.n_heads, 3"),
    "not finite": ([TINY, "--config.learning_rate=nan"], "config.learning_rate is nan"),
    "bad run": ([TINY, "--only=9"], "run 9, but this sweep's runs are 0 to 3"),
    "bad run number": ([TINY, "--only=x"], "--only has 'x'"),
}


def assert_sentence(done, expected, folder):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert done.stdout == ""
    assert not folder.exists()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, here, tmp_path):
    args, expected = MISTAKES[mistake]
    assert_sentence(here(*args, f"--workdir={tmp_path / 'out'}"), expected, tmp_path / "out")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_broken_experiments(name, here, tmp_path):
    text, expected = EXPERIMENTS[name]
    (tmp_path / name).write_text(text)
    done = here(f"--config={tmp_path / name}", f"--workdir={tmp_path / 'out'}")
    assert_sentence(done, expected, tmp_path / "out")


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    done = launch(TINY, "--config.stps=3", f"--workdir={tmp_path / 'out'}")
    assert_sentence(done, "did you mean 'steps'?", tmp_path / "out")


def test_help_explains_every_flag_and_field():
    done = launch("--help")
    assert done.returncode == 0
    for name in ("--config ", "--workdir ", "--only ", "--overwrite ", "--plan ", *config.FIELDS):
        assert name in done.stdout


def test_overrides_reach_the_plan(tmp_path):
    done = launch(
        TINY,
        "--plan",
        f"--workdir={tmp_path / 'out'}",
        "--config.steps=40",
        "--config.sweep.weight_decay=(0.3, 1.0, 3)",
        "--config.sweep.model.d_mlp=(8, 16)",
    )
    assert done.returncode == 0, done.stderr
    assert "12 = 2 model.d_mlp × 3 weight_decay × 2 seed, in 2 compiled groups" in done.stdout
    assert "480 run-steps in all" in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_default_workdir_names_experiment_and_variant():
    assert default_workdir("experiments/wd_sweep.py:small") == "results/wd_sweep_small"
    assert default_workdir("experiments/wd_sweep.py") == "results/wd_sweep"
    assert default_workdir("a.py:../../x") == "results/a_.._.._x"


@pytest.mark.parametrize("command", ["launch.py --help", "-m grokjax phases --help"])
def test_a_reader_that_leaves_is_no_error(command):
    script = f"set -o pipefail; {sys.executable} {command} | true"
    for _ in range(3):  # the reader may leave before or after the first line
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
