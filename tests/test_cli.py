"""The command line as a user meets it: every mistake is one sentence on stderr, exit status 2, nothing written."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import assert_refused, call
from tiers import long_but

import grokjax
from grokjax import config
from grokjax.cli import example, train
from grokjax.cli.main import COMMANDS, main
from grokjax.cli.train import default_workdir

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
        with pytest.raises(SystemExit) as stopped:
            train.main(args)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(args, stopped.value.code, out, err)

    return launch


EXPERIMENTS = {
    "empty.py": ("", "empty.py has no get_config(arg)"),
    "broken.py": ("def get_config(arg):\n    return 1 / 0\n", "broken.py, line 2, failed with ZeroDivisionError"),
    "syntax.py": ("def get_config(:\n", "syntax.py failed with SyntaxError"),
    "typo.py": (
        "from grokjax import config\ndef get_config(arg):\n    c = config.default()\n    c.stps = 3\n    return c\n",
        "typo.py, line 4: config field 'stps' is unknown: did you mean 'steps'?",
    ),
    "axis.py": (
        "from grokjax import config\n\ndef get_config(arg):\n    c = config.default()\n"
        "    c.sweep.weight_decy = (1.0,)\n    return c\n",
        "axis.py, line 5: config field 'weight_decy' is unknown: did you mean 'weight_decay'?",
    ),
    "type.py": (
        "from grokjax import config\n\ndef get_config(arg):\n    c = config.default()\n"
        "    c.measures = 'paper'\n    return c\n",
        "type.py, line 5: config.measures is 'paper', but it must be a tuple, such as ('paper',).",
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
    "a value for no": ([TINY, "--noplan=1"], "--noplan=1 does not take an argument"),
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


def python(*args, **settings):
    """Python in a process of its own, in the repository."""
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, **settings)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    """The help has the purpose, an example of the command and words on every flag."""
    status, out, err = call(capsys, main, name, "--help")
    assert (status, err) == (0, "")
    assert import_module(f"grokjax.cli.{name}").__doc__.strip() in out
    assert f"\n    grokjax {name} " in out
    if name != "train":
        flags = out.partition("options:")[2]
        for line in [line for line in flags.splitlines() if line.startswith("  -")]:
            after = flags.partition(line)[2].partition("\n")[2].partition("\n")[0]
            assert "  " in line.strip() or after.startswith(" " * 10), line
    for made in ("train", "phases"):
        assert made in call(capsys, main, "--help")[1]


def test_launch_is_train(capsys):
    helped = call(capsys, main, "train", "--help")[1]
    assert launch("--help").stdout == helped.replace("grokjax train", "python launch.py")


HEAVY = """
import json, sys
from grokjax.cli.main import main
found = {}
for args in json.loads(sys.argv[1]):
    try:
        main(args)
        status = 0
    except SystemExit as stop:
        status = stop.code
    found[" ".join(args)] = [status, sorted({"jax", "pandas", "pyarrow", "matplotlib", "rich"} & set(sys.modules))]
