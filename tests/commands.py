"""Commands in this process."""

from grokjax.cli import terminal


def call(capsys, main, *args) -> tuple[int, str, str]:
    """Calls a command's `main`; returns its exit status, and what it printed on stdout and stderr."""
    status = 0
    try:
        terminal.guarded(main, args)
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def assert_refused(called: tuple[int, str, str], sentence: str) -> None:
    """A mistake is exit status 2 and one line on stderr, with the sentence in it."""
    status, out, err = called
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
