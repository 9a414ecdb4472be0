"""The report of a sweep: a page to look at and the losses as one picture; also while the sweep runs."""

from pathlib import Path

from grokjax.report import figures, page
from grokjax.report.results import read
from grokjax.store import files


def page_path(workdir: str | Path) -> Path:
    """The file of the page."""
    return files.path(workdir) / "report" / "index.html"


def figure_path(workdir: str | Path) -> Path:
    """The file of the loss curves."""
    return files.path(workdir) / "report" / "losses.png"


def write(workdir: str | Path) -> Path:
    """Writes <workdir>/report/index.html and losses.png, each of which appears whole; also while the sweep runs.

    Returns:
      The page's path.

    Raises:
      InputError: the directory holds no evaluations, or files that cannot be read.
      StorageError: the report cannot be written.
    """
    results = read(workdir)
    path = page_path(workdir)
    files.make_folder(path.parent)
    files.write_bytes(figures.picture(figures.figure(results, "losses"), "png"), figure_path(workdir))
    files.write_text(page.html(results), path)
    return path
