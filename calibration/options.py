"""The options of all methods as a command line has them: each once, from the fields of the methods' dataclasses."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from calibration.methods import METHODS
from calibration.methods.method import Method, annotations_of
from calibration.records import method_named
from cos_export.bundle import network_of

__all__ = ["MethodOption", "chosen_method", "method_options", "options_given"]


@dataclass(frozen=True)
class MethodOption:
    """An option of one or several methods.

    Attributes:
        flag: What a command line calls it, behind its two dashes.
        fields: The field that it sets, by the method's name.
        kind: Of what is typed: int, float, bool, str, or Path for a network in a file.
    """

    flag: str
    fields: Mapping[str, Field[Any]]
    kind: type

    @property
    def destination(self) -> str:
        """The flag as a name in Python."""
        return self.flag.replace("-", "_")

    @property
    def help(self) -> str:
        """What it is and its default; for each method where they differ."""
        texts = {name: f"{field.metadata['help']}{_default(field)}" for name, field in self.fields.items()}
        if len(set(texts.values())) == 1:
            return next(iter(texts.values()))
        return " ".join(f"{name}: {text}" for name, text in texts.items())

    @property
    def switched_off(self) -> bool:
        """Whether it is a switch that is on where nothing is said."""
        return self.kind is bool and all(field.default is True for field in self.fields.values())


def method_options() -> tuple[MethodOption, ...]:
    """Every option of every method, in the order of the methods and of their fields."""
    by_flag: dict[str, dict[str, Field[Any]]] = {}
    for name, kind in METHODS.items():
        for entry in fields(kind):
            by_flag.setdefault(_flag(entry), {})[name] = entry
    return tuple(MethodOption(flag, by_method, _kind(by_method)) for flag, by_method in by_flag.items())


def options_given(given: Mapping[str, object], name: str) -> dict[str, object]:
    """Of what was given on a command line, by destination, the options that the method called `name` has."""
    here = {option.destination for option in method_options() if name in option.fields}
    return {key: value for key, value in given.items() if key in here and value is not None}


def chosen_method(name: str, given: Mapping[str, object]) -> Method:
    """The method called `name` with what was given on a command line.

    Args:
        name: Of the method.
        given: Values by destination, None where nothing was given; several words as one with commas, a network as the
            path of a bundle or NIR file.

    Raises:
        InputError: There is no such method, it lacks an option that was given, or the value cannot be.
    """
    chosen = {}
    for option in method_options():
        value = given.get(option.destination)
        if value is not None:
            entry = option.fields.get(name)
            chosen[f"--{option.flag}" if entry is None else entry.name] = _read(option, value)
    return method_named(name, chosen)


def _flag(entry: Field[Any]) -> str:
    return str(entry.metadata["flag"] or entry.name).replace("_", "-")


def _kind(by_method: Mapping[str, Field[Any]]) -> type:
    name, entry = next(iter(by_method.items()))
    annotation = annotations_of(METHODS[name])[entry.name]
    if get_origin(annotation) in (Union, types.UnionType):
        return Path
    return str if get_args(annotation) else annotation


def _default(field: Field[Any]) -> str:
    if field.default is None or isinstance(field.default, bool):
        return ""
    listed = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    return f" [default: {listed}]"


def _read(option: MethodOption, value: object) -> object:
    """What was typed as the field has it."""
    if option.kind is Path and isinstance(value, (str, Path)):
        return network_of(value)
    name, entry = next(iter(option.fields.items()))
    if get_origin(annotations_of(METHODS[name])[entry.name]) is tuple and isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value
