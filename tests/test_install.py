"""The wheel holds the package and nothing else, and works where there is no repository; the lower bounds are pinned."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata, util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    *("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"),
    *("CONTRIBUTING.md", "launch.py", "grokjax", "benchmarks", "constraints", "docs", "experiments", "faults"),
    *("notebooks", "scripts", "studies", "tests", "tools"),
]
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.pyc", "_build")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lacks() -> str:
    """What is missing to build and install a wheel without the network."""
    wanted = re.search(r"setuptools>=(\d+)", (ROOT / "pyproject.toml").read_text())
    assert wanted is not None
    if util.find_spec("pip") is None:
        return "pip"
    try:
        found = int(metadata.version("setuptools").split(".")[0])
    except metadata.PackageNotFoundError:
        found = 0
    return f"setuptools {wanted[1]} or later" if found < int(wanted[1]) else ""


# Where CI says so nothing is skipped.
needs_tools = pytest.mark.skipif(bool(lacks()) and not os.environ.get("CI"), reason=f"{lacks()} is not installed")


def python(folder: Path, *args, interpreter=sys.executable) -> str:
    """What an interpreter prints that sees neither this folder, PYTHONPATH nor the user's packages."""
    command = [interpreter, "-I", *map(str, args)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the source tree: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("source") / "grokjax"
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    archive = folder / python(source, "-c", build).splitlines()[-1]
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python(folder, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", sdist)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Path:
    """A fresh virtual environment that has the wheel, and the dependencies of this one, but not the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    python(folder, "-m", "venv", "--without-pip", ".venv")
    site = Path(python(folder, "-c", PURELIB, interpreter=folder / ".venv" / "bin" / "python").strip())
    # Only .pth files of the environment's own are read, so that an editable installation in the other one is not seen.
    (site / "dependencies.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    python(folder, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    return folder


PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
# Every module is imported, so that none needs a file that the wheel lacks.
IMPORT = """
import importlib, importlib.util, pathlib, pkgutil, sys
import grokjax
assert pathlib.Path(grokjax.__file__).is_relative_to(sys.prefix), grokjax.__file__
for name in ("benchmarks", "experiments", "studies", "tests", "tools", "launch"):
    assert importlib.util.find_spec(name) is None, name
for module in pkgutil.walk_packages(grokjax.__path__, "grokjax."):
    importlib.import_module(module.name)
for name in grokjax.__all__:
    getattr(grokjax, name)
print(importlib.metadata.version("grokjax") == grokjax.__version__)
"""


@needs_tools
def test_the_sdist_holds_the_source_tree(source, sdist):
    made = {"PKG-INFO", *(name for name in names_in(sdist) if name.startswith("grokjax.egg-info/"))}
    assert names_in(sdist) - made == {name for name in names_in(source) if not name.startswith("grokjax.egg-info/")}


@needs_tools
def test_the_wheel_holds_the_package_and_nothing_else(source, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == {name for name in names_in(source) if name.startswith("grokjax/")}
    assert {
        *("grokjax/__init__.py", "grokjax/__main__.py", "grokjax/py.typed", "grokjax/core/native/kernels.cc"),
        *(f"grokjax/experiments/{file.name}" for file in (source / "experiments").glob("*.py")),
        *(f"grokjax/report/{name}" for name in ("page.py", "template.html", "page.css", "page.js")),
    } <= packed


@needs_tools
def test_it_works_without_the_repository(elsewhere):
    interpreter = elsewhere / ".venv" / "bin" / "python"
    assert python(elsewhere, "-c", IMPORT, interpreter=interpreter).strip() == "True"
    for command in ("phases", "report"):
        said = python(elsewhere, "-m", "grokjax", command, "--help", interpreter=interpreter)
        assert said.startswith(f"usage: grokjax {command}")


SMALL = [
    *(
        "--config=mine.py:small",
        "--workdir=mine",
        "--config.p=7",
        "--config.model.d_model=8",
        "--config.model.n_heads=2",
    ),
    *("--config.model.d_mlp=8", "--config.steps=40", "--config.eval_every=20", "--config.snapshot_every=20"),
    *("--config.sweep.weight_decay=(1.0,)", "--config.sweep.seed=(0,)", "--config.measures=()"),
]


@needs_tools
@pytest.mark.long
def test_the_command_from_a_wheel(elsewhere):
    """An example becomes an experiment that is trained, measured, analysed and reported."""
    interpreter = elsewhere / ".venv" / "bin" / "python"

    def grokjax(*args):
        return python(elsewhere, "-m", "grokjax", *args, interpreter=interpreter)

    (elsewhere / "mine.py").write_text(grokjax("example", "wd_sweep"))
    grokjax("train", *SMALL)
    assert "test_loss" in grokjax("measure", "mine:0", "--measures=losses")
    assert "memorised" in grokjax("phases", "mine")
    assert "written" in grokjax("report", "mine")
    assert (elsewhere / "mine" / "report" / "index.html").is_file()
    grokjax("check", "mine")


def lower_bounds() -> list[str]:
    """What setup.cfg asks for at least, of what the package and its tests need."""
    wanted = [*SETUP["options"]["install_requires"].split(), *SETUP["options.extras_require"]["test"].split()]
    for requirement in wanted:
        plain = re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+", requirement)
        assert plain, f"setup.cfg: {requirement} has no plain lower bound"
    # A constraint names no extras.
    return [re.sub(r"(\[\w+\])?>=", "==", requirement) for requirement in wanted]


def test_the_constraints_are_the_lower_bounds():
    """What CI tests at the lower end is what setup.cfg promises."""
    lines = (ROOT / "constraints" / "lowest.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == lower_bounds()


def test_extras_that_are_named_exist_and_ci_resolves_them():
    extras = set(SETUP["options.extras_require"])
    texts = {path: path.read_text() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
    texts |= {path: path.read_text() for path in [*ROOT.glob("grokjax/**/*.py"), *ROOT.glob("benchmarks/*.py")]}
    for path, text in texts.items():
        for names in re.findall(r"'(?:\.|grokjax)\[([\w,]+)\]'", text):
            assert set(names.split(",")) <= extras, f"{path.name} names an extra that setup.cfg lacks: {names}"
    loop = re.search(r"^    for extra in (.+); do$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert loop is not None
    assert set(loop[1].split()) | {"test"} == extras
