"""The generated blocks of docs/studies, from the records alone."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from studies import laws, leads, loss_precision, phase_diagram, record, wd_sweep


class Study(NamedTuple):
    """A page and what it is made from.

    Attributes:
      page: of the joined records.
      records: their names.
    """

    page: Callable[[pd.DataFrame], str]
    records: tuple[str, ...]


STUDIES = {
    "wd_sweep": Study(wd_sweep.page, ("wd_sweep",)),
    "phase_diagram": Study(phase_diagram.page, ("phase_diagram",)),
    "laws": Study(laws.page, ("laws",)),
    "loss_precision": Study(loss_precision.page, ("loss_precision",)),
    "leads": Study(leads.page, ("phase_diagram", "laws")),  # whose runs it shares
}


def found() -> dict[str, str]:
    """What each study found, as Markdown by its name."""
    texts = {}
    for name, study in STUDIES.items():
        tables = [table for table in map(record.read, study.records) if len(table)]
        texts[name] = study.page(record.joined(tables)) if tables else "No run is in yet."
    return texts
