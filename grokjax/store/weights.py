"""Final weights in a published folder: a safetensors file for each run."""

import re
from pathlib import Path

from grokjax.store import files

FOLDER = "weights"


def weights_path(workdir: Path, run: int) -> Path:
    """The file of a run's final weights."""
    return workdir / FOLDER / f"run_{run:05d}.safetensors"


def find_weights(workdir: Path) -> dict[int, Path]:
    """The files that there are, by run."""
    found = {path: re.fullmatch(r"run_(\d{5,9})\.safetensors", path.name) for path in files.listed(workdir / FOLDER)}
    return {int(match[1]): path for path, match in found.items() if match}
