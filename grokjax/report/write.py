"""The report of a sweep: a page to look at and the losses as one picture; also while the sweep runs."""

from pathlib import Path

from grokjax.report import figures, page
from grokjax.report.results import Results, read
from grokjax.store import files

PAGE, PICTURE = "index.html", "losses.png"


def folder(workdir: str | Path) -> Path:
    """Where a report lies: <workdir>/report, or <table>.report beside a table."""
    path = files.path(workdir)
    return path.with_suffix(".report") if path.is_file() else path / "report"


def page_path(workdir: str | Path) -> Path:
    """The file of the page."""
    return folder(workdir) / PAGE


def figure_path(workdir: str | Path) -> Path:
    """The file of the loss curves."""
    return folder(workdir) / PICTURE


def write_into(results: Results, out: str | Path) -> Path:
    """Writes the report of one sweep or of several as one into a folder, which is made; returns the page's path.

    Raises:
      StorageError: the report cannot be written.
    """
    path = files.path(out)
    files.make_folder(path)
    files.write_bytes(figures.picture(figures.figure(results, "losses"), "png"), path / PICTURE)
    files.write_text(page.html(results), path / PAGE)
    return path / PAGE


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
    return write_into(read(workdir), folder(workdir))
