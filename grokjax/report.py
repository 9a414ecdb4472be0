"""The report of a sweep, made from its Parquet files alone: a page to open in a browser, and a picture of the losses.

python -m grokjax.report results/small
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from grokjax import cli, figure, storage
from grokjax.page import build, sweep


def page_path(workdir: str | Path) -> Path:
    """Where `write` puts the page."""
    return storage.path(workdir) / "report" / "index.html"


def figure_path(workdir: str | Path) -> Path:
    """Where `write` puts the loss curves."""
    return storage.path(workdir) / "report" / "losses.png"


def write(workdir: str | Path) -> Path:
    """Writes <workdir>/report/index.html and losses.png, each of which appears whole; also while the sweep runs.

    Returns:
      The page's path.

    Raises:
      InputError: the directory holds no evaluations, or files that cannot be read.
      StorageError: the report cannot be written.
    """
    held = sweep.read(workdir)
    path = page_path(workdir)
    storage.make_folder(path.parent)
    picture = io.BytesIO()
    figure.losses(held.metrics, held.runs).savefig(picture, dpi=130, format="png")
    storage.write_bytes(picture.getvalue(), figure_path(workdir))
    storage.write_text(build.html(held), path)
    return path


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = cli.Parser(prog="python -m grokjax.report", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", help="of a sweep, finished or not")
    cli.say(f"written: {write(storage.path(parser.parse_args(argv).workdir))}")


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
