"""What was found of faults, from faults/records."""

import json

from faults import endurance, fuzz, kills
from tools import performance
from tools.blocks import ROOT

RECORDS = ROOT / "faults" / "records"
PAGES = {"kills": kills.page, "fuzz": fuzz.page, "endurance": endurance.page}


def found() -> str:
    """What each command found."""
    parts = []
    for name, page in PAGES.items():
        path = RECORDS / f"{name}.json"
        if path.is_file():
            record = json.loads(path.read_text())
            parts.append(f"{performance.circumstances(record)}:\n\n{page(record)}")
        else:
            parts.append(f"Not yet recorded: `python -m faults.{name} --write`.")
    return "\n\n".join(parts)
