"""A command whose options are the fields of a dataclass."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, field, fields
from typing import Annotated, Any, get_args, get_type_hints

from typer.models import ParameterInfo

__all__ = ["in_panel", "parameter", "parameters", "taking", "with_signature"]


def in_panel(panel: str, default: Any = MISSING) -> Any:
    """A field of a dataclass of options that `--help` shows in this panel."""
    return field(default=default, metadata={"panel": panel})


def parameters(kind: type[Any]) -> list[inspect.Parameter]:
    """The fields of a dataclass, whose types are those of `cos_export.terminal.options`, as parameters for typer."""
    hints = get_type_hints(kind, include_extras=True)
    parameters = []
    for entry in fields(kind):
        annotation, *about = get_args(hints[entry.name])
        told = [copy.copy(info) for info in about if isinstance(info, ParameterInfo)]
        for info in told:
            info.rich_help_panel = entry.metadata.get("panel")
        default = inspect.Parameter.empty if entry.default is MISSING else entry.default
        parameters.append(parameter(entry.name, Annotated[annotation, *told], default))
    return parameters


def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """A keyword of a command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def taking(options: type[Any]) -> Callable[[Callable[[Any], int]], Callable[..., int]]:
    """Makes a command of a function of one dataclass: its parameters are the fields of `options`."""

    def made(function: Callable[[Any], int]) -> Callable[..., int]:
        def command(**values: Any) -> int:
            return function(options(**values))

        return with_signature(command, parameters(options), function)

    return made


def with_signature(
    function: Callable[..., int], parameters: Sequence[inspect.Parameter], like: Callable[..., int]
) -> Callable[..., int]:
    """The function with the parameters that typer is to see, and the name and docstring of another."""
    function.__name__, function.__doc__ = like.__name__, like.__doc__
    function.__annotations__ = {}
    function.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    return function
