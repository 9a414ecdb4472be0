"""The command line of the parts."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from benchmarks import command
from benchmarks.card import bits, errors, speed, tasks
from benchmarks.card.tasks import Setting
from grokjax.cli import terminal

PARTS: dict[str, ModuleType] = {"errors": errors, "bits": bits, "speed": speed}  # in order of worth


def main(argv: Sequence[str]) -> None:
    """Entry point: exits with 1 if a figure could not be found."""
    parser = terminal.Parser(prog="python -m benchmarks.card", description="What an accelerator should answer.")
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART", help=f"{', '.join(PARTS)} or all")
    parser.add_argument("--seconds", type=command.positive(float), default=480, help="in all (default: 480)")
    parser.add_argument("--out", type=Path, default=Path("results/card"), help="folder of the JSON files")
    parser.add_argument("--work", type=Path, default=Path("results/card_work"), help="folder of what is larger")
    parser.add_argument("--dry", action="store_true", help="a tiny problem and few steps")
    args = parser.parse_args(argv)
    deadline, setting = time.monotonic() + args.seconds, Setting(args.out, args.work, args.dry)
    started, failed = time.monotonic(), False

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:4.0f} s  {text}", file=sys.stderr, flush=True)

    chosen = list(PARTS) if "all" in args.parts else args.parts
    pages = []
    for name in chosen:
        part = PARTS[name]
        found = tasks.carry_out(part.tasks(setting), args.out / f"{name}.json", deadline, say)
        known = {key: figure for key, figure in found.items() if "failed" not in figure}
        failed |= len(known) < len(found)
        pages.append(f"{name}\n\n{part.page(known)}\n")
        print(pages[-1], flush=True)
    sys.exit(failed)
