"""Any config and any command line: a plan, or a sentence and exit status 2; never a traceback, never for long."""

import io
import math
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grokjax import config as config_lib
from grokjax import errors, tasks
from grokjax.cli.train import default_workdir, main
from grokjax.config import FIELDS, SETTING
from grokjax.errors import InputError

ROOT = Path(__file__).parent.parent
SWEEPABLE = [path for path, field in FIELDS.items() if field.kind != SETTING]


class Unshown:
    """Whose repr fails."""

    def __repr__(self):
        raise RuntimeError("no repr")


# --- values -----------------------------------------------------------------------------------------------------------

odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "a\nb", "\0", "\x1b[31m", "../..", "/", "[bold]", "</script>", "x" * 5_000, "\udc80", "‮"]
    ),
)
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 3, 2**31, 2**32, 2**63, -(2**63), 10**9, 10**40, 10**5000, -(10**5000)]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0, 1e39]),
    odd_text,
    st.binary(max_size=8),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.dictionaries(st.integers(), st.integers(), max_size=2),
    st.builds(Unshown),
    st.just(object),
)
# By field some values that are right, so that trees get far.
RIGHT = {
    "task": ["add", "multiply", "random", "quadratic"],
    "p": [3, 5, 7, 9999],
    "train_fraction": [0.3, 0.5, 1 - 1e-9, 1e-300],
    "split": ["jax", "python"],
    "model.act": ["relu", "gelu"],
    "loss": ["cross_entropy", "mse"],
    "optimizer": ["adamw", "adam", "sgd", "muon"],
    "gradient_transform": ["none", "grokfast", "orthograd"],
    "decay_to": ["zero", "init"],
    "norm_constraint": ["none", "init"],
    "schedule": ["constant", "cosine", "linear"],
    "schedule_end": [0.0, 1.0],
    "measures": [(), ("paper",), ("paper", "clock")],
    "key_rule": ["W_L", "W_E", "neurons", "logits"],
    "key_threshold": [0.5],
    "precision": list(config_lib.PRECISIONS),
    "model.n_heads": [1, 2, 4],
    "model.d_model": [8, 100_000],
    "steps": [100, 2**31 - 1],
    "eval_every": [1, 50, 100],
}


def right_values(path):
    if path in RIGHT:
        return st.sampled_from(RIGHT[path])
    field = FIELDS[path]
    numbers = st.integers(0, 2_000) if field.type is int else st.floats(0, 2)
    return st.one_of(numbers, st.just(field.default))


def tree_of(flat):
    """A nested dict of fields by dotted path."""
    tree = {}
    for path, value in flat.items():
        at = tree
        *parents, leaf = path.split(".")
        for name in parents:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                break
        else:
            at[leaf] = value
    return tree


@st.composite
def trees(draw):
    """Configs: the mainline with some fields right, some odd, some missing, some unknown; and a sweep."""
    flat = {path: field.default for path, field in FIELDS.items()}
    for path in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=4, unique=True)):
        flat[path] = draw(st.one_of(right_values(path), right_values(path), odd_values))
    if draw(st.integers(0, 9)) == 0:
        del flat[draw(st.sampled_from(list(FIELDS)))]
    tree = tree_of(flat)
    if draw(st.integers(0, 9)) == 0:
        tree[draw(st.one_of(st.text(max_size=8), st.sampled_from(["model", "sweep", "stps"])))] = draw(odd_values)
    axes = {}
    for path in draw(st.lists(st.one_of(*[st.sampled_from(SWEEPABLE)] * 6, st.text(max_size=6)), max_size=3)):
        values = st.lists(odd_values, max_size=3).map(tuple)
        if path in FIELDS:
            values = st.lists(right_values(path), max_size=4, unique=path != "measures").map(tuple)
        axes[path] = draw(st.one_of(values, values, values, st.lists(odd_values, max_size=3), odd_values))
    tree.setdefault("sweep", tree_of(axes))
    return tree


NOWHERE = os.path.join(tempfile.gettempdir(), "grokjax_fuzz")  # where anybody may write, and nothing is


def planned(config, get_sweep=None, path=NOWHERE):
    """A plan, or the sentence that refuses; anything else fails."""
    try:
        status, text = tiny.train(config, path, plan_only=True, get_sweep=get_sweep)
    except InputError as error:
        assert_sentence(str(error))
        return ""
    assert status == 0
    assert "run-steps in all" in text
    assert not os.path.lexists(path)
    return text


def assert_sentence(text):
    """One line that a terminal shows, and not a long one."""
    assert text
    assert text.isprintable(), ascii(text)
    assert len(text) < 2_000
    assert "Traceback" not in text


# --- configs ----------------------------------------------------------------------------------------------------------


@settings(max_examples=400)
@given(trees())
def test_any_config_is_a_plan_or_a_sentence(tree):
    planned(tree)


def test_a_config_that_is_right_is_a_plan():
    """What the others start from, so that they do not all end at the first field."""
    tree = tree_of({path: field.default for path, field in FIELDS.items()})
    assert "1, in 1 compiled group" in planned(tree)
    assert "2 = 2 seed" in planned(tree | {"sweep": {"seed": [1, 2]}})


