"""Writes a sweep as a folder to publish: metrics, runs, config, final weights, report, and a card.

    grokjax publish results/small --out=published --license=cc-by-4.0

The Hugging Face hub previews its tables as they are. No path, no user's and no machine's name is in it; experiment.py
trains the sweep again, and grokjax.open reads the folder.
"""

import sys
from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.errors import plain


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: bad arguments, no sweep, or one that is not over.
      StorageError: the folder cannot be written.
    """
    parser = terminal.command("publish", __doc__)
    terminal.add_workdir(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="to write, which must not be there yet")
    parser.add_argument("--license", required=True, metavar="ID", help="its licence's identifier, such as cc-by-4.0")
    parser.add_argument("--name", help="of the sweep; by default that of its directory")
    parser.add_argument("--no-weights", action="store_true", help="leave out the final weights")
    args = parser.parse_args(argv)

    from grokjax.sharing import publish

    def tell(text: str) -> None:
        print(plain(f"note: {text}"), file=sys.stderr)

    terminal.say_part(args.workdir)
    with terminal.busy(f"writing {args.out}"):
        given = (args.workdir, args.out, args.license, args.name, not args.no_weights)
        folder = publish.publish_sweep(*given, tell)
    terminal.written(folder)
