"""HTML in which text cannot become markup: what is not `Html` is escaped."""

import html
import json
from typing import Any


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *children: Any, **attributes: Any) -> Html:
    """An HTML element.

    Args:
      name: such as "td".
      *children: `Html` goes in as it is, anything else as escaped text; None is left out.
      **attributes: by name, with "_" for "-" and "class_" for "class"; True gives a bare attribute, None and False
        none.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Any) -> Html:
    """Pieces one after another, those that are not `Html` escaped."""
    return Html("".join(c if isinstance(c, Html) else html.escape(str(c)) for c in children if c is not None))


def embedded(data: Any) -> Html:
    """Data as JSON that may stand inside a <script> of type application/json: no character of it opens or ends a tag.

    Raises:
      ValueError: a number is not finite.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)
