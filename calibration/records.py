"""Methods by name, and from the record that a bundle keeps of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin

from calibration.methods import METHODS
from calibration.methods.method import Method, NetworkReference, PerSampleMethod, annotations_of
from calibration.methods.unchanged import Unchanged
from cos_export.bundle import Bundle
from cos_export.errors import BundleError, InputError
from cos_export.network import SpikingNetwork

__all__ = ["RecordedMethod", "method_from_record", "method_named", "method_names", "method_of"]

UNCALIBRATED = Unchanged.name
"""What the metadata of a network says that no method has calibrated, as one of another tool."""


def method_names() -> tuple[str, ...]:
    """Every method, static ones first."""
    return tuple(METHODS)


def method_named(name: str, options: Mapping[str, object] | None = None) -> Method:
    """The method called `name`, with some of its options chosen.

    Args:
        name: As the command line calls it.
        options: Options by name, such as `{"seed": 1}` for `static`.

    Raises:
        InputError: There is no such method, it has no such option, or an option cannot have that value.
    """
    if name == UNCALIBRATED and not options:
        return Unchanged()
    if name not in METHODS:
        raise InputError(f"There is no calibration method {name!r}. There are {', '.join(METHODS)}.")
    known = [entry.name for entry in fields(METHODS[name])]
    unknown = [option for option in options or {} if option not in known]
    if unknown:
        raise InputError(
            f"The method {name!r} has no {', '.join(unknown)} to choose. It has {', '.join(known) or 'no options'}."
        )
    return METHODS[name](**(options or {}))


def method_from_record(record: object) -> Method:
    """The method whose `record()` this is; an option that the record lacks has its default.

    Args:
        record: A mapping of plain JSON with "name" and options.

    Raises:
        InputError: It is not such a mapping, or what `method_named` refuses.
    """
    if not isinstance(record, Mapping) or not isinstance(record.get("name"), str):
        raise InputError(f"A method's record is a mapping with a name and options, and this is {record!r:.200}.")
    name, options = record["name"], {str(key): value for key, value in record.items() if key != "name"}
    annotations = annotations_of(METHODS[name]) if name in METHODS else {}
    return method_named(name, {key: _typed(value, annotations.get(key)) for key, value in options.items()})


def _typed(value: object, annotation: Any) -> object:
    """What JSON has no type for: tuples, and networks by their fingerprints."""
    if isinstance(value, list) and get_origin(annotation) is tuple:
        return tuple(value)
    return NetworkReference(value) if isinstance(value, str) and NetworkReference in get_args(annotation) else value


@dataclass(frozen=True)
class RecordedMethod:
    """What a bundle or a network says of its calibration.

    Attributes:
        method: The method, or None for a network that none has calibrated.
        unknown: In words, what was not recorded; "" if nothing is missing.
    """

    method: Method | None
    unknown: str = ""

    @property
    def per_sample(self) -> PerSampleMethod | None:
        """The method, if it calibrates each sample while it runs."""
        return self.method if isinstance(self.method, PerSampleMethod) else None

    @property
    def notes(self) -> list[str]:
        """What a user is to be told of: `unknown`, or nothing."""
        return [self.unknown] if self.unknown else []


def method_of(source: Bundle | SpikingNetwork) -> RecordedMethod:
    """The method that a bundle or a network was calibrated with, rebuilt from its record.

    A file of before has no record: its method is known by name and rho, with every other option at its default.

    Raises:
        BundleError: The record is of a method or of options that this version does not know, or it contradicts what
            stands beside it.
    """
    network = source.network if isinstance(source, Bundle) else source
    where = f"The bundle {source.path}" if isinstance(source, Bundle) else "The network"
    if isinstance(source, Bundle):
        _check_agreement(source, where)
    if network.calibration is None and network.method == UNCALIBRATED:
        return RecordedMethod(None)
    try:
        recorded = _by_name(network, where) if network.calibration is None else _recorded(network.calibration)
    except InputError as error:
        raise BundleError(f"{where} was calibrated by a method that is not known here. {error}") from error
    if recorded.method is None or recorded.method.rho != network.rho:
        raise BundleError(f"{where} says rho = {network.rho}, which its method {network.method!r} contradicts.")
    return recorded


def _check_agreement(bundle: Bundle, where: str) -> None:
    """The manifest must say of the calibration what the network's file says."""
    for key in ("method", "rho", "calibration", "calibrated_timesteps"):
        said, here = bundle.manifest.get(key), getattr(bundle.network, key)
        if key in bundle.manifest and said != here:
            raise BundleError(f"{where} says {key} = {said!r}, and its model.nir {here!r}. Export it again.")


def _recorded(record: Mapping[str, Any]) -> RecordedMethod:
    return RecordedMethod(method_from_record(record))


def _by_name(network: SpikingNetwork, where: str) -> RecordedMethod:
    method = method_named(network.method)
    options = {entry.name: entry.metadata["flag"] or entry.name for entry in fields(method)}
    extra = [name for name, flag in options.items() if flag == "rho" and network.rho]
    method = method_named(network.method, dict.fromkeys(extra, network.rho))
    missing = [name for name in options if name not in extra]
    if not missing and not method.depends_on_steps:
        return RecordedMethod(method)
    what = f"{where} was written by a version that kept of a method its name and rho alone"
    if network.rho:
        taken = ", ".join(f"{name} = {getattr(method, name)}" for name in missing)
        return RecordedMethod(method, f"{what}: {method.name} is run with the default {taken}." if missing else "")
    unknown = ", ".join(missing)
    return RecordedMethod(
        method,
        f"{what}: not known {'are its ' + unknown + ' and' if missing else 'is'} whether it was calibrated for "
        f"T = {network.num_timesteps}, or for another T than that of the export.",
    )
