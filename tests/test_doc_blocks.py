"""Every command and Python block of README and docs runs, in order; what needs hours, a cloud or a chip is parsed.

All pages share a folder, in which README's first command trains the small sweep, and a process. Models are smaller than
a reader's, so that it takes seconds; the tables below say what else is not run as it stands.
"""

import contextlib
import importlib
import io
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launches import ROOT

from grokjax import config, tasks
from grokjax.cli import main as cli
from grokjax.cli import terminal, train
from grokjax.experiment import load_experiment
from grokjax.measures import registry

# In the order of a reader, who has trained the README's sweep first.
FIRST = ("README.md", "docs/quickstart.md", "docs/results.md", "docs/experiments.md")
PAGES = [*FIRST, "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in dict.fromkeys(PAGES) if "_build" not in page]

BARE = "--config.p=7 --config.measures=()"
# What would take minutes or hours, and what is run in its place.
SMALL = {
    "experiments/wd_sweep.py:study": "experiments/wd_sweep.py:small",
    "experiments/wd_sweep.py --workdir": f"experiments/wd_sweep.py:small --config.steps=500 {BARE} --workdir",
    "experiments/laws.py --workdir": f"experiments/laws.py:small --config.stop_loss=100 {BARE} --workdir",
    "experiments/phase_diagram.py --workdir": (
        f"experiments/phase_diagram.py:small --config.steps=100 --config.snapshot_every=100 {BARE} --workdir"
    ),
    "experiments/loss_precision.py --workdir": (
        f"experiments/loss_precision.py:small --config.steps=100 --config.snapshot_every=100 {BARE} --workdir"
    ),
    "experiments/precision.py:small": (
        f"experiments/precision.py:small --config.steps=100 --config.snapshot_every=100 {BARE} "
        """--config.sweep.seed=(0,) --config.sweep.precision="('float32','bfloat16')" """
    ),
    '--config=wide.py --workdir=results/wide --config.sweep.seed="(0, 1)"': (
        f'--config=wide.py --workdir=results/wide --config.sweep.seed="(0, 1)" --config.steps=100 {BARE}'
    ),
    "--config=wide.py --workdir=results/wide --plan=measure": (
        f"--config=wide.py --workdir=results/wide --plan=measure {BARE}"
    ),
    "--config=my.py:small": "--config=my.py:small --config.steps=250",
    "--workdir=results/seeds": "--config.p=7 --config.steps=100 --config.snapshot_every=50 --workdir=results/seeds",
    "--workdir=results/shares": "--config.p=7 --config.steps=100 --config.snapshot_every=50 --workdir=results/shares",
    "--workdir=results/kept": f"--workdir=results/kept {BARE}",
    "--workdir=results/before": f"--workdir=results/before {BARE}",
    "--workdir=results/after": f"--workdir=results/after {BARE}",
    "--config.steps=2000": "--config.steps=200",
    "--config.steps=5000": "--config.steps=500",
}
# What is not run: lines that begin so are held against the parser of the command, or against what the note says.
PARSED = {
    "python3 -m venv": "the environment is there already; .ci/run makes fresh ones",
    ".venv/bin/pip": "the extra is one of setup.cfg's",
    "pip install": "likewise",
    ".venv/bin/python -m": "the module is there, and has the flags",
    ".venv/bin/lint-imports": "CI runs it",
    "python -m": "likewise",
    "JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m": "likewise",
    "tensorboard": "the extra's own; test_trackers.py reads what it would",
    "gcloud": "test_scripts.py finds it in what the scripts would run",
    "scripts/cloud_tpu.sh": "likewise",
    "export": "settings of these scripts",
    "mkdir -p results/wd_sweep": "for what gcloud fetches",
    "CONFIG=": "settings of slurm.sh, in test_scripts.py",
    "DRY_RUN=": "likewise",
    "srun": "the flags of launch.py",
    "for i in": "the flags of launch.py",
    "done": "the end of that loop",
}
# Another machine's, or with a package that is an extra.
ELSEWHERE = re.compile(r"gs://|s3://|--distributed|--coordinator_address|/shared/|--to=")
# Python blocks of which only the syntax is looked at, by a text in them.
COMPILED = {
    '("gs://bucket': "no bucket is at hand",
    "import duckdb": "the package is not among the tests'",
}
FILES = (
    "results/small:3:40000",
    "model.pth",
    "released.pth",
    "curves.csv",
    "mod113_step10000.npz",
    "run.pth",
    "metrics.parquet",
)  # a reader's own
OWN = re.compile("|".join(map(re.escape, FILES)))


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and text of each block of a page."""
    for match in re.finditer(r"^( *)```(\S*)\n(.*?)^\1```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        yield match[2], re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)


def test_every_block_says_what_it_is():
    known = {"sh", "python", "text", "{toctree}", "{eval-rst}", "{include}"}
    for page in PAGES:
        for language, text in blocks(page):
            assert language in known, f"{page}: a block of '{language}': {text[:60]}"


def test_every_entry_of_the_tables_is_needed():
    lines = [line for page in PAGES for language, text in blocks(page) if language == "sh" for line in commands(text)]
    python = "\n".join(text for page in PAGES for language, text in blocks(page) if language == "python")
    for start in PARSED:
        assert any(part.startswith(start) for line in lines for part in pieces(line)), f"no command starts with {start}"
    for hours in SMALL:
        assert any(hours in line for line in lines), f"no command has {hours}"
    for text in COMPILED:
        assert text in python


def commands(block: str) -> Iterator[str]:
    """The command lines of a block, without comments."""
    open_line = ""
    for line in block.splitlines():
        line = open_line + re.sub(r"(^|\s+)#.*", "", line).strip()
        open_line = f"{line}\n" if line.count('"') % 2 else ""  # a quoted argument goes on
        if line and not open_line:
            yield line


def pieces(line: str) -> list[str]:
    """The commands that a line joins by &&."""
    return [line] if line.startswith("gcloud") else [piece.strip() for piece in line.split("&&")]


def small_config(original: Callable) -> Callable:
    """Gives a config like `config.small` with a model that trains in seconds."""

    def small():
        c = original()
        c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
        return c

    return small


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder like a clone of the repository, and no trace of it afterwards."""
    for name in ("experiments", "launch.py", "setup.cfg", "scripts"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "small", small_config(config.small))
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(registry, "MEASURES", dict(registry.MEASURES))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.mark.long
def test_every_block_runs(workplace):
    ran, wrong = {"run": 0, "parsed": 0}, []
    for page in PAGES:
        names: dict[str, object] = {"__name__": "__main__"}
        tasks.TASKS = {name: task for name, task in tasks.TASKS.items() if task.function.__module__ == "grokjax.tasks"}
        own = [name for name, m in registry.MEASURES.items() if not m.function.__module__.startswith("grokjax.")]
        for name in own:  # pages define measures of the same name
            del registry.MEASURES[name]
        for language, text in blocks(page):
            some = [text] if language == "python" else []
            some += [piece for line in commands(text) for piece in pieces(line)] if language == "sh" else []
            for one in some:
                try:
                    ran[python(page, one, names) if language == "python" else shell(page, one)] += 1
                except (Exception, SystemExit) as error:  # all that are wrong are told at once
                    wrong.append(f"{page}: {one.strip()}\n  {type(error).__name__}: {error}")
    assert not wrong, "\n\n".join(wrong)
    assert ran["run"] > 40
    assert ran["parsed"] > 40


def python(page: str, text: str, names: dict[str, object]) -> str:
    """Runs a block of Python, in the names of those before it; one that begins with a file's name is put there."""
    code = compile(text, page, "exec")
    if any(mark in text for mark in COMPILED):
        return "parsed"
    file = re.match(r"# (\w+\.py)\n", text)
    if file:
        Path(file[1]).write_text(text)
        return "run"
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    return "run"


def shell(page: str, line: str) -> str:
    """Runs a command in this process, or parses it. Returns which."""
    for hours, small in SMALL.items():
        line = line.replace(hours, small)
    line, _, out = line.partition(" > ")
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_0-9]+=\S*", word)]
    start = next((start for start in PARSED if line.startswith(start)), None)
    is_ours = words[0] == "grokjax" or words[:2] in (["python", "launch.py"], [".venv/bin/python", "launch.py"])
    assert is_ours or start, f"{page}: no entry of PARSED for: {line}"
    if not is_ours:
        parse(page, line, words)
        return "parsed"
    arguments = words[1:] if words[0] == "grokjax" else ["train", *words[2:]]
    if ELSEWHERE.search(line) and arguments[0] == "train":
        train_flags(page, arguments[1:])
        return "parsed"
    if ELSEWHERE.search(line) or OWN.search(line):
        flags(page, f"grokjax.cli.{arguments[0]}", words)
        return "parsed"
    status, said, wrong = call(arguments)
    assert status == 0, f"{page}: {line}\n{said[-2000:]}\n{wrong[-2000:]}"
    if out:
        Path(out).write_text(said)
    return "run"


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Runs `grokjax` in this process; returns its exit status and what it printed."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue(), err.getvalue()


