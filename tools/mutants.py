"""Samples mutants of grokjax and says which of them the tests catch. Needs the extra `mutants`.

    python -m tools.mutants --n 100 --jobs 2 --json results/mutants.jsonl   # run again, it goes on where it stopped
    python -m tools.mutants --room store --n 20

A mutant is the package with one operator, number, condition, handler or decorator changed by cosmic-ray. Each runs the
tests of its module and room in a copy of the checkout (docs/testing.md).
"""

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import dataclasses
import difflib
import hashlib
import importlib.util
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
from typing import Any

ROOT = Path(__file__).parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not long")
SLACK = 3  # times the unmutated tests' seconds, where that is longer than --limit
# Tests of a room that are named for no module of it; patterns of tests/test_*.py, which need not exist.
OTHER_TESTS = {
    "cli": ("cli_*", "display"),
    "core": ("random_draws", "reference"),
    "grokjax": ("fuzz_config", "study"),
    "interp": ("interop*", "circuit*", "export"),
    "measures": ("measures_*",),
    "phases": ("phase_*", "statistics"),
    "store": ("results", "storage", "object_store", "old_directories", "fuzz_files"),
    "training": ("training", "random_draws", "small_reference"),
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One mutation: cosmic-ray's operator at its n-th place in a module."""

    path: str
    line: int
    operator: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.operator.removeprefix('core/')} {self.occurrence}"


def room(path: str) -> str:
    """The room of a module: its folder in grokjax, "grokjax" for those beside the folders."""
    folders = Path(path).parts[1:-1]
    return folders[0] if folders else "grokjax"


def places(path: str, source: str) -> list[list[Mutant]]:
    """The mutants of a module outside annotations, those of one kind at one place together: `+` has eleven."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    found = collections.defaultdict(list)
    for name in operator_names():
        if get_operator(name).arguments():
            continue  # those that need to be told names of variables
        operator = get_operator(name)()
        where = ((node, start) for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (node, start) in enumerate(where):
            if not _in_annotation(node):
                found[start, name.split("_")[0]].append(Mutant(path, start[0], name, occurrence))
    return list(found.values())


def _in_annotation(node: Any) -> bool:
    while (parent := node.parent) is not None:
        if parent.type == "tfpdef" or (parent.type == "annassign" and node is parent.children[1]):
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        node = parent
    return False


def mutate(mutant: Mutant, source: str) -> str | None:
    """The mutated module; None if it does not compile without a warning, or means the same."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    code = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compile(code, mutant.path, "exec")
            return None if ast.dump(ast.parse(code)) == ast.dump(ast.parse(source)) else code
    except SyntaxError:
        return None


def sample(sources: dict[str, str], n: int, seed: int) -> list[tuple[Mutant, str]]:
    """Draws n mutants, with their modules' texts: at places spread evenly over the rooms, one mutant for a place."""
    rng = random.Random(seed)
    found = [group for path, source in sorted(sources.items()) for group in places(path, source)]
    found.sort(key=lambda group: (room(group[0].path), rng.random()))
    drawn: dict[Mutant, str] = {}
    for start in range(0, len(found) * n, len(found)):
        for group in found[start // n :]:  # the first from there on that is not drawn and can be mutated
            if drawn.keys().isdisjoint(group):
                mutant = rng.choice(group)
                if (text := mutate(mutant, sources[mutant.path])) is not None:
                    drawn[mutant] = text
                    break
    return list(drawn.items())


def tests_of(path: str, modules: Iterable[str], folder: Path) -> list[str]:
    """The test files of a module: those named for it, its room, and the room's other modules."""
    same = [Path(module).with_suffix("") for module in modules if room(module) == room(path)]
    stems = {part for module in same for part in module.parts[1:]}
    patterns = [pattern for stem in stems for pattern in (stem, f"{stem}_*")] + list(OTHER_TESTS.get(room(path), ()))
    return sorted({f"tests/{file.name}" for p in patterns for file in (folder / "tests").glob(f"test_{p}.py")})


def run(folder: Path, tests: Sequence[str], limit: float | None = None) -> tuple[int | None, float, str]:
    """Runs tests in a copy: pytest's exit status (None after `limit` seconds), seconds, and what failed first."""
    temporary = folder / ".tmp"
    temporary.mkdir(exist_ok=True)
    environ = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "mutants"),
        "XDG_CACHE_HOME": str(folder / ".cache"),  # what a mutant leaves there is nobody else's
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    with subprocess.Popen(
        ["nice", "-n", "10", *PYTEST, *tests],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            said, status = process.communicate(timeout=limit)[0], process.returncode
        except subprocess.TimeoutExpired:
            said, status = "", None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that tests have started
    first = next((line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))), "")
    return status, round(time.monotonic() - started, 1), first.partition(" - ")[0]


