"""Names of a network as identifiers of C."""

from __future__ import annotations

import re

from cos_export.errors import InputError

__all__ = ["Identifiers", "prefix_of", "readable"]

_LONGEST = 40
"""Characters: C99 promises to tell identifiers apart by 63, and suffixes follow."""

_TAKEN = frozenset({"main"})


class Identifiers:
    """Identifiers that are handed out, none of them twice."""

    def __init__(self) -> None:
        self._taken = set(_TAKEN)

    def of(self, name: str, suffix: str = "", before: str = "") -> str:
        """An identifier that shows `name`, with words of ours before and behind it."""
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_LONGEST] or "node"
        stem = f"{before}{plain}" if before or plain[0].isalpha() else f"n{plain}"
        found, count = f"{stem}{suffix}", 2
        while found in self._taken:
            found, count = f"{stem}_{count}{suffix}", count + 1
        self._taken.add(found)
        return found


def prefix_of(name: str) -> str:
    """What every public identifier begins with, from the name of a folder or of the user.

    Raises:
        InputError: No letter or digit is in it.
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_LONGEST].lower()
    if not plain:
        raise InputError(f"{name!r} holds no letter or digit for the names of C. Give a name with --name.")
    return plain if plain[0].isalpha() else f"n{plain}"


def readable(name: str) -> str:
    """A name in a comment or a string of C, which it cannot end."""
    return re.sub(r"[^A-Za-z0-9_ .,:+-]", "_", name)[:80]
