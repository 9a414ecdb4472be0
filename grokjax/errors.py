"""What a command tells in a sentence: the input is wrong, or something could not be written or read.

What is said may hold names from a config, a file or the command line. Whatever those are, it is one line of characters
that a terminal shows, and not a long one.
"""

import contextlib
import hashlib
import inspect
import re
import reprlib
import traceback
from collections.abc import Iterator

LONGEST = 1_500  # letters of a sentence
LONGEST_VALUE = 80  # letters of a value in it


class InputError(ValueError):
    """Bad input from a user: a field, a flag, a file or a working directory.

    Its text is one sentence naming what was given and what would be right. The command line prints that sentence
    on stderr and exits with status 2; nothing has been written by then.
    """

    def __init__(self, text: str):
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Text as one line that a terminal shows as it is: other characters are escaped, the middle of a long one left out.

    No line feed, no escape sequence and no change of direction is left in it.
    """
    text = plain(" ".join(text.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 3 :]}"


def plain(text: str) -> str:
    """Text whose characters a terminal shows as they are; others but line feeds are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value in a sentence: its repr, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    try:
        return _REPR.repr(value)
    except Exception:  # a repr may do anything
        return f"a {type(value).__name__}"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = LONGEST_VALUE


def file_name(text: str, most: int = 120) -> str:
    """Text as the name of a file or folder: letters, digits, "_", "-" and "." alone, no leading ".", not too long.

    Texts that differ in more than that have different names where anything was cut.
    """
    name = re.sub(r"[^\w.-]", "_", text)
    name = f"_{name}" if name[:1] in ("", ".") else name
    if len(name.encode()) <= most:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{name.encode()[: most - 13].decode(errors='ignore')}_{digest}"


class StorageError(Exception):
    """Something could not be written or read; its text is a sentence that names it and says why.

    The command line prints it and exits with status 1; what was on disk before is whole.
    """


class HostLost(Exception):
    """Another of the processes that train together is gone, or cannot be reached."""


def unknown(kind: str, given: object, known) -> InputError:
    """An `InputError` for a name that is not among the `known` ones, with the closest of them suggested."""
    import difflib

    names = sorted(map(str, known))
    text = given if isinstance(given, str) else shown(given)
    text = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
    close = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return InputError(f"{kind} '{text}' is unknown: {hint}known are {', '.join(names)}.")


_SHELL = re.compile(r"grokjax [a-z]+ .*|--([a-z_]+)(?:=('[^']*'|[^\s,;)]*[^\s,;:.)]))?")
_PYTHON = {"heads": "n_heads", "measures": "groups"}  # arguments that are named otherwise in Python


def in_python(text: str) -> str:
    """A sentence for the command line as one for Python: --task=add is task='add', --overwrite is overwrite=True.

    Commands of the shell stay what they are.
    """

    def worded(match: re.Match) -> str:
        flag, value = match[1], match[2]
        if flag is None:
            return match[0]
        name = _PYTHON.get(flag, flag)
        if flag in ("overwrite", "extend"):
            return f"{name}=True"
        return name if value is None else f"{name}='{value.strip(chr(39))}'"

    defined = "give --experiment=FILE, which defines it and is run for it"
    return _SHELL.sub(worded, text.replace(defined, "import the file that defines it"))


@contextlib.contextmanager
def for_python() -> Iterator[None]:
    """Words what is refused for Python."""
    try:
        yield
    except InputError as error:
        error.args = (in_python(str(error)),)
        raise


def line_in(error: BaseException, file: str) -> str:
    """The line of a file that an error came from, as "line 12"; "" where it did not come from there."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f"line {lines[-1]}" if lines else ""


def refuse_clash(what: str, old, new) -> None:
    """Refuses a name that another function has already; one defined again is none: a file loaded twice, a cell edited.

    Args:
      what: the name with its kind, such as "task 'add'".
      old: the function that has the name.
      new: the function that is to have it.

    Raises:
      InputError: they are not the same.
    """
    # Each state of a notebook's cell is a file of its own, but all are of the module __main__.
    there, here = ((f.__module__ if f.__module__ == "__main__" else _file_of(f), f.__qualname__) for f in (old, new))
    if there != here:
        raise InputError(f"{what} is already defined in {there[0]}: choose another name.")


def _file_of(function) -> str:
    """The file that defines a function, or what wraps one; its module where that is not known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else function.__module__