def changed(before: str, after: str) -> str:
    """What a mutation changed, in one line."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    old, new = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return f"{old}  →  {new}" if new else f"{old}  →  (gone)"


class Results:
    """What is known of this state of the checkout, kept as JSON lines if a file is given."""

    def __init__(self, file: Path | None, tree: str):
        self.file, self.tree = file, tree
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        rows = [json.loads(line) for line in lines]
        self.known = {row["what"]: row for row in rows if row["tree"] == tree}

    def of(self, what: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if what not in self.known:
            self.known[what] = {"tree": self.tree, "what": what, **find()}
            if self.file is not None:
                with self.file.open("a") as file:
                    file.write(json.dumps(self.known[what], ensure_ascii=False) + "\n")
        return self.known[what]


def copy(folder: Path) -> str:
    """Copies the checkout's tracked files as they are now; returns a digest of the package and its tests."""
    digest = hashlib.sha256()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in sorted(filter(None, listed.split("\0"))):
        if not (ROOT / name).exists():
            continue  # removed, not yet committed
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        if name.startswith(("grokjax/", "tests/")) and (ROOT / name).is_file():
            digest.update(f"{name}\0".encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def unmutated(
    pool: concurrent.futures.Executor, whole: Path, results: Results, files: Sequence[str]
) -> dict[str, float]:
    """Runs test files without a mutation: the seconds of those that pass, cheapest first."""
    print(f"First the {len(files)} test files, without a mutation.", flush=True)

    def one(file: str) -> dict[str, Any]:
        return results.of(file, lambda: dict(zip(("status", "seconds", "by"), run(whole, [file]), strict=True)))

    seconds = {}
    for file, row in zip(files, pool.map(one, files), strict=True):
        if row["status"] == 0:
            seconds[file] = row["seconds"]
        elif row["status"] != 5:  # 5: none is to run, all are long or lack an emulator
            print(f"{file} fails without a mutation and is left out: {row['by'] or row['status']}", flush=True)
    return dict(sorted(seconds.items(), key=lambda item: item[1]))


def judge(whole: Path, mutant: Mutant, text: str, tests: Sequence[str], limit: float) -> dict[str, Any]:
    """Runs the tests on one mutant, in a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "copy"
        shutil.copytree(whole, folder, symlinks=True, ignore=shutil.ignore_patterns(".tmp"))
        before = (folder / mutant.path).read_text()
        (folder / mutant.path).write_text(text)
        status, seconds, first = run(folder, tests, limit) if tests else (0, 0.0, "")
    outcome = {0: "survived", None: "timed out"}.get(status, "caught")
    return {"outcome": outcome, "seconds": seconds, "by": first, "change": changed(before, text)}


def summary(rows: Sequence[tuple[Mutant, dict[str, Any]]]) -> str:
    """A table by room, and the survivors."""
    by_room = collections.defaultdict(list)
    for mutant, row in rows:
        by_room[room(mutant.path)].append(row["outcome"] != "survived")
    by_room["all"] = [caught for found in by_room.values() for caught in found]
    lines = ["| room | mutants | caught | share |", "|---|---|---|---|"]
    lines += [f"| {name} | {len(c)} | {sum(c)} | {sum(c) / len(c):.0%} |" for name, c in by_room.items()]
    survivors = [f"- {mutant}: `{row['change']}`" for mutant, row in rows if row["outcome"] == "survived"]
    return "\n".join([*lines, "", f"{len(survivors)} survived.", *survivors])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tools.mutants", description="Samples mutants; which do the tests catch?"
    )
    parser.add_argument("--n", type=int, default=100, help="mutants (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--room", help='of this room alone; "grokjax" for the modules beside the rooms')
    parser.add_argument("--jobs", type=int, default=1, help="mutants side by side (1)")
    parser.add_argument("--limit", type=float, default=180, help="seconds for a mutant's tests, at least (180)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and do not run again what it has")
    args = parser.parse_args(argv)
    if args.n < 1 or args.jobs < 1:
        parser.error("--n and --jobs are 1 or more")
    if importlib.util.find_spec("cosmic_ray") is None:
        parser.error("cosmic-ray is not installed: pip install -e '.[test,mutants]'")
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as name:
        whole = Path(name)
        results = Results(args.json, copy(whole))
        modules = [str(path.relative_to(whole)) for path in sorted(whole.glob("grokjax/**/*.py"))]
        chosen = [path for path in modules if args.room in (None, room(path))]
        if not chosen:
            parser.error(f"no room {args.room}; there are {', '.join(sorted(set(map(room, modules))))}")
        drawn = sample({path: (whole / path).read_text() for path in chosen}, args.n, args.seed)
        wanted = {mutant.path: tests_of(mutant.path, modules, whole) for mutant, _ in drawn}
        pool = concurrent.futures.ThreadPoolExecutor(args.jobs)
        try:
            seconds = unmutated(pool, whole, results, sorted(set().union(*wanted.values())))
            tests = {path: [test for test in seconds if test in some] for path, some in wanted.items()}
            costs = {path: sum(seconds[test] for test in some) for path, some in tests.items()}
            left = sum(costs[mutant.path] for mutant, _ in drawn if str(mutant) not in results.known)
            print(f"{len(drawn)} mutants, at most about {left / 60 / args.jobs:.0f} minutes.", flush=True)

            def one(mutant: Mutant, text: str) -> tuple[Mutant, dict[str, Any]]:
                limit = max(args.limit, SLACK * costs[mutant.path])
                row = results.of(str(mutant), lambda: judge(whole, mutant, text, tests[mutant.path], limit))
                print(f"{mutant} {row['outcome']} {row['seconds']:.0f} s", flush=True)
                return mutant, row

            print(summary(list(pool.map(one, *zip(*drawn, strict=True)))))
        finally:
            pool.shutdown(cancel_futures=True)  # interrupted, it ends with the mutants that are running
    return 0


if __name__ == "__main__":
    sys.exit(main())
