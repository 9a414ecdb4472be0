"""Makes the generated parts of README.md and docs/ anew, from the code and from what benchmarks, faults and
studies filed.

    python -m tools.docs                              # every part that is stale
    python -m tools.docs --check                      # writes nothing; exit status 1 if any is stale
    python -m tools.docs --models mod113_step10000.npz released_wd0.1.npz   # the table in docs/circuit.md too
    python -m tools.docs --figures results/all        # the measures' pictures, from a sweep that logged every group

With --check and --models, numbers may differ by 1 %: the last digit of a small loss depends on the machine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from grokjax.cli import terminal
from grokjax.core import cache
from studies import pages, record, reproduced
from tools import blocks, circuit, commands, figures, performance, phases, references, reliability, rooms, tables


def stale(models: Sequence[str] = ()) -> dict[Path, str]:
    """The pages that are stale, with what they should hold.

    Args:
      models: files of those whose figures docs/circuit.md has; without them that table is not looked at.
    """
    records = performance.records()
    found = blocks.stale(
        {
            "README.md": {"speed": performance.headline(records)},
            "docs/reference/commands.md": {"commands": commands.page()},
            "docs/reference/fields.md": {"fields": tables.fields(), "small": tables.small()},
            "docs/howto/own_measure.md": {"parameters": tables.parameters()},
            "docs/reference/columns.md": {"columns": tables.columns(), "runs": tables.runs()},
            "docs/rooms.md": {"rooms": rooms.page()},
            "docs/measures.md": {"measures": tables.measures_by_group()},
            "docs/groups.md": {"costs": tables.costs_by_task()},
            "docs/phases.md": {"planted": phases.checked()},
            "docs/performance.md": {"measured": performance.measured(records), "bounds": performance.bounds()},
            "docs/references.md": {"references": references.references()},
            "docs/reliability.md": {"found": reliability.found()},
            "docs/reproductions.md": {"found": reproduced.found()},
        }
        | {f"docs/studies/{name}.md": {"found": text} for name, text in pages.found().items()}
    )
    figures = {"figures": circuit.figures(models)} if models else {}
    same = circuit.same if models else str.__eq__
    return found | blocks.stale({"docs/circuit.md": {"definitions": circuit.definitions()} | figures}, same)


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m tools.docs", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a part is stale")
    parser.add_argument("--models", nargs="+", default=(), metavar="FILE", help="for the table in docs/circuit.md")
    parser.add_argument("--figures", metavar="DIR", help="draw docs/figures/measures_*.png from this sweep")
    args = parser.parse_args(argv)
    cache.enable()
    found = stale(args.models)
    if args.check:
        for path in found:
            print(f"{path.relative_to(blocks.ROOT)} is stale: run python -m tools.docs")
        sys.exit(bool(found))
    for path, text in found.items():
        path.write_text(text)
        print(f"{path.relative_to(blocks.ROOT)} written")
    if blocks.ROOT / "docs" / "performance.md" in found:
        figures.draw_scaling(performance.scaled(performance.records()))
    if blocks.ROOT / "docs" / "studies" / "phase_diagram.md" in found:
        figures.draw_phase_diagram(record.read("phase_diagram"))
    if args.figures:
        figures.draw_measures(args.figures)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