overrides = st.one_of(
    st.dictionaries(st.sampled_from(SWEEPABLE), odd_values, max_size=3),
    st.dictionaries(st.sampled_from(SWEEPABLE).filter(lambda p: p in RIGHT), st.none(), max_size=1),
    st.fixed_dictionaries({"seed": st.integers(0, 9)}),
    st.dictionaries(st.text(max_size=5), odd_values, max_size=2),
    odd_values,
)


@settings(max_examples=150)
@given(st.one_of(st.lists(overrides, max_size=4), overrides, st.lists(st.lists(overrides, max_size=2), max_size=2)))
def test_whatever_get_sweep_returns(returned):
    planned(tiny.get_config(), lambda config: returned)


@pytest.mark.parametrize(
    "error", [KeyError("a\nb"), ZeroDivisionError(), RecursionError("x" * 10_000), StopIteration()]
)
def test_a_get_sweep_that_fails_is_a_sentence(error):
    def get_sweep(config):
        raise error

    assert planned(tiny.get_config(), get_sweep) == ""


def test_trees_without_a_bottom_are_a_sentence():
    nested = {}
    at = nested
    for _ in range(100_000):
        at["model"] = at = {}
    assert planned(tree_of({path: field.default for path, field in FIELDS.items()}) | {"model": nested}) == ""
    while nested:  # one by one: freeing it all at once would be as deep
        nested = nested.pop("model", None)


@settings(max_examples=200)
@given(odd_values, st.sampled_from(list(FIELDS)))
def test_values_in_sentences_are_short_and_plain(value, path):
    try:
        config_lib.coerce(path, value)
    except InputError as error:
        assert_sentence(str(error))
    assert_sentence(str(errors.unknown("field", value, FIELDS)))


# --- large ones -------------------------------------------------------------------------------------------------------

LARGE = {
    "p": {"p": 10**9},
    "largest p": {"p": 9_999},
    "largest prime": {"p": 9_973, "task": "multiply"},
    "width": {"model.d_model": 10**6, "model.n_heads": 1},
    "parameters": {"model.d_model": 100_000, "model.d_mlp": 10**6, "model.n_layers": 100},
    "layers": {"model.n_layers": 100},
    "more layers": {"model.n_layers": 10**9},
    "rows": {"steps": 2**31 - 1, "eval_every": 1, "snapshot_every": 1, "slow_every": 1},
    "runs": {"sweep": {"seed": tuple(range(100_000))}},
    "more runs": {"sweep": {"seed": tuple(range(5_000)), "beta1": tuple(i / 2_000 for i in range(2_000))}},
    "groups": {"sweep": {"eval_every": (1, 2, 4, 5, 10, 20), "model.d_mlp": tuple(range(1, 10_000))}},
    "moduli": {"sweep": {"p": tuple(range(3, 2_000))}, "task": "random"},
}
PLANS = {"largest p", "largest prime", "layers", "rows", "runs", "moduli"}


