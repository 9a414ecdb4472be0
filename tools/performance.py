"""What was measured of speed, from benchmarks/records."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import ahead, host, machine, models, run, scaling, sweep
from benchmarks.card import command as card
from benchmarks.command import Record
from tools.blocks import ROOT

RECORDS = ROOT / "benchmarks" / "records"
PLACES = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
FOR_ACCELERATORS = ("card",)
POPULATION = "population_4"  # as many slots as a CPU's device has
ALWAYS = ("cpu", "gpu")  # have a section even if nothing has been measured
SECTIONS = {
    "run": ("Training, start-up, memory", "python -m benchmarks.run", run.page),
    "models": ("Other models", "python -m benchmarks.models", models.page),
    "host": ("The host beside the device", "python -m benchmarks.host", host.page),
    "scaling": ("Scaling", "python -m benchmarks.scaling", scaling.page),
    "card": ("What a card answers", "python -m benchmarks.card all", card.page),
    "sweep": ("Whole sweeps", "python -m benchmarks.sweep --config=experiments/wd_sweep.py", sweep.page),
}

Records = Mapping[str, Mapping[str, Sequence[Record]]]  # by kind of machine and benchmark


def records(folder: Path = RECORDS) -> Records:
    """Reads what was filed."""

    def filed(pattern: str) -> list[Record]:
        return [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]

    return {place: {name: filed(f"{place}_{name}*.json") for name in SECTIONS} for place in PLACES}


def measured(found: Records) -> str:
    """Every benchmark's figures, by kind of machine."""
    parts = []
    for place, title in PLACES.items():
        if place in ALWAYS or any(found[place].values()):
            parts.append(f"## {title}\n")
            for name, (heading, usage, page) in SECTIONS.items():
                if place == "cpu" and name in FOR_ACCELERATORS:
                    continue
                parts.append(f"### {heading}\n")
                parts += [f"{circumstances(one)}.\n\n{page(one)}" for one in found[place][name]]
                parts += [] if found[place][name] else [f"Not yet measured: `{usage}`.\n"]
    return "\n".join(parts)


def bounds(folder: Path = RECORDS) -> str:
    """What was compiled for accelerators, and the bounds that follow."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("cpu_ahead*.json"))]
    if not found:
        return "Not yet compiled: `python -m benchmarks.ahead`."
    parts = []
    for record in found:
        compilers = ", ".join(f"{name} {version}" for name, version in record["compilers"].items())
        # Who else was busy changes nothing but the time to compile.
        of_it = {name: value for name, value in record.items() if name != "others_share_of_processor"}
        parts.append(f"{circumstances(of_it)}, {compilers}.")
    return "\n\n".join([*parts, ahead.page({"rows": [row for record in found for row in record["rows"]]})])


def scaled(found: Records) -> dict[str, Record]:
    """What docs/figures/scaling.png shows, by kind of machine."""
    return {title: found[place]["scaling"][0] for place, title in PLACES.items() if found[place]["scaling"]}


def circumstances(record: Record) -> str:
    """What a record is of: the command, the day, the machine, the commit, and who else was busy."""
    sha, _, changes = (record["machine"]["git_commit"] or "").partition("+")
    parts = [f"`{record['command']}`", record["date"], machine.line(record["machine"])]
    parts += [f"commit {sha[:12]}{' with changes' if changes else ''}"] if sha else []
    if "others_share_of_processor" in record:
        parts.append(machine.others_line(record["others_share_of_processor"]))
    return ", ".join(parts)


def headline(found: Records) -> str:
    """README's sentence: a training step of a population beside PyTorch's, on a CPU."""
    if not found["cpu"]["run"]:
        return "Not yet measured: `python -m benchmarks.run`."
    record = found["cpu"]["run"][0]
    one, several = (record["lines"][name] for name in ("population_1", POPULATION))
    (eager, loop), (eager_one, loop_one) = run.ratios(several), run.ratios(one)
    return (
        f"* **Fast.** For each training step of a run, where {several['n_runs']} train side by side on a CPU, the "
        f"paper's loop takes **{loop}** times as long and PyTorch eager **{eager}** times; where one trains alone, "
        f"{loop_one} and {eager_one} (median and range over rounds, side by side in one process; `{record['command']}` "
        f"on {machine.line(record['machine'])})."
    )
