"""Logs a sweep's runs to TensorBoard or Weights & Biases: hyperparameters, every column of numbers, phases, the report.

    grokjax log results/small --to=tensorboard   # then: tensorboard --logdir logs
    grokjax log results/small --to=wandb --follow
    grokjax log results/small --to=mine.py       # a file with get_tracker(folder), for any other tool

The sweep is only read, and may still be in training; --follow goes on until every run has ended. What was logged is
noted in --out: the same command goes on from there, and does nothing where nothing is new.
"""

from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.errors import InputError


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: bad arguments, no sweep, a package that is missing, or another process that logs to the same place.
      StorageError: the tool failed.
    """
    parser = terminal.command("log", __doc__)
    terminal.add_workdir(parser)
    parser.add_argument("--to", required=True, metavar="TOOL", help="tensorboard, wandb, or a Python file")
    parser.add_argument("--follow", action="store_true", help="go on until every run has ended")
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between looks; 30")
    parser.add_argument("--name", help="of the sweep there; by default that of its directory")
    help = "folder for the notes, and what the tool writes here; logs by default"
    parser.add_argument("--out", default="logs", metavar="FOLDER", help=help)
    args = parser.parse_args(argv)
    if not args.every > 0:
        raise InputError(f"--every={args.every:g} must be a number of seconds above 0.")

    from grokjax.sharing import log

    def tell(text: str) -> None:
        if args.follow:
            print(text, flush=True)

    terminal.say_part(args.workdir)
    try:
        n = log.log_sweep(args.workdir, args.to, args.out, args.name, args.follow, args.every, tell)
    except KeyboardInterrupt:
        return terminal.say("stopped: the same command goes on from here")
    terminal.say(f"{n:,} new evaluations logged" if n else "nothing new to log")
