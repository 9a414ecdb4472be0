"""Replays measures on a sweep's snapshots: with the run's final keys, other keys, or measures of today.

    grokjax replay results/small                                 # final keys, into the metrics table
    grokjax replay results/small --rule=W_E --threshold=0.5      # another rule, into a table of its own
    grokjax replay results/small --measures=clock,mine --experiment=mine.py

Nothing is trained again.
"""

import argparse
from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.core import cache
from grokjax.experiment import import_experiment
from grokjax.interp import replay
from grokjax.store import files
from grokjax.store.metrics import how_to_read


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, replay.Replay]:
    """The command line."""
    parser = terminal.Parser(prog="grokjax replay", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", help="of a sweep")
    parser.add_argument("--rule", help="another key_rule: W_L, W_E, neurons or logits")
    parser.add_argument("--threshold", type=float, help="another key_threshold, in (0, 1)")
    parser.add_argument("--keys", type=terminal.integers, default=(), help="frequencies for every run, such as 6,23,37")
    parser.add_argument("--measures", type=terminal.names, default=(), help="groups of measures, such as clock,spectra")
    parser.add_argument(
        "--runs", type=terminal.integers, help="run numbers, such as 3,17; by default all finished ones"
    )
    parser.add_argument("--experiment", help="experiment file whose measures and tasks to use")
    parser.add_argument("--overwrite", action="store_true", help="compute again what has been replayed before")
    args = parser.parse_args(argv)
    return args, replay.Replay(args.rule, args.threshold, args.keys, args.measures, args.runs)


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    from rich.progress import track

    args, wanted = parse(argv)
    cache.enable()
    path = files.path(args.workdir)
    import_experiment(args.experiment)
    folder = replay.replay(path, wanted, lambda items, text: track(items, f"replaying {text}"), args.overwrite)
    terminal.say(f"replayed into {folder}: {how_to_read(folder)}")