def parse(page: str, line: str, words: list[str]) -> None:
    """Holds a command that is not run against what it calls."""
    for extras in re.findall(r"\.\[([\w,]+)\]", line):
        known = re.search(r"\[options.extras_require\](.*?)\n\[", (ROOT / "setup.cfg").read_text(), re.DOTALL)[1]
        for extra in extras.split(","):
            assert re.search(rf"^{extra} =$", known, re.MULTILINE), f"{page}: setup.cfg has no extra '{extra}'"
    if "launch.py" in words:
        train_flags(page, words[words.index("launch.py") + 1 :])
    elif "-m" in words and words[0].endswith("python"):
        module = words[words.index("-m") + 1]
        if module.split(".")[0] in ("benchmarks", "faults", "studies", "tools"):
            flags(page, module, words)
        else:
            assert importlib.util.find_spec(module) or module in ("sphinx", "venv"), f"{page}: no module {module}"


def flags(page: str, module: str, words: list[str]) -> None:
    """Makes sure that a command's --help has the flags in these words."""
    found = importlib.import_module(module)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        terminal.guarded(found.main, ["--help"])
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--"):
            assert re.search(rf"{re.escape(name)}\b", out.getvalue()), f"{page}: {module} has no flag {name}"


def train_flags(page: str, words: list[str]) -> None:
    """Makes sure that launch.py takes these words: every flag, every field, and the experiment if it is ours."""
    words = [re.sub(r"\$\{?i\}?", "0", word) for word in words]
    overrides, rest = train.split_overrides(words)
    given = train._parse(rest)
    file = given.config.partition(":")[0]
    if (ROOT / file).is_file():
        train.override(load_experiment(given.config)[1], overrides)
    else:
        assert file in ("FILE", "experiments/mine.py"), f"{page}: no experiment {file}"


def test_a_wrong_flag_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="no entry of PARSED"):
        shell("page", "curl https://example.org")
    with pytest.raises(AssertionError, match="has no flag --speedily"):
        shell("page", "python -m benchmarks.host --speedily")
    with pytest.raises(AssertionError, match="has no extra 'gpu'"):
        shell("page", "pip install -e '.[gpu]'")
    with pytest.raises(SystemExit):
        shell("page", "srun python launch.py --config=FILE --speedily")
    assert shell("page", "python -m benchmarks.host --trace=DIR") == "parsed"
