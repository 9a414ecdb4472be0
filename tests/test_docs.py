"""The README and docs say what the code says, and the commands they print exist."""

import re
import subprocess
import sys
from pathlib import Path

from grokjax import docs
from grokjax.measures import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_generated_parts_are_fresh():
    # In a process of its own: other tests register measures.
    done = subprocess.run([sys.executable, "-m", "grokjax.docs", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_group_has_its_page_and_figure():
    page = (ROOT / "docs" / "measures.md").read_text()
    for m in registry.MEASURES.values():
        if m.function.__module__.startswith("grokjax."):
            assert docs.name_of(m) in page
            assert (ROOT / "docs" / "figures" / f"measures_{m.group}.png").is_file()


def test_files_that_are_linked_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_ci_runs_the_readmes_test_command():
    command = ".venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"
    assert command in README
    assert command.replace("install -e", "install --quiet -e") in (ROOT / ".ci" / "run").read_text()


def test_modules_that_are_named_exist():
    for name in set(re.findall(r"python -m ((?:grokjax|benchmarks)\.\w+)", README)):
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
