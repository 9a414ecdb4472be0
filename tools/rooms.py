"""The rooms of the package and what may import what, from the contracts in setup.cfg and the rooms' docstrings."""

import ast
import configparser

from benchmarks.markdown import table
from tools.blocks import ROOT

PACKAGE = ROOT / "grokjax"


def contracts() -> configparser.ConfigParser:
    """The file that holds them."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def layers(parser: configparser.ConfigParser) -> list[list[str]]:
    """The rooms from the top down; those of one layer know nothing of each other."""
    lines = parser["importlinter:contract:rooms"]["layers"].split("\n")
    return [[name.strip() for name in line.split("|")] for line in lines if line.strip()]


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")


def page() -> str:
    """The stack as a table, from the top down, and the other contracts as a list."""
    parser = contracts()
    rows, stack = [], layers(parser)
    for beside, below in zip(stack, [*stack[1:], []], strict=True):
        may = f"{named(' '.join(below))} and all that {'they' if len(below) > 1 else 'it'} may import" if below else ""
        rows += [[f"`{room}`", purpose(room), may or "nothing of the package"] for room in beside]
    parts = [table(["room", "what it holds", "may import"], rows), "\nFurther contracts:\n"]
    for section in parser.sections():
        contract = parser[section]
        if contract.get("type") == "forbidden":
            sources, forbidden = (named(contract[key]) for key in ("source_modules", "forbidden_modules"))
            parts.append(f"* {contract['name']}: {sources} must not import {forbidden}, directly or not.")
        elif contract.get("type") == "acyclic_siblings":
            parts.append(f"* {contract['name']} among the modules of {named(contract['ancestors'])}.")
    return "\n".join(parts)


def named(modules: str) -> str:
    """Modules, one a line, as code with commas."""
    return ", ".join(f"`{module}`" for module in modules.split())
