"""Trains every run of a sweep in one compiled program, and writes what happened to Parquet.

    grokjax train --config=experiments/wd_sweep.py:small --workdir=results/small

Any field of the config can be overridden (--config.steps=20000), and any sweep axis
(--config.sweep.weight_decay="(0.3, 1.0)"). The same command again goes on where it was interrupted.
"""

import contextlib
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
from grokjax.errors import InputError, file_name, unknown
from grokjax.experiment import load_experiment


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
    boolean("overwrite", False, "Throw away what another sweep left in the working directory.")
    boolean("lock", True, "Refuse a file system without locks; --nolock goes on there, alone in the directory.")
    boolean("plan", False, "Print the plan and stop; nothing is written.")
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
    """Handles what asks a sweep to stop, but for what nohup or a shell's script has had ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
        "fields of the config (--config.FIELD=VALUE; --config.sweep.FIELD=TUPLE to sweep one), default in brackets:",
    ]
    for path, field in config_lib.FIELDS.items():
        fixed = " Not an axis." if field.kind == config_lib.SETTING else ""
        lines.append(f"  {path:<26} {field.doc} [{field.default}].{fixed}")
    return "\n".join(lines)


def split_overrides(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """Separates --config.field=value (or --config.field value) from the other arguments.

    Returns:
      The overrides as {dotted path: text}, and the rest.
    """
    overrides, rest, left = {}, [], list(args)
    while left:
        arg = left.pop(0)
        match = re.fullmatch(r"--?config\.([^=]+)(?:=(.*))?", arg, re.DOTALL)
        if not match:
            rest.append(arg)
        elif match[2] is not None:
            overrides[match[1]] = match[2]
        elif left and not left[0].startswith("--"):
            overrides[match[1]] = left.pop(0)
        else:
            terminal.fail(f"{arg} needs a value, such as {arg}=…. See --help.")
    return overrides, rest


def override(config, overrides: Mapping[str, str]) -> None:
    """Applies overrides to a config in place, parsed by ml_collections.

    Raises:
      InputError: a path is no field or axis, or a text does not parse as the field's type.
    """
    from ml_collections import config_flags

    for path, text in overrides.items():
        values = flags.FlagValues()
        arg = f"--config.{path}={text}"
        try:
            config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", arg])
            values(["", arg])
        except (AttributeError, KeyError):
            axis = path.removeprefix("sweep.")
            if axis != path:
                sweepable = [name for name, field in config_lib.FIELDS.items() if field.kind != config_lib.SETTING]
                raise unknown("sweep axis", axis, sweepable) from None
            raise unknown("config field", path, config_lib.FIELDS) from None
        except Exception:  # a parser's, a path's, of either library
            raise InputError(f"--config.{path}={text} does not parse: {_expected(path)}.") from None


def _expected(path: str) -> str:
    if path.startswith("sweep."):
        return 'an axis is a tuple of values, such as "(0.3, 1.0)"'
    field = config_lib.FIELDS.get(path)
    return (
        f"config.{path} must be {config_lib.ARTICLE[field.type]}" if field else f"config.{path} holds fields, set those"
    )


def launch(given: flags.FlagValues, overrides: Mapping[str, str]) -> int:
    """Trains what the flags and overrides say. Returns the exit status."""
    _on_signals(_stop_at_once)
    module, config = load_experiment(given.config)
    override(config, overrides)
    # Only now the heavy imports: a mistyped flag or field should not wait for them.
    from rich.console import Console

    from grokjax.api import requests
    from grokjax.core import cache
    from grokjax.training import plan
    from grokjax.training.request import Request, StopRequest

    cache.enable()
    hosts, stop = _hosts(given), StopRequest()
    # After JAX has joined the others, since it handles SIGTERM itself otherwise.
    _on_signals(stop.handle)
    request = Request(
        config,
        given.workdir or default_workdir(given.config),
        getattr(module, "get_sweep", None),
        only=None if given.only is None else [_run_number(text) for text in given.only],
        overwrite=given.overwrite,
        lock=given.lock,
        experiment=given.config,
        spread=True,
        hosts=hosts,
        stop=stop,
        console=Console(quiet=not hosts.is_first),
    )
    if given.plan:
        request.tell(plan.text(requests.plan(request)))
        return 0
    return requests.train(request)


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


def _run_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise InputError(f"--only has '{text}', but it must be run numbers separated by commas, such as 3,17.")
    return int(text)
