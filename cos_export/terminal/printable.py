"""Words of users on a terminal: what it would obey, and what no encoding holds, is shown as an escape."""

from __future__ import annotations

import re
import sys

from rich.text import Text

__all__ = ["printable", "printable_message", "words"]

_OBEYED = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters, line separators, and marks that turn the direction of writing."""

_LONE = "\ud800-\udfff"
"""Surrogates: bytes of a file's name that are not UTF-8."""

_ESCAPED = re.compile(f"[{_OBEYED}{_LONE}]")


def printable(text: str) -> str:
    """A name on one line, letter for letter: a newline is shown as a backslash and an n."""
    return _ESCAPED.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def printable_message(message: str) -> str:
    """A message whose own newlines break lines, and those of names on the command line do not."""
    for argument in sys.argv[1:]:
        for name in re.split("[/=,:]", argument):
            if "\n" in name:
                message = message.replace(name, printable(name))
    return "\n".join(printable(line) for line in message.split("\n"))


def words(text: str, style: str = "") -> Text:
    """A name or message for rich to print: nothing in it is markup, in whatever console."""
    return Text(printable_message(text), style=style)
