"""The C++ of this folder: compiled for this machine's processor when it is first needed, then kept.

The compiler is `$CXX`, or the first of c++, g++ and clang++ that is found. GROKJAX_NATIVE=false leaves the C++ alone.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

from grokjax import cache

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fPIC", "-shared")
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120  # that compiling may take; it takes some five


class Unavailable(Exception):
    """There is no library, and why, in words."""


@functools.cache
def compiler() -> tuple[str, str]:
    """The compiler's command and what it calls itself.

    Raises:
      Unavailable: there is none.
    """
    if os.environ.get("GROKJAX_NATIVE", "").lower() in ("false", "0"):
        raise Unavailable("GROKJAX_NATIVE is false")
    given = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, (given,) if given else COMPILERS)), None)
    if found is None:
        raise Unavailable(f"CXX is {given}, which is not there" if given else "no C++ compiler is installed")
    return found, _told([found, "--version"]).splitlines()[0]


@functools.cache
def identity() -> str:
    """What the library's bits depend on, in a line: the compiler and a digest of source, flags, headers, processor.

    Raises:
      Unavailable: there is no compiler.
    """
    name = compiler()[1]
    made_from = (SOURCE.read_bytes(), name, FLAGS, jaxlib.__version__, cache.processor())
    return f"{name}, {hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]}"


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
      Unavailable: it cannot be compiled or loaded.
    """
    name = f"native-{identity().rsplit(' ', 1)[1]}.so"
    folder = cache.home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            _compile(folder / name)
        return ctypes.CDLL(str(folder / name))
    except OSError as error:
        raise Unavailable(f"{folder / name} cannot be written or loaded: {error}") from None


def _compile(to: Path) -> None:
    # Renamed when it is whole: other processes may be compiling it too.
    handle, unfinished = tempfile.mkstemp(suffix=".so", dir=to.parent)
    os.close(handle)
    try:
        _told([compiler()[0], *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE), "-o", unfinished])
        os.replace(unfinished, to)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _told(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be run: {error}") from None
    if done.returncode or (not done.stdout.strip() and "--version" in command):
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise Unavailable(f"{command[0]} failed: {first}")
    return done.stdout
