"""Samples mutants of grokjax and says which of them the tests catch. Needs the extra `mutants`.

    python -m tools.mutants --n 100 --jobs 2 --json results/mutants.jsonl   # run again, it goes on where it stopped
    python -m tools.mutants --room store --n 20

A mutant is the package with one operator, number, condition, handler or decorator changed by cosmic-ray. Each runs the
tests of its module and room in a copy of the checkout (docs/testing.md).
"""

import ast
import collections
import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grokjax.cli import terminal

try:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names
except ModuleNotFoundError:
    terminal.fail("cosmic_ray is not installed: pip install -e '.[test,mutants]'.")

ROOT = Path(__file__).parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not long")
NONE_COLLECTED = 5  # pytest's exit status
# Tests of a room that are named for no module of it; patterns of tests/test_*.py.
OTHER_TESTS = {
    "api": ("front", "reuse", "extension"),
    "cli": ("cli*", "listing", "partial_sweeps"),
    "core": ("native", "updates", "trained_losses", "random_draws", "measures_*", "signatures"),
    "grokjax": ("fuzz_config", "requests", "experiments", "label_noise"),
    "interp": ("circuit*", "checkpoint_*", "export"),
    "measures": ("measures_*", "label_noise", "reference", "small_reference", "signatures"),
    "report": ("report_*",),
    "sharing": ("trackers",),
    "store": ("checksums", "old_directories", "partial_sweeps", "requests"),
    "training": (
        "extension",
        "random_draws",
        "replay_uneven",
        "requests",
        "partial_sweeps",
        "split_seed_used",
        "faults",
    ),
}


class Mutant(NamedTuple):
    """One mutation: cosmic-ray's operator at its n-th place in a module."""

    path: str
    line: int
    operator: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.operator.removeprefix('core/')} {self.occurrence}"


def room(path: str) -> str:
    """The room of a module: its folder in grokjax, "grokjax" for those beside the folders."""
    return (*Path(path).parts[1:-1], "grokjax")[0]


def places(path: str, source: str) -> list[list[Mutant]]:
    """The mutants of a module outside annotations, those of one kind at one place together: `+` has eleven."""
    annotations = [
        ((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset))
        for node in ast.walk(ast.parse(source))
        for a in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if a is not None
    ]
    nodes, found = list(ast_nodes(get_ast(source))), collections.defaultdict(list)
    for name in operator_names():
        if get_operator(name).arguments():
            continue  # those that need to be told names of variables
        operator = get_operator(name)()
        starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(starts):
            if not any(begin <= start < end for begin, end in annotations):
                found[start, name.split("_")[0]].append(Mutant(path, start[0], name, occurrence))
    return list(found.values())


def mutate(mutant: Mutant, source: str) -> str | None:
    """The mutated module; None if it does not compile without a warning, or means the same."""
    code = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    try:
        with warnings.catch_warnings(action="error"):
            compile(code, mutant.path, "exec")
            return None if ast.dump(ast.parse(code)) == ast.dump(ast.parse(source)) else code
    except SyntaxError:
        return None


def sample(sources: dict[str, str], n: int, seed: int) -> dict[Mutant, str]:
    """Draws n mutants, with their modules' texts: at places spread evenly over the rooms, one mutant for a place."""
    rng = random.Random(seed)
    found = [group for path, source in sorted(sources.items()) for group in places(path, source)]
    found.sort(key=lambda group: (room(group[0].path), rng.random()))
    drawn: dict[Mutant, str] = {}
    for start in range(0, len(found) * n, len(found)):
        for group in found[start // n :]:  # the first from there on that is not drawn and can be mutated
            mutant = rng.choice(group)
            text = mutate(mutant, sources[mutant.path]) if drawn.keys().isdisjoint(group) else None
            if text is not None:
                drawn[mutant] = text
                break
    return drawn


def _files(patterns: Iterable[str], folder: Path) -> list[str]:
    files = (file for pattern in patterns for file in sorted((folder / "tests").glob(f"test_{pattern}.py")))
    return list(dict.fromkeys(f"tests/{file.name}" for file in files))


def own_tests(path: str, folder: Path) -> list[str]:
    """The test files that are named for a module."""
    stem = Path(path).stem
    return _files((stem, f"{stem}_*"), folder)


def tests_of(path: str, modules: list[str], folder: Path) -> list[str]:
    """The test files of a module: its own first, then those of its room's modules."""
    name = room(path)
    of_room = [test for module in modules if room(module) == name for test in own_tests(module, folder)]
    own = own_tests(path, folder)
    return list(dict.fromkeys([*own, *sorted(of_room), *_files(OTHER_TESTS.get(name, ()), folder)]))


def run(folder: Path, tests: list[str], limit: float | None = None) -> tuple[int | None, float]:
    """Runs tests in a copy: pytest's exit status, None after `limit` seconds; and the seconds it took."""
    environ = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "mutants"),
        "XDG_CACHE_HOME": str(folder / ".cache"),  # what a mutant leaves there is nobody else's
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started, silent = time.monotonic(), subprocess.DEVNULL
    command = ["nice", "-n", "10", *PYTEST, *tests]
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=silent, stderr=silent, start_new_session=True)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and the processes that tests have started
        process.wait()
    return status, round(time.monotonic() - started, 1)


