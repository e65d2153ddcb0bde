"""`--quiet`, of every command: the result or what went wrong, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cos_export.terminal.one_voice import is_heard
from cos_export.terminal.option_fields import parameter, with_signature

__all__ = ["is_quiet", "quietable"]

_ABOUT = typer.Option("--quiet", "-q", help="No progress, no notes and no warnings: the result alone.")

_quiet = False
"""Whether the command that runs was told to be quiet."""


def is_quiet() -> bool:
    """Whether the user wants the result alone, or another process speaks. JSON documents are whole all the same."""
    return _quiet or not is_heard()


def quietable(command: Callable[..., int]) -> Callable[..., int]:
    """The command with `--quiet` among its options."""

    def run(quiet: bool = False, **options: Any) -> int:
        global _quiet
        _quiet = quiet
        return command(**options)

    own = inspect.signature(command, eval_str=True).parameters.values()
    return with_signature(run, [*own, parameter("quiet", Annotated[bool, _ABOUT], False)], command)
