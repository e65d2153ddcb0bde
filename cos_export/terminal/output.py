"""What a command prints for programs, and the exit code that it ends with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from cos_export.json_numbers import spelled
from cos_export.terminal.one_voice import Failure, agreed, is_heard
from cos_export.terminal.printable import words
from cos_export.terminal.quiet import is_quiet
from cos_export.terminal.standard_output import console, stream

__all__ = ["fail", "finish", "show_notes", "show_path"]


def finish(document: dict[str, Any], as_json: bool, passed: bool, failure: int = 1) -> int:
    """Prints the document where JSON is asked for; exit code 0, or `failure` if a check has failed."""
    if as_json:
        stream().write(json.dumps(spelled(document), indent=2, allow_nan=False) + "\n")
    return 0 if passed else failure


def show_notes(notes: Iterable[str]) -> None:
    """What is not known of what was shown, a line for each; with --quiet nothing."""
    for note in () if is_quiet() else notes:
        console().print(_labelled("note:", "yellow", note), highlight=False, soft_wrap=True)


def show_path(path: str | os.PathLike[str]) -> None:
    """A file that was written, on a line of its own."""
    console().print(words(f"  {os.fspath(path)}"), highlight=False, soft_wrap=True)


def fail(message: str, code: int, as_json: bool, kind: Failure = Failure.own) -> int:
    """Prints what went wrong, as JSON or on standard error, and returns the exit code.

    Of several processes the main one speaks, and says what went wrong in another if that ended it.
    """
    said = agreed(message, code, kind)
    if said is None:
        return code
    if as_json and is_heard():
        stream().write(json.dumps({"error": said[0], "exit_code": said[1]}, indent=2) + "\n")
    else:
        Console(stderr=True).print(_labelled("error:", "bold red", said[0]), highlight=False, soft_wrap=True)
    return said[1]


def _labelled(label: str, style: str, message: str) -> Text:
    return Text.assemble((label, style), " ", words(message))