def whole_room(whole: Path, tests: list[str]) -> dict[str, Any]:
    """Runs a room's tests on the package as it is."""
    status, seconds = run(whole, tests)
    return {"outcome": "passes" if status == 0 else "FAILS", "seconds": seconds}


def judge(whole: Path, mutant: Mutant, text: str, tests: list[str], limit: float) -> dict[str, Any]:
    """Runs the tests on one mutant, in a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "copy"
        shutil.copytree(whole, folder, symlinks=True)
        before = (folder / mutant.path).read_text()
        (folder / mutant.path).write_text(text)
        status, seconds = run(folder, tests, limit)
        own = own_tests(mutant.path, folder)
        if status == 0 and own:
            status, more = run(folder, [*own, "-m", "long"], limit)
            seconds += more
    old, new = ([*set(a.splitlines()) - set(b.splitlines())] for a, b in ((before, text), (text, before)))
    change = f"{' '.join(map(str.strip, old))}  →  {' '.join(map(str.strip, new)) or '(gone)'}"
    outcome = {0: "survived", NONE_COLLECTED: "survived", None: "timed out"}.get(status, "caught")
    return {"outcome": outcome, "seconds": seconds, "change": change}


def summary(rows: list[tuple[Mutant, dict[str, Any]]]) -> str:
    """A table by room, and the survivors."""
    by_room = collections.defaultdict(list)
    for mutant, row in rows:
        for name in (room(mutant.path), "all"):
            by_room[name].append(row["outcome"] != "survived")
    lines = ["| room | mutants | caught | share |", "|---|---|---|---|"]
    lines += [f"| {name} | {len(c)} | {sum(c)} | {sum(c) / len(c):.0%} |" for name, c in sorted(by_room.items())]
    survivors = [f"- {mutant}: `{row['change']}`" for mutant, row in rows if row["outcome"] == "survived"]
    return "\n".join([*lines, "", f"{len(survivors)} survived.", *survivors])


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m tools.mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--n", type=int, default=100, help="mutants (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--room", help='of this room alone; "grokjax" for the modules beside the rooms')
    parser.add_argument("--jobs", type=int, default=1, help="mutants side by side (1)")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a mutant's tests (600)")
    parser.add_argument(
        "--passing", action="store_true", help="the suite has just passed: do not try the rooms as they are"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and do not run again what it has")
    args = parser.parse_args(argv)
    lines = args.json.read_text().splitlines() if args.json and args.json.exists() else []
    known = {row["what"]: row for row in map(json.loads, lines)}
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as name:
        whole = Path(name) / "whole"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(whole)], check=True)
        modules = [str(path.relative_to(whole)) for path in sorted(whole.glob("grokjax/**/*.py"))]
        sources = {path: (whole / path).read_text() for path in modules if args.room in (None, room(path))}
        drawn = sample(sources, args.n, args.seed)
        rooms = [] if args.passing else sorted({room(mutant.path) for mutant in drawn})
        first = f"; first the tests of {len(rooms)} rooms as they are" if rooms else ""
        print(f"{len(drawn)} mutants of the last commit{first}.", flush=True)

        def kept(what: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            row = known.get(what)
            if row is None:
                row = {"what": what} | find()
                if args.json:
                    with args.json.open("a") as file:
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(f"{what} {row['outcome']} {row['seconds']:.0f} s", flush=True)
            return row

        def unchanged(name: str) -> dict[str, Any]:
            path = next(mutant.path for mutant in drawn if room(mutant.path) == name)
            return kept(f"{name} as it is", lambda: whole_room(whole, tests_of(path, modules, whole)))

        def found(mutant: Mutant) -> tuple[Mutant, dict[str, Any]]:
            tests = tests_of(mutant.path, modules, whole)
            return mutant, kept(str(mutant), lambda: judge(whole, mutant, drawn[mutant], tests, args.limit))

        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for _ in pool.map(unchanged, rooms):
                pass
            print(summary(list(pool.map(found, drawn))))


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
