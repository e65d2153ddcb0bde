"""What a calibration method is: its name, its options, and what it says of itself."""

from __future__ import annotations

import math
import types
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from calibration.checkpoint import Checkpoint
from calibration.data import CalibrationData
from calibration.identity import fingerprint
from cos_export.errors import InputError
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.network.schedule import Schedule
from cos_export.progress import Progress, silent
from cos_export.simulation import Observer
from cos_export.simulation.presimulation import PreSimulationRule
from cos_export.simulation.program import Program

__all__ = [
    "CalibrationRun",
    "Method",
    "NetworkReference",
    "PerSampleMethod",
    "StaticMethod",
    "annotations_of",
    "option",
]

Value = TypeVar("Value")


@dataclass(frozen=True)
class NetworkReference:
    """A network that a record names: enough to tell it from others, too little to calibrate from.

    Attributes:
        fingerprint: `calibration.identity.fingerprint` of it.
    """

    fingerprint: str


def option(
    default: Value,
    help: str,
    *,
    flag: str | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Value:
    """A field of a method: all that the command lines, the benchmarks and a record need to know of an option.

    Args:
        default: Its value where nothing is chosen.
        help: What it is, for `--help`, without the default.
        flag: What command lines call it; by default the field's name.
        minimum: The least number.
        above: The number that it must be larger than.
        maximum: The largest number.
        choices: The words that there are.
    """
    about = {"help": help, "flag": flag, "minimum": minimum, "above": above, "maximum": maximum, "choices": choices}
    declared: Value = field(default=default, metadata=about)
    return declared


@dataclass(frozen=True)
class Method(ABC):
    """A calibration method: a frozen dataclass whose fields are its options, each declared by `option`.

    Attributes:
        name: What the command line calls it.
        needs_data: Whether it looks at images before the network runs.
        depends_on_steps: Whether what it sets is made for one T.
        synchronous_only: Why it has nothing to do where layers fire one after the other; "" if it has.
    """

    name: ClassVar[str]
    needs_data: ClassVar[bool] = False
    depends_on_steps: ClassVar[bool] = False
    synchronous_only: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.generic):
                value = value.item()
                object.__setattr__(self, entry.name, value)
            self._check(entry, value)

    @property
    def rho(self) -> int:
        """Extra steps for each sample: 0 if static."""
        return 0

    @property
    def changes_weights(self) -> bool:
        """Whether it changes weights by gradient, so that integers are made of what it has found."""
        return False

    def refusal(self, numerics: str) -> str:
        """Why the method cannot calibrate a network of these numerics, and what to do; "" if it can."""
        return ""

    def schedule_refusal(self, schedule: Schedule) -> str:
        """Why the method cannot calibrate a network of this schedule, and what to do; "" if it can."""
        return "" if schedule == "synchronous" else self.synchronous_only

    def supports(self, numerics: str) -> bool:
        """Whether the method can calibrate a network of these numerics (`cos_export.numerics`)."""
        return not self.refusal(numerics)

    def record(self) -> dict[str, Any]:
        """The name and every option as plain JSON, which `calibration.records.method_from_record` reads."""
        return {"name": self.name} | {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    def _check(self, entry: Field[Any], value: object) -> None:
        annotation, about = annotations_of(type(self))[entry.name], entry.metadata
        if not _fits(value, annotation):
            raise InputError(f"{self.name} needs {_words(annotation)} as {entry.name}, and got {value!r}.")
        if about.get("choices") and value not in about["choices"]:
            raise InputError(f"{entry.name} of {self.name} is one of {', '.join(about['choices'])}, not {value!r}.")
        above, least, most = about.get("above"), about.get("minimum"), about.get("maximum")
        if isinstance(value, (int, float)) and not (
            (above is None or value > above) and (least is None or value >= least) and (most is None or value <= most)
        ):
            raise InputError(f"{self.name} needs {_bounds(entry.name, value, above, least, most)}, and got {value!r}.")


@dataclass(frozen=True)
class CalibrationRun:
    """What a static method is given beside the network.

    Attributes:
        data: The calibration images.
        steps: T to calibrate for.
        device: Where to compute.
        progress: Told as it goes on.
        checkpoint: Where to go on from, and where to keep the state of long work between its rounds.
    """

    data: CalibrationData
    steps: int
    device: torch.device
    progress: Progress = silent
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


@dataclass(frozen=True)
class StaticMethod(Method):
    """A method that sets the same potentials, thresholds, biases or weights for all inputs: rho = 0."""

    @abstractmethod
    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        """The network with what the method sets.

        Args:
            network: The network, with v_init = theta / 2 where nothing else was set.
            run: What to calibrate on and for.
        """


@dataclass(frozen=True)
class PerSampleMethod(Method):
    """A method that spends rho extra steps on each sample to set that sample's own states."""

    @property
    @abstractmethod
    def rho(self) -> int:
        """Extra steps for each sample."""

    @property
    @abstractmethod
    def presimulation(self) -> PreSimulationRule:
        """What it makes of the extra steps, for executors that carry it out by themselves."""

    @property
    def presimulated_steps(self) -> int:
        """Steps that each layer takes of its input before its own run: rho, for each pass over them."""
        return self.rho

    def presimulated(self, network: SpikingNetwork) -> SpikingNetwork | None:
        """What runs these steps, all layers together; None if each layer waits for the calibrated one below."""
        return None

    @abstractmethod
    def run(self, program: Program, images: Tensor, steps: int, observe: Observer) -> tuple[Tensor, SampleStates]:
        """Calibrates and runs a batch; see `cos_export.simulation.PerSampleCalibration.run`."""


@cache
def annotations_of(kind: type[Method]) -> Mapping[str, Any]:
    """The types of a method's fields by name."""
    return get_type_hints(kind)


def _plain(value: object) -> object:
    """An option as JSON has it: of a network its fingerprint, and a list for a tuple."""
    if isinstance(value, SpikingNetwork):
        return fingerprint(value)
    if isinstance(value, NetworkReference):
        return value.fingerprint
    return list(value) if isinstance(value, tuple) else value


def _fits(value: object, annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _words(annotation: Any) -> str:
    if get_origin(annotation) is tuple:
        return f"some of {', '.join(get_args(get_args(annotation)[0]))}"
    known = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a word"}
    return known.get(annotation, "a network or nothing")


def _bounds(name: str, value: float, above: float | None, least: float | None, most: float | None) -> str:
    """The bound that is crossed; both, where one of the two is open."""
    if above is not None:
        return f"{name} > {above}" if most is None else f"{above} < {name} <= {most}"
    return f"{name} >= {least}" if least is not None and value < least else f"{name} <= {most}"