@pytest.mark.long
def test_large_configs_take_seconds_and_little_memory():
    """Each in turn, in a process that may not have more than 3 GiB."""
    code = f"""
        import os, resource, sys, time
        sys.path[:0] = [{str(ROOT / "tests")!r}]
        import test_fuzz_config as t
        from grokjax.config import FIELDS
        import jax; jax.devices()
        t.planned(t.tree_of({{path: field.default for path, field in FIELDS.items()}}))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
        for name, given in t.LARGE.items():
            started = time.process_time()
            flat = {{path: field.default for path, field in FIELDS.items()}} | given
            sweep = flat.pop("sweep", {{}})
            plan = t.planned(t.tree_of(flat) | {{"sweep": t.tree_of(sweep)}})
            print(name, bool(plan), time.process_time() - started, sep=";", flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {
        name: (plan == "True", float(seconds))
        for name, plan, seconds in (line.split(";") for line in done.stdout.splitlines())
    }
    assert found.keys() == LARGE.keys()
    assert {name for name, (plan, _) in found.items() if plan} == PLANS
    assert max(seconds for _, seconds in found.values()) < 20, found


# --- command lines ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here():
    """launch.py with --plan in this process: exit status, stdout, stderr."""
    before = Path.cwd()
    os.chdir(ROOT)

    def launch(*args):
        out, err = io.StringIO(), io.StringIO()
        old = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = out, err
        try:
            with pytest.raises(SystemExit) as stopped:
                main(["--plan", *args])
        finally:
            sys.stdout, sys.stderr = old
        return stopped.value.code, out.getvalue(), err.getvalue()

    yield launch
    os.chdir(before)


numbers = st.one_of(
    st.integers().map(str), st.floats().map(str), st.sampled_from(["9" * 5_000, "²", "٣", "1e3", "0x10"])
)
ODD_LITERALS = (
    """()  (  (((((  (1,  'a'  "  True  None  {}  {1:2}  (1)  1,2  __import__('os')  (10**10,)  lambda: 0  b'x'  """
    "(1, 'a')  ((1,),)  1_000  nan  inf  $HOME  `id`"
)
literals = st.one_of(
    numbers,
    odd_text,
    st.lists(numbers, max_size=4).map(lambda items: f"({', '.join(items)},)"),
    st.sampled_from([*ODD_LITERALS.split("  "), "[" * 3_000, "-" * 3_000 + "1"]),
)
paths = st.one_of(
    st.sampled_from(list(FIELDS)),
    st.sampled_from(SWEEPABLE).map("sweep.{}".format),
    st.sampled_from(
        ["model", "sweep", "sweep.model", "stps", "p.x", "model.", ".p", "_p", "p[0]", "sweep.seed[0]", "lock"]
    ),
    odd_text,
)
words = st.one_of(
    st.tuples(paths, literals).map(lambda pair: f"--config.{pair[0]}={pair[1]}"),
    st.tuples(paths, literals).map(lambda pair: f"-config.{pair[0]}={pair[1]}"),
    paths.map("--config.{}".format),
    literals.map("--only={}".format),
    literals.map("--process_id={}".format),
    st.sampled_from(["--", "-", "--plan=maybe", "--noplan=1", "--plann", "--overwrite=3", "--num_processes=2"]),
    st.sampled_from(
        ["--flagfile=/nowhere", "--undefok=x", "--config", "--workdir", "stray", "--coordinator_address=x"]
    ),
    odd_text,
    odd_text.map("--{}".format),
)


@settings(max_examples=250)
@given(args=st.lists(words, min_size=1, max_size=3))
def test_any_command_line_is_a_plan_or_a_sentence(here, tmp_path_factory, args):
    # Asked for on purpose: help, an experiment of the user's own, and training itself.
    assume(
        not any(arg.lstrip("-").startswith(("help", "h=", "config=", "noplan", "nopl", "distributed")) for arg in args)
    )
    assume(not any(arg in ("-h", "-?", "--h") or "\0" in arg for arg in args))  # the system passes no NUL
    assert_answered(here("--config=tests/tiny.py", f"--workdir={NOWHERE}/sweep", *args))
    assert not os.path.lexists(NOWHERE)


def assert_answered(answer):
    status, out, err = answer
    if status == 0:
        assert ("run-steps in all" in out, err) == (True, "")
    else:
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert_sentence(err[:-1])


@settings(max_examples=150)
@given(
    file=st.one_of(odd_text, st.sampled_from(["tests/tiny.py", "tests", "README.md", "...py", "/dev/null"])),
    variant=odd_text,
)
def test_any_experiment_and_variant(here, file, variant):
    assert_answered(here(f"--config={file}:{variant}"))
    folder = Path(default_workdir(f"{file}:{variant}"))
    assert folder.parent == Path("results")
    assert folder.name not in ("", ".", "..")
    assert folder.name.isprintable()
    assert len(folder.name.encode()) <= 200
    assert not (ROOT / folder).exists()


@settings(max_examples=100)
@given(text=odd_text, only=st.one_of(literals, st.lists(st.integers(0, 5).map(str), max_size=4).map(",".join)))
def test_any_workdir_and_runs(here, text, only):
    assume("\0" not in text)
    assert_answered(here("--config=tests/tiny.py", f"--workdir={NOWHERE}/{text}", f"--only={only}"))


EXPERIMENTS = {
    "exits": "raise SystemExit(0)",
    "exits later": "import sys\ndef get_config(arg):\n    sys.exit('a\\nb')",
    "recurses": "def get_config(arg):\n    return get_config(arg)",
    "raises without words": "def get_config(arg):\n    raise ValueError",
    "raises an essay": "def get_config(arg):\n    raise ValueError('\\x1b[2J\\n' * 10_000)",
    "no bytes of Python": "\0\0\0",
    "a repr that fails": "class A:\n    def __repr__(self): 1 / 0\ndef get_config(arg): return A()",
    "a dict": "def get_config(arg): return {'p': 3}",
    "no function": "get_config = 3",
    "no arguments": "def get_config(): pass",
    "an empty config": "import ml_collections\ndef get_config(arg): return ml_collections.ConfigDict()",
    "fields to be filled": "from grokjax import config\nfrom ml_collections import config_dict\n"
    "def get_config(arg):\n    c = config.default().unlock()\n    c.p = config_dict.required_placeholder(int)\n"
    "    return c",
    "get_sweep is no function": "from grokjax import config\nget_config = lambda arg: config.small()\nget_sweep = 3",
    "a sweep without an end": "import itertools\nfrom grokjax import config\nget_config = lambda arg: config.small()\n"
    "get_sweep = lambda c: ({'seed': i} for i in itertools.count())",
    "a task that fails": "from grokjax import config, tasks\n"
    "@tasks.register(name='failing')\ndef f(a, b, p): return a[p * p]"
    "\ndef get_config(arg):\n    c = config.small()\n    c.task = 'failing'\n    return c",
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_that_fail_are_a_sentence(name, here, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    file = tmp_path / "experiment.py"
    file.write_text(EXPERIMENTS[name])
    answer = here(f"--config={file}", f"--workdir={tmp_path / 'out'}")
    assert_answered(answer)
    assert answer[0] == 2
    assert not (tmp_path / "out").exists()
