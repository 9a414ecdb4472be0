"""Prints an experiment to start from; without a name, a list of them.

    grokjax example wd_sweep > my.py
    grokjax train --config=my.py:small --workdir=results/small

An experiment is a Python file whose get_config returns the config of a sweep, to be changed at will.
"""

import ast
from collections.abc import Sequence
from importlib import resources

from grokjax.cli import terminal
from grokjax.errors import unknown


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("example", __doc__)
    parser.add_argument("name", nargs="?", help="of the experiment; without it all are listed")
    terminal.add_json(parser)
    args = parser.parse_args(argv)
    name, texts = args.name, examples()
    if name is None:
        firsts = {each: (ast.get_docstring(ast.parse(text)) or "").splitlines()[0] for each, text in texts.items()}
        if args.json:
            return terminal.say_json(firsts)
        width = max(map(len, texts))
        terminal.say("\n".join(f"{each:<{width}}  {first}" for each, first in firsts.items()))
    elif name.removesuffix(".py") in texts:
        print(texts[name.removesuffix(".py")], end="")
    else:
        raise unknown("example", name, texts)


def examples() -> dict[str, str]:
    """The text of each experiment that comes with the package, by name."""
    folder = resources.files("grokjax") / "experiments"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".py")), key=lambda file: file.name)
    return {file.name.removesuffix(".py"): file.read_text(encoding="utf-8") for file in files}