print("found", json.dumps(found))
"""
LIGHT = {
    0: [["--help"], ["--version"], ["example"], *([name, "--help"] for name in COMMANDS)],
    2: [
        *([name, "--wrkdir=x"] for name in COMMANDS),
        ["train", "--config=experiments/wd_sweep.py:small", "--config.stps=3"],
        ["train", "--config=experiments/wd_sweep.py:small", "--config.steps=many"],
        ["trian"],
    ],
}


@pytest.mark.parametrize("status", LIGHT)
def test_help_and_mistakes_do_not_wait_for_heavy_imports(status):
    done = python("-c", HEAVY, json.dumps(LIGHT[status]))
    found = json.loads(done.stdout.rpartition("found ")[2])
    assert found == {" ".join(args): [status, []] for args in LIGHT[status]}, done.stderr


def test_the_command_itself(capsys):
    assert call(capsys, main, "--version") == (0, f"{grokjax.__version__}\n", "")
    status, out, err = call(capsys, main)
    assert (status, out, err) == (2, "", call(capsys, main, "--help")[1])
    assert_refused(call(capsys, main, "trian"), "command 'trian' is unknown: did you mean 'train'?")
    assert_refused(call(capsys, main, "--workdir=x"), "flag '--workdir=x' is unknown: a command comes first")


@pytest.mark.parametrize(
    ("module", "command"),
    [("cli", "COMMAND"), ("cli.train", "train"), ("measure", "measure"), ("core.model", "COMMAND")],
)
def test_a_module_that_is_no_command_says_which_is(module, command):
    for done in (python("-m", f"grokjax.{module}", "--config=x"), python("-Wignore", f"-mgrokjax.{module}")):
        assert_refused(
            (done.returncode, done.stdout, done.stderr), f"grokjax.{module} is no command: give grokjax {command},"
        )


def test_other_modules_run_as_they_do(tmp_path):
    """Those whose packages import grokjax while Python looks for them, and processes that these start."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import grokjax\n")
    (tmp_path / "other" / "main.py").write_text(
        "import multiprocessing as m\nfrom grokjax.errors import InputError\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n        print(pool.map(InputError, ['grokjax.cli']))\n"
    )
    done = python("-m", "other.main", "grokjax.cli", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert (done.stdout, done.stderr) == ("[InputError('grokjax.cli')]\n", "")
    assert python("-m", "grokjax", "--version").stdout == f"{grokjax.__version__}\n"


FLAGS = """
import importlib, pkgutil
from absl import flags
flags.DEFINE_string("config", "mine", "")
flags.DEFINE_bool("plan", False, "")
import grokjax
for module in pkgutil.walk_packages(grokjax.__path__, "grokjax."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
flags.DEFINE_string("workdir", None, "")
flags.FLAGS(["script", "--workdir=x"])
values = flags.FLAGS
print(values.config, values.workdir, [name for name in values.flags_by_module_dict() if "grokjax" in name])
"""


def test_importing_defines_no_absl_flags():
    done = python("-c", FLAGS)
    assert (done.returncode, done.stdout) == (0, "mine x []\n"), done.stderr


def test_examples_are_the_experiments(capsys):
    files = {file.stem: file.read_text() for file in (ROOT / "experiments").glob("*.py")}
    assert example.examples() == files
    listed = call(capsys, main, "example")[1]
    assert [line.split()[0] for line in listed.splitlines()] == sorted(files)
    assert call(capsys, main, "example", "wd_sweep") == (0, files["wd_sweep"], "")
    assert_refused(call(capsys, main, "example", "wd_swep"), "example 'wd_swep' is unknown: did you mean 'wd_sweep'?")


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


# --- overrides, and plans ---------------------------------------------------------------------------------------------


def test_overrides_that_change_nothing_are_refused(here, tmp_path):
    (tmp_path / "list.py").write_text(
        "from tests.tiny import get_config\n"
        "def get_sweep(c):\n    return [{'seed': s, 'learning_rate': c.learning_rate * (1 + s)} for s in (0, 1)]\n"
    )
    listed, out = f"--config={tmp_path / 'list.py'}", f"--workdir={tmp_path / 'out'}"
    for args, expected in (
        ([TINY, "--config.weight_decay=1"], "give --config.sweep.weight_decay=1 for that alone"),
        ([TINY, "--config.seed=0"], "since config.sweep.seed is (0, 1): give --config.sweep.seed=0"),
        ([listed, "--config.sweep.seed=range(5)"], "get_sweep(config) says what each run has: change it there"),
        ([listed, "--config.seed=7"], "such as --config.steps"),
    ):
        assert_sentence(here(*args, out), expected, tmp_path / "out")
    for args, runs in (
        ([TINY, "--config.sweep.weight_decay=1"], "2 = 1 weight_decay × 2 seed"),
        ([TINY, "--config.weight_decay=1", "--config.sweep.weight_decay=None"], "2 = 2 seed"),
        ([TINY, "--config.sweep.weight_decay=linspace(0, 1, 3)"], "6 = 3 weight_decay"),
        ([listed, "--config.learning_rate=0.5", "--config.steps=4e2"], "800 run-steps in all"),
    ):
        done = here(*args, out, "--plan")
        assert (done.returncode, done.stderr) == (0, "")
        assert runs in done.stdout


def test_the_plan_finds_what_a_launch_would_find(here, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("")
    for name, expected in (
        ("file", "is a file, but it must be a directory"),
        ("file/below", "cannot be written (Not a directory): choose another"),
        ("other", "holds mine.txt but no sweep"),
    ):
        told = [here(TINY, f"--workdir={tmp_path / name}", *plan) for plan in (["--plan"], [])]
        assert [(one.returncode, one.stderr) for one in told] == [(2, told[0].stderr)] * 2
        assert expected in told[0].stderr
    assert sorted(place.name for place in tmp_path.rglob("*")) == ["file", "mine.txt", "other"]


def test_home_is_where_a_tilde_points(here, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = here(TINY, "--workdir=~/x", "--plan")
    assert f"in {tmp_path / 'x'}" in done.stdout
    (tmp_path / "mine.py").write_text("from tests.tiny import get_config\n")
    assert here("--config=~/mine.py", "--workdir=~/x", "--plan").returncode == 0


@pytest.mark.long
def test_every_path_may_begin_with_a_tilde(finished, tmp_path, monkeypatch, capsys):
    """Those of models, directories, experiments and files to write; nothing is made that is named for a tilde."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("sweep").symlink_to(finished[0])
    Path("mine.py").write_text((ROOT / "tests" / "tiny.py").read_text())
    for args, written in (
        (["export", "~/sweep:2", "~/m.npz"], "m.npz"),
        (["measure", "~/m.npz", "--measures=losses", "--out=~/m.json", "--experiment=~/mine.py"], "m.json"),
        (["circuit", "~/sweep", "--run=2", "--out=~/c.json"], "c.json"),
        (["phases", "~/sweep", "--csv=~/p.csv"], "p.csv"),
        (["phases", "~/sweep/metrics/part-000000.parquet", "--csv=~/q.csv"], "q.csv"),
        (["figure", "~/sweep", "--out=~/f.svg"], "f.svg"),
        (["check", "~/sweep"], "sweep"),
    ):
        status, _, err = call(capsys, main, *args)
        assert status == 0, err
        assert Path(written).exists()
    assert grokjax.load_checkpoint("~/m.npz").cfg.p == 7
    assert len(grokjax.read_metrics("~/sweep")) == 44
    assert grokjax.open("~/sweep").params(2).keys() == grokjax.load_params("~/sweep", 2).keys()
    assert not Path("~").exists()


@pytest.mark.parametrize("platform", long_but(["cuda"], ["cuda", "gpu", "tpu", "nonsense"]))
def test_a_device_that_is_not_there(platform, tmp_path):
    if any(device.platform != "cpu" for device in jax.devices()):
        pytest.skip("there is one")
    environment = os.environ | {"JAX_PLATFORMS": platform}
    done = python("-m", "grokjax", "train", TINY, f"--workdir={tmp_path / 'out'}", env=environment)
    assert_sentence(done, f"JAX_PLATFORMS={platform} asks", tmp_path / "out")


ENTRIES = """
import sys, grokjax
path, model = sys.argv[1:]
results, small = grokjax.open(path), grokjax.config.small()
for name, entry in {
    "load_params": lambda: grokjax.load_params(path, 0),
    "params": lambda: results.params(0),
    "load_checkpoint": lambda: grokjax.load_checkpoint(path + ":0"),
    "measure": lambda: grokjax.measure(model),
    "measure a snapshot": lambda: results.measure(0),
    "circuit": lambda: grokjax.circuit(path + ":0"),
    "train": lambda: grokjax.train(small, path + "/new"),
    "train_one": lambda: grokjax.train_one(small, steps=2),
}.items():
    try:
        print(name, entry())
    except grokjax.errors.InputError as error:
        print(name, "refused" if "JAX_PLATFORMS=cuda asks for a device that JAX does not find" in str(error) else error)
print("metrics", len(results.metrics))
"""


@pytest.mark.long
def test_without_the_device_every_entry_says_so_and_tables_are_read(finished, tmp_path):
    """A snapshot is not called damaged because JAX cannot start."""
    if any(device.platform != "cpu" for device in jax.devices()):
        pytest.skip("there is one")
    path, model = str(finished[0]), str(tmp_path / "m.npz")
    np.savez(model, W_E=np.zeros((3, 3)))
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = python("-c", ENTRIES, path, model, env=environment)
    *entries, metrics = done.stdout.splitlines()
    assert len(entries) == 8, done.stderr
    assert all(line.endswith(" refused") for line in entries), done.stdout
    assert metrics == "metrics 44"
    for args in (["export", f"{path}:0", str(tmp_path / "out.npz")], ["replay", path, "--rule=W_E"]):
        done = python("-m", "grokjax", *args, env=environment)
        assert_sentence(done, "JAX_PLATFORMS=cuda asks for a device", tmp_path / "out.npz")
