"""The arguments that say which trained model, and by what to measure it; of measure, circuit and export."""

import argparse
from collections.abc import Mapping
from typing import Any

from grokjax.cli import terminal
from grokjax.errors import InputError, StorageError


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the model and what its arrays may not tell."""
    parser.add_argument(
        "model",
        help="a file (.npz, safetensors or PyTorch's), a snapshot as workdir:run:step or workdir:run, or one of many "
        "checkpoints as FILE:STEP or FOLDER:STEP",
    )
    parser.add_argument(
        "--act", help="relu, gelu or quadratic, which arrays do not tell; by default what the file says, or relu"
    )
    parser.add_argument(
        "--attention-rate",
        type=float,
        metavar="A",
        help="the share of softmax in attention, where it is not known to be 1",
    )
    parser.add_argument(
        "--group",
        metavar="NAME",
        help="the finite group whose composition the model computes, such as S_5, or the .npy file of its table",
    )
    parser.add_argument("--heads", type=int, metavar="N", help="the number of heads, where arrays do not tell")


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Adds the keys, pairs and task to measure a model by, and the file for what is found."""
    terminal.add_keys(parser, "key frequencies, such as 6,23,37", "key_rule where no keys are given")
    parser.add_argument("--split", help="mask (the model's own), all, jax:SEED:FRACTION or python:SEED:FRACTION")
    parser.add_argument("--task", help="what the model computes; by default what it says itself, or else add")
    parser.add_argument("--out", metavar="FILE", help="JSON file to write, with every value whole")


def task(args: argparse.Namespace) -> str | None:
    """The task that --task and --group name.

    Raises:
      InputError: they do not go together, or there is no such group.
    """
    from grokjax.interp.subject import task_given

    return task_given(getattr(args, "task", None), args.group)


def check(args: argparse.Namespace) -> None:
    """Checks what is said of arrays that do not tell it.

    Raises:
      InputError: it cannot be.
    """
    if args.heads is not None and args.heads < 1:
        raise InputError(f"--heads is {args.heads}, but it must be 1 or more.")


def load(args: argparse.Namespace):
    """Reads the model that the arguments name; returns its `Checkpoint`.

    Raises:
      InputError: there is none, or it cannot be read.
    """
    from grokjax.interp.checkpoint import load_checkpoint

    check(args)
    with terminal.busy(f"reading {args.model}"):
        return load_checkpoint(args.model, args.act, args.heads, args.attention_rate)


def write(found: Mapping[str, Any], out: str | None, beside: bool) -> None:
    """Writes what was found to the file that --out names, if it names one, and says so: as `terminal.written`.

    Raises:
      InputError: it cannot be written.
    """
    from grokjax.interp.measure import to_json
    from grokjax.store import files

    try:
        if out:
            files.put((to_json(found) + "\n").encode(), files.path(out))
            terminal.written(out, beside)
    except StorageError as error:
        raise InputError(f"--out={error}: choose another place.") from None
