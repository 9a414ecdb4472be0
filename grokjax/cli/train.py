"""Trains every run of a sweep in one compiled program, and writes what happened to Parquet.

    grokjax train --config=experiments/wd_sweep.py:small --workdir=results/small

Any field of the config can be overridden (--config.steps=2e4), and any sweep axis: --config.sweep.weight_decay=0.3,1 or
--config.sweep.seed="range(10)", linspace(0, 1, 11), logspace(-2, 1, 7); None drops the axis. The same command again
goes on where it was interrupted.
"""

import contextlib
import copy
import faulthandler
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from absl import flags

from grokjax import config as config_lib
from grokjax.cli import terminal
from grokjax.cli.overrides import override, refuse_idle, split_overrides
from grokjax.errors import InputError, file_name
from grokjax.experiment import load_experiment

PLAN_HELP = (
    "Print the plan and stop; --plan=measure times its programs first, in about a minute, to say how long it takes. "
    "Nothing is written in the working directory."
)


class _PlanParser(flags.BooleanParser):
    """Of --plan, --noplan and --plan=measure."""

    def parse(self, argument):
        return argument if argument == "measure" else super().parse(argument)


def defined() -> flags.FlagValues:
    """Flags of the command's own, not parsed: absl's global ones are those of whoever imports this module."""
    values = flags.FlagValues()
    string, integer, boolean, list_ = (
        partial(define, flag_values=values)
        for define in (flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_bool, flags.DEFINE_list)
    )
    string("config", None, "Experiment file, with a variant after a colon: experiments/wd_sweep.py:small.")
    string(
        "workdir",
        None,
        "Directory for results, or gs://bucket/path or s3://bucket/path; by default results/<experiment>_<variant>.",
    )
    list_("only", None, "Run numbers to train again, such as 3,17, at the width of the whole sweep.")
    string("shard", None, "Train each 16th run, from 0, by --shard=0/16, into a folder of its own in the directory.")
    list_("reuse", [], "Directories to take runs from, bit for bit, that are there already: --reuse=DIR,DIR.")
    boolean("extend", False, "Train what is new here into a directory that holds a smaller sweep of these runs.")
    boolean("overwrite", False, "Throw away what another sweep left in the working directory.")
    boolean("lock", True, "Refuse a file system without locks; --nolock goes on there, alone in the directory.")
    plan = flags.Flag(_PlanParser(), None, "plan", False, PLAN_HELP, boolean=True)
    flags.DEFINE_flag(plan, values, __name__)
    boolean("json", False, "Print the table of runs, or the plan, as JSON on stdout; everything else goes to stderr.")
    boolean("distributed", False, "Train with other processes, which the cluster names (TPU, SLURM, Open MPI, GKE).")
    string("coordinator_address", None, "Where no cluster says it: HOST:PORT of process 0, everywhere.")
    integer("num_processes", None, "With --coordinator_address: how many processes train together.")
    integer("process_id", None, "With --coordinator_address: the number of this process, from 0.")
    return values


def main(argv: Sequence[str], program: str = "grokjax train") -> None:
    """Entry point: parses the command line, trains, and exits with 0, 2 for bad input, or 128 + signal.

    Args:
      argv: the arguments.
      program: how the user calls it, for --help.
    """
    terminal.open_standard_streams()
    with terminal.lasting_output():
        terminal.guarded(_main, argv, program)


def _main(argv: Sequence[str], program: str) -> None:
    overrides, rest = split_overrides(list(argv))
    if {"--help", "-help", "-h"} & set(rest):
        print(help_text(program))
        return
    given = _parse(rest)
    faulthandler.enable(2)  # a crash in compiled code says where Python was
    sys.exit(launch(given, overrides))


def _parse(args: Sequence[str]) -> flags.FlagValues:
    for arg in args:
        name = arg.partition("=")[0]
        if name.startswith("-") and len(name) > 80:  # which absl would take long to compare with the flags there are
            terminal.fail(f"flag '{name[:80]}…' is unknown. See --help.")
    values = defined()
    try:
        left = values(["", *args])
    except (flags.Error, ValueError) as error:
        terminal.fail(f"{error}. See --help.".replace("..", "."))
    if left[1:]:
        terminal.fail(f"argument '{left[1]}' is not understood: every flag starts with --. See --help.")
    return values


def _on_signals(handler) -> None:
    """Handles what asks a sweep to stop, but for what nohup or a shell's script has had ignored.

    SIGUSR1 and SIGUSR2 are what SLURM's --signal and submitit send before a time limit.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _stop_at_once(number: int, frame) -> None:
    """Before anything is trained there is nothing to save."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopped while starting: nothing was trained.\n")
    os._exit(128 + number)


