"""The C++ of this folder: compiled for this machine's processor when it is first needed, then kept.

The compiler is `$CXX`, or the first of c++, g++ and clang++ that is found. GROKJAX_NATIVE=false leaves the C++ alone.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

from grokjax.core import cache

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fPIC", "-shared")
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120  # that compiling may take


class Unavailable(Exception):
    """There is no library, and why, in words."""


@functools.cache
def compiler() -> tuple[list[str], str]:
    """The compiler's command and what it calls itself.

    Raises:
      Unavailable: there is none.
    """
    if os.environ.get("GROKJAX_NATIVE", "").lower() in ("false", "0"):
        raise Unavailable("GROKJAX_NATIVE is false")
    given = os.environ.get("CXX")
    commands = [shlex.split(given)] if given else [[name] for name in COMPILERS]
    command = next((command for command in commands if command and shutil.which(command[0])), None)
    if command is None:
        raise Unavailable(f"CXX is {given}, which is not there" if given else "no C++ compiler is installed")
    told = _told([*command, "--version"]).splitlines()
    return command, told[0] if told else command[0]


def identity() -> str:
    """The compiler and a digest of source, flags, headers and processor: what the library's bits depend on.

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
    try:
        file = cache.home() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # not there yet, or damaged
            return ctypes.CDLL(str(file))
        _compile(file)
        return ctypes.CDLL(str(file))
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        raise Unavailable(f"{name} cannot be written to the cache folder or loaded: {error}") from None


def _compile(to: Path) -> None:
    # Renamed when it is whole: other processes may be compiling it too.
    handle, unfinished = tempfile.mkstemp(suffix=".so", dir=to.parent)
    os.close(handle)
    try:
        _told([*compiler()[0], *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE), "-o", unfinished])
        os.replace(unfinished, to)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _told(command: list[str]) -> str:
    try:
        # In a session of its own: a signal to all of the terminal's or the job's processes is not for the compiler.
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise Unavailable(f"{command[0]} failed: {first}")
    return done.stdout
