"""Commands that calibrate: beside options of their own they take those of every calibration method."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click.core import Context
from typer.core import TyperCommand

from cos_export.errors import InputError
from cos_export.terminal.option_fields import parameter, parameters, with_signature

if TYPE_CHECKING:  # what is slow to import is imported by the command that needs it
    from calibration import Method

__all__ = ["CalibratingCommand", "calibrating"]


def calibrating(options: type[Any]) -> Callable[[Callable[[Any, Method], int]], Callable[..., int]]:
    """Makes a command of a function (options, method): its parameters are the fields of the dataclass `options`.

    Register it with `cls=CalibratingCommand`, which adds `--method` and the options of every method.
    """

    def made(function: Callable[[Any, Method], int]) -> Callable[..., int]:
        own = [entry.name for entry in fields(options)]

        def command(**values: Any) -> int:
            chosen = options(**{name: values.pop(name) for name in own})
            return function(chosen, _method(values.pop("method"), values))

        return with_signature(command, parameters(options), function)

    return made


def _method(name: str, given: dict[str, Any]) -> Method:
    from calibration.choices import Auto
    from calibration.options import chosen_method

    if name == Auto.name:
        options = ", ".join(f"--{key.replace('_', '-')}" for key, value in given.items() if value is not None)
        if options:
            raise InputError(f"{options} is an option of some methods: name one with --method.")
        return Auto()
    return chosen_method(name, given)


class CalibratingCommand(TyperCommand):
    """A command that reads the options of the methods when it is used: their modules are slow to import."""

    _complete = False

    def get_params(self, ctx: Context) -> list[Any]:
        """The parameters, those of the methods included."""
        if not self._complete and self.callback is not None:
            self._complete = True
            whole = _with_methods(vars(self.callback)["__wrapped__"])
            self.params, self.callback = whole.params, whole.callback
        return super().get_params(ctx)


def _with_methods(function: Callable[..., int]) -> Any:
    """The command of `function` with `--method` and the options of every method."""

    def command(**values: Any) -> int:
        return function(**values)

    own = list(inspect.signature(function).parameters.values())
    app = typer.Typer(add_completion=False)
    app.command()(with_signature(command, [*own, *_method_parameters()], function))
    return typer.main.get_command(app)


def _method_parameters() -> list[inspect.Parameter]:
    from calibration import METHODS, PerSampleMethod
    from calibration.choices import CHEAP, Auto
    from calibration.options import method_options

    per_sample = [name for name, kind in METHODS.items() if issubclass(kind, PerSampleMethod)]
    static = [name for name in METHODS if name not in per_sample]
    closest = f"the closest of {', '.join(one.name for one in CHEAP)}"
    about = typer.Option(
        help=f"auto ({closest}; of a .nir file none: as it is), {', '.join(static)}; "
        f"per sample: {', '.join(per_sample)}.",
        rich_help_panel="Calibration",
    )
    parameters = [parameter("method", Annotated[str, about], Auto.name)]
    for option in method_options():
        flag = f"--{'no-' if option.switched_off else ''}{option.flag}"
        least = [field.metadata["minimum"] for field in option.fields.values()]
        most = [field.metadata["maximum"] for field in option.fields.values()]
        info = typer.Option(
            f"--{option.flag}/{flag}" if option.switched_off else flag,
            help=option.help.replace("[", r"\["),
            min=None if None in least or option.kind is not int else min(least),
            max=None if None in most or option.kind is not int else max(most),
            rich_help_panel=f"Options of {', '.join(option.fields)}",
            show_default=False,
        )
        parameters.append(parameter(option.destination, Annotated[option.kind | None, info]))
    return parameters
