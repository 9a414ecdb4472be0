"""The user's cache folder, kept between starts.

It holds compiled programs (JAX's persistent compilation cache, on by default), the training rates measured on
accelerators (`training.tune`), what sweeps have taken (`training.speeds`) and the compiled C++ (`core.native.build`).
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax


def home() -> Path:
    """The user's cache folder: $XDG_CACHE_HOME/grokjax or ~/.cache/grokjax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grokjax"


def folder() -> Path:
    """The folder of compiled programs for this kind of processor.

    Programs for a CPU use its instruction set, so that a home shared between machines must keep them apart.
    """
    return home() / f"xla-{processor_kind()}"


def processor_kind() -> str:
    """A short name of this kind of processor, such as "x86_64-0a1b2c3d": a hash of its instruction set."""
    return f"{platform.machine()}-{hashlib.sha256(processor().encode()).hexdigest()[:8]}"


def processor() -> str:
    """A text that tells instruction sets apart: Linux's list of them, elsewhere the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def file_of(kind: str, key: Mapping[str, Any]) -> Path:
    """The file that holds figures of a kind, measured for what `key` describes as JSON holds it."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return home() / kind / f"{name}.json"


def recall(kind: str, key: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that `keep` kept; none where there are none, or they are damaged or cannot be read."""
    try:
        content = json.loads(file_of(kind, key).read_text())
        return dict(content) if content["measured_for"] == key else {}
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):
        return {}


def keep(kind: str, key: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Keeps figures, if that is possible (a full disk, a read-only home, no home); the file appears whole."""
    with contextlib.suppress(OSError, RuntimeError):
        file = file_of(kind, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        beside.write_text(json.dumps({"measured_for": key, **figures}, indent=1) + "\n")
        beside.replace(file)


def enable() -> None:
    """Keeps compiled programs for the next start, unless the user has set JAX's own cache (or turned it off).

    JAX_COMPILATION_CACHE_DIR names another folder; JAX_ENABLE_COMPILATION_CACHE=false compiles anew each time.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder()))
        # Below JAX's 1 s: a sweep has a dozen smaller programs, which together take longer than the large one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