def help_text(program: str) -> str:
    """The help: what the command is for, its flags and the config's fields, each with a sentence."""
    lines = [(__doc__ or "").strip().replace("grokjax train", program), "", "flags:"]
    lines += [f"  --{flag.name:<10} {flag.help}" for flag in defined().get_flags_for_module(__name__)]
    lines += [
        "",
        "fields of the config (--config.FIELD=VALUE; --config.sweep.FIELD=VALUE,… to sweep one), in brackets those of",
        "grokjax.config.default(), from which an experiment may differ (--config=FILE --plan shows what it comes to):",
    ]
    for path, field in config_lib.FIELDS.items():
        fixed = " Not an axis." if field.kind == config_lib.SETTING else ""
        lines.append(f"  {path:<26} {field.doc} [{field.default}].{fixed}")
    return "\n".join(lines)


def launch(given: flags.FlagValues, overrides: Mapping[str, str]) -> int:
    """Trains what the flags and overrides say. Returns the exit status."""
    _on_signals(_stop_at_once)
    module, config = load_experiment(given.config)
    before = copy.deepcopy(config) if overrides else config
    override(config, overrides)
    get_sweep = getattr(module, "get_sweep", None)
    if not get_sweep:
        refuse_idle(config, before, overrides)
    # Only now the heavy imports: a mistyped flag or field should not wait for them.
    from rich.console import Console

    from grokjax.api import requests
    from grokjax.core import cache
    from grokjax.training.request import Request, StopRequest

    if get_sweep and overrides:
        refuse_idle(config, before, overrides, get_sweep)
    cache.enable()
    hosts, stop = _hosts(given), StopRequest()
    # After JAX has joined the others, since it handles SIGTERM itself otherwise.
    _on_signals(_stop_at_once if given.plan else stop.handle)
    request = Request(
        config,
        given.workdir or default_workdir(given.config),
        get_sweep,
        only=None if given.only is None else [_run_number(text) for text in given.only],
        shard=_shard(given.shard),
        reuse=given.reuse,
        extend=given.extend,
        overwrite=given.overwrite,
        lock=given.lock,
        experiment=given.config,
        spread=True,
        hosts=hosts,
        stop=stop,
        console=Console(quiet=not hosts.is_first, stderr=given.json),
    )
    if given.plan:
        _plan(request, given.plan == "measure", given.json)
        return 0
    status = requests.train(request)
    if given.json and hosts.is_first:
        terminal.say_json({"workdir": str(request.path), "status": status, "runs": requests.runs(request)})
    return status


def _plan(request, measure: bool, as_json: bool) -> None:
    """Prints what a request would do and how long it would take, as far as that is known."""
    from grokjax.api import requests
    from grokjax.training import plan, speeds

    made = requests.plan(request, measure)
    found = speeds.estimates(made, requests.done(made))
    if as_json and request.hosts.is_first:
        terminal.say_json(speeds.record(made, found))
    elif not as_json:
        request.tell(f"{plan.text(made)}\n{speeds.text(made, found)}")


def _hosts(given: flags.FlagValues):
    """The processes that train together, as the flags say.

    Raises:
      InputError: flags that do not go together.
    """
    from grokjax.core import hosts

    address, n, index = given.coordinator_address, given.num_processes, given.process_id
    if address is n is index is None:
        return hosts.join() if given.distributed else hosts.ALONE
    if address is None or n is None or index is None:
        raise InputError("--coordinator_address, --num_processes and --process_id go together: give all three or none.")
    if n < 1:
        raise InputError(f"--num_processes is {n}, but it must be 1 or more.")
    if not 0 <= index < n:
        raise InputError(f"--process_id is {index}, but of {n} processes it must be 0 to {n - 1}.")
    if not re.fullmatch(r".+:\d+", address):
        raise InputError(f"--coordinator_address is '{address}', but it must be HOST:PORT.")
    return hosts.join(address, n, index)


def default_workdir(given: str) -> str:
    """The working directory where none is given: results/<experiment>_<variant>."""
    file, _, variant = given.partition(":")
    return str(Path("results") / file_name("_".join(filter(None, [Path(file).stem, variant]))))


def _shard(text: str | None) -> tuple[int, int] | None:
    """--shard=3/16 as (3, 16)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard is '{text}', but it must be a number from 0 and how many there are, such as 0/16.")
    return int(match[1]), int(match[2])


def _run_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise InputError(f"--only has '{text}', but it must be run numbers separated by commas, such as 3,17.")
    return int(text)
