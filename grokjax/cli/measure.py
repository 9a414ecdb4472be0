"""Measures one trained model: every measure as a table and as JSON.

    grokjax measure model.npz --keys=6,23,37 --out=measures.json
    grokjax measure released.pth                             # the paper's files, TransformerLens's
    grokjax measure results/small:3:40000 --measures=paper   # a snapshot of run 3

Measures of the training or test pairs need the split: the file's own train_mask, the snapshot's own split, or --split.
With JAX_ENABLE_X64=1 everything is computed in float64.
"""

from collections.abc import Sequence

from grokjax.cli import model, terminal
from grokjax.experiment import import_experiments


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("measure", __doc__)
    model.add_model(parser)
    model.add_subject(parser)
    terminal.add_measures(parser, "by default all")
    terminal.add_experiment(parser)
    terminal.add_json(parser)
    args = parser.parse_args(argv)

    from grokjax.core import cache
    from grokjax.interp.measure import measure
    from grokjax.interp.measure_table import table

    cache.enable()
    checkpoint = model.load(args)
    import_experiments(args.experiment)
    with terminal.busy(f"measuring {args.model}"):
        found = measure(checkpoint, args.keys, args.rule, args.threshold, args.split, args.task, args.measures)
    model.write(found, args.out, args.json)
    if args.json:
        terminal.say_json(found)
    else:
        terminal.say(table(found))
