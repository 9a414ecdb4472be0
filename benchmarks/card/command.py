"""The command line of the parts, and their figures as one record."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import command
from benchmarks.card import bits, errors, precision, profile, speed, sweep, tasks
from benchmarks.card.tasks import Figures, Setting
from benchmarks.command import ROOT, Record
from grokjax.errors import InputError, unknown

# In order of worth.
PARTS: dict[str, ModuleType] = {
    "errors": errors,
    "bits": bits,
    "speed": speed,
    "profile": profile,
    "sweep": sweep,
    "precision": precision,
}
SECONDS = 480.0


def main(argv: Sequence[str]) -> None:
    """Entry point: exits with 1 if a figure could not be found."""
    args = _parser().parse_args(argv)
    chosen = list(PARTS) if "all" in args.parts else args.parts
    for name in chosen:
        if name not in PARTS:
            raise unknown("part", name, [*PARTS, "all"])
    if not chosen and not args.write:
        raise InputError(f"no part is named: give some of {', '.join(PARTS)}, or all, or --write.")
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:4.0f} s  {text}", file=sys.stderr, flush=True)

    setting, failed = Setting(args.out, args.work, args.dry), False
    for name in chosen:
        part, path = PARTS[name], args.out / f"{name}.json"
        found = tasks.carry_out(part.tasks(setting), path, started + args.seconds, say)
        failed |= any("failed" in figure for figure in found.values())
        print(f"{section(name, found)}\n", flush=True)
    if args.write:
        path = command.file_record(record(args.out), ROOT / "benchmarks" / "records")
        print(f"{path.relative_to(ROOT)} written; python -m tools.docs makes the pages in docs/ anew.")
    sys.exit(failed)


def _parser() -> argparse.ArgumentParser:
    result = command.parser("benchmarks.card", "What half an hour on an accelerator should answer.")
    names = ", ".join(PARTS)
    result.add_argument("parts", nargs="*", metavar="PART", help=f"{names}; or all")
    result.add_argument(
        "--seconds", type=command.positive(float), default=SECONDS, help=f"for all parts (default: {SECONDS:.0f})"
    )
    result.add_argument("--out", type=Path, default=Path("results/card"), help="folder of the JSON files")
    result.add_argument("--work", type=Path, default=Path("results/card_work"), help="folder of the sweeps")
    result.add_argument("--dry", action="store_true", help="a tiny problem and few steps")
    return result


def section(name: str, figures: Figures) -> str:
    """A part's figures as Markdown, and what of it could not be measured."""
    known = {key: figure for key, figure in figures.items() if "failed" not in figure}
    parts = [f"**{name}**", PARTS[name].page(known) if known else f"Not measured: `python -m benchmarks.card {name}`."]
    for key, figure in figures.items():
        if "failed" in figure:
            parts.append(f"Not measured: {key} ({figure['failed'].splitlines()[-1][:200]}).")
    return "\n\n".join(parts)


def page(found: Record) -> str:
    """A record as Markdown, all parts, each with the commits that it was measured at."""
    texts = []
    for name in PARTS:
        figures = found["parts"].get(name, {})
        commits = {str(figure["on"]["git_commit"])[:12] for figure in figures.values() if "on" in figure}
        texts.append(section(name, figures) + (f"\n\nMeasured at {', '.join(sorted(commits))}." if commits else ""))
    return "\n\n".join(texts) + "\n"


def record(folder: Path) -> Record:
    """All figures in a folder as one record.

    Raises:
      InputError: there are none, or they are of different machines; of different commits they may be.
    """
    files = {name: folder / f"{name}.json" for name in PARTS}
    parts: dict[str, Figures] = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    places = [figure["on"] for figures in parts.values() for figure in figures.values() if "on" in figure]
    if not places:
        raise InputError(f"--out={folder} holds no figures: name a part to measure.")
    if len({_place(one) for one in places}) > 1:
        raise InputError(f"--out={folder} holds figures of different machines: keep them in different folders.")
    return {
        "benchmark": "card",
        "command": "python -m benchmarks.card all",
        "date": time.strftime("%Y-%m-%d"),
        "machine": places[0],
        "parts": parts,
    }


def _place(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["device_kind"], one["driver"], one["versions"]["jaxlib"]
