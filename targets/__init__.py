"""The targets by name. A target's module, and what it needs, is imported when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, cast

from cos_export.bundle import Bundle
from cos_export.bundle.target import Availability, Target
from cos_export.errors import InputError, UnavailableError
from cos_export.network import FloatArray, SampleStates
from cos_export.progress import Progress, silent
from cos_export.simulation.trace import Trace

__all__ = ["Availability", "Target", "get", "install", "names"]

_TARGETS: Mapping[str, str] = {  # module:class, and its first argument if one class makes several
    "pytorch": "targets.pytorch:PyTorchTarget",
    "onnxruntime": "targets.onnxruntime:OnnxRuntimeTarget",
    "openvino": "targets.openvino:OpenVinoTarget",
    "lava": "targets.lava:LavaTarget",
    "sinabs": "targets.clients:ClientTarget:sinabs",
    "snntorch": "targets.clients:ClientTarget:snntorch",
    "norse": "targets.clients:ClientTarget:norse",
    "spikingjelly": "targets.clients:ClientTarget:spikingjelly",
    "c": "targets.c:CTarget",
}


def names() -> tuple[str, ...]:
    """Every target there is, whether or not it can run here."""
    return tuple(_TARGETS)


def get(name: str, **options: Any) -> Target:
    """The target called `name`.

    A target whose module cannot be imported is given all the same: its `available()` says why it cannot run.

    Args:
        name: One of `names()`, and behind a colon which back end if the target has several: "lava:faithful".
        options: What the target's class takes, such as `device` for "pytorch".

    Raises:
        InputError: There is no such target, or it takes no such option.
    """
    name, _, backend = name.partition(":")
    if name not in _TARGETS:
        raise InputError(f"There is no target {name!r}. The targets are {', '.join(_TARGETS)}.")
    if backend:
        options["backend"] = backend
    try:
        factory = _imported(_TARGETS[name])
    except (ImportError, AttributeError) as error:
        return _Missing(name, f"{error}. Install what is missing to use this target.")
    taken = inspect.signature(factory).parameters
    unknown = sorted(set(options) - set(taken))
    if unknown:
        raise InputError(
            f"The target {name!r} takes no {', '.join(unknown)}. It takes {', '.join(taken) or 'no options'}."
        )
    return cast(Target, factory(**options))


_INSTALLERS: Mapping[str, str] = {
    "lava": "targets.lava.installation:install",
    "sinabs": "targets.clients.installation:install:sinabs",
    "snntorch": "targets.clients.installation:install:snntorch",
    "norse": "targets.clients.installation:install:norse",
    "spikingjelly": "targets.clients.installation:install:spikingjelly",
}
"""Targets that live in an environment of their own, and what makes it."""


def install(name: str, *, progress: Progress = silent) -> None:
    """Makes the environment of the target called `name`; if it is there, nothing is done.

    Args:
        name: A target with an environment of its own.
        progress: Told as it goes on.

    Raises:
        InputError: There is no such target, or it has no environment of its own.
        UnavailableError: The environment cannot be made, for want of a network say.
    """
    if name not in _INSTALLERS:
        get(name)
        raise InputError(f"The target {name!r} has no environment of its own. These have: {', '.join(_INSTALLERS)}.")
    _imported(_INSTALLERS[name])(progress=progress)


def _imported(place: str) -> Callable[..., Any]:
    """What "module:name" or "module:name:argument" stands for."""
    module, name, *arguments = place.split(":")
    return partial(getattr(import_module(module), name), *arguments)


class _Missing:
    """Stands for a target that cannot be imported."""

    def __init__(self, name: str, reason: str) -> None:
        self._name, self._reason = name, reason

    @property
    def name(self) -> str:
        return self._name

    def available(self) -> Availability:
        return Availability(ready=False, reason=self._reason)

    def run(
        self,
        bundle: Bundle,
        images: FloatArray,
        steps: int,
        *,
        states: SampleStates | None = None,
        record_spikes: bool = True,
        progress: Progress = silent,
    ) -> Trace:
        raise UnavailableError(f"The target {self._name!r} cannot run here: {self._reason}")
