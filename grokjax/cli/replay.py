"""Replays measures on a sweep's snapshots: with the run's final keys, other keys, or measures of today.

    grokjax replay results/small                                 # final keys, into the metrics table
    grokjax replay results/small --rule=W_E --threshold=0.5      # another rule, into a table of its own
    grokjax replay results/small --measures=clock,mine --experiment=mine.py

Nothing is trained again.
"""

from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.experiment import import_experiments


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("replay", __doc__)
    terminal.add_workdir(parser)
    terminal.add_keys(parser, "frequencies for every run, such as 6,23,37", "another key_rule")
    terminal.add_measures(parser, "beside the sweep's own that use keys")
    parser.add_argument(
        "--runs", type=terminal.integers, metavar="N,N", help="run numbers, such as 3,17; by default all finished ones"
    )
    terminal.add_experiment(parser)
    parser.add_argument("--overwrite", action="store_true", help="compute again what has been replayed before")
    args = parser.parse_args(argv)

    from grokjax.core import cache
    from grokjax.interp.replay import Replay, replay
    from grokjax.store import files
    from grokjax.store.metrics import how_to_read

    cache.enable()
    path = files.path(args.workdir)
    import_experiments(args.experiment)
    wanted = Replay(args.rule, args.threshold, args.keys, args.measures, args.runs)
    folder = replay(path, wanted, lambda items, text: terminal.track(items, f"replaying {text}"), args.overwrite)
    terminal.say_part(args.workdir)
    terminal.say(f"replayed into {folder}: {how_to_read(folder)}")
