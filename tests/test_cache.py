"""Compiled programs are kept between starts, where the user's caches are or where the user says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grokjax.core import cache

ROOT = Path(__file__).parent.parent
SHOW = """
import jax
from grokjax.core import cache
cache.enable()
print(jax.config.values["jax_compilation_cache_dir"])
"""


def python(tmp_path, *args, **variables) -> str:
    """What a fresh interpreter prints that has no cache but those named."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env = inherited | {"XDG_CACHE_HOME": str(tmp_path / "caches")} | variables
    return subprocess.run([sys.executable, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
def test_programs_are_kept_in_the_users_cache(tmp_path):
    model = ROOT / "tests" / "data" / "small_reference.npz"
    python(tmp_path, "-m", "grokjax", "measure", str(model), "--measures=paper")
    (folder,) = (tmp_path / "caches" / "grokjax").iterdir()
    assert folder.name.startswith("xla-")
    assert list(folder.glob("jit_*"))


def test_another_folder_can_be_named(tmp_path):
    assert python(tmp_path, "-c", SHOW, JAX_COMPILATION_CACHE_DIR="/elsewhere").strip() == "/elsewhere"


@pytest.mark.parametrize("home", ["", None])
def test_without_xdg_it_is_in_the_home(tmp_path, monkeypatch, home):

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert cache.folder().parent == tmp_path / ".cache" / "grokjax"
