"""Every command's --help, as the terminal shows it at 100 columns."""

import contextlib
import importlib
import io
import os
from unittest import mock

from grokjax.cli.main import COMMANDS


def page() -> str:
    """A section per command."""
    return "\n\n".join(f"## grokjax {name}\n\n```text\n{help_of(name)}\n```" for name in COMMANDS)


def help_of(name: str) -> str:
    """What `grokjax NAME --help` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit), mock.patch.dict(os.environ, COLUMNS="100"):
        importlib.import_module(f"grokjax.cli.{name}").main(["--help"])
    return out.getvalue().rstrip()
