"""The report of a sweep: a page to look at and the losses as one picture; also while the sweep runs."""

from pathlib import Path

from grokjax.report import figures, page
from grokjax.report.results import read
from grokjax.store import files


def folder(workdir: str | Path) -> Path:
    """Where a report lies: <workdir>/report, or <table>.report beside a table."""
    path = files.path(workdir)
    return path.with_suffix(".report") if path.is_file() else path / "report"


def page_path(workdir: str | Path) -> Path:
    """The file of the page."""
    return folder(workdir) / "index.html"


def figure_path(workdir: str | Path) -> Path:
    """The file of the loss curves."""
    return folder(workdir) / "losses.png"


def write(workdir: str | Path) -> Path:
    """Writes report/index.html and losses.png of a sweep, each of which appears whole; also while it runs.

    Args:
      workdir: of the sweep, or a table of metrics alone: of metrics.parquet the report is in metrics.report.

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
