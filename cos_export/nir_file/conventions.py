"""What a NIR file leaves open: how a neuron is reset, when it fires, and how long a step is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import InputError, NetworkError, Notice
from cos_export.network.neuron_spec import Condition, Reset
from cos_export.nir_file.neuron_metadata import NeuronFacts

__all__ = [
    "FAR",
    "ROUNDING",
    "AssumptionNotice",
    "Conventions",
    "assumed_lines",
    "assumptions",
    "rescaled",
]

Array = NDArray[np.float64]

ROUNDING = 2.0 * float(np.finfo(np.float32).eps)
"""r and dt are each rounded to float32 in most files, so their product is off by up to two units."""

FAR = 10.0
"""From so many times 1 on, r * dt is taken for an r of 1 / dt whose dt the file does not say."""


class AssumptionNotice(Notice):
    """What a NIR file does not say, and what was assumed in its place."""


@dataclass(frozen=True)
class Conventions:
    """What a user says of a NIR file that does not say it; None where the user says nothing either.

    Attributes:
        reset: "subtract" (v = m - theta) or "value" (v = v_reset), NIR's own.
        condition: ">=" or ">", NIR's own: whether a neuron at its threshold fires.
        dt: Length of a step in the unit of r; 1 if nobody says.

    Raises:
        InputError: One of them has no meaning.
    """

    reset: Reset | None = None
    condition: Condition | None = None
    dt: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("reset", self.reset, get_args(Reset)),
            ("condition", self.condition, get_args(Condition)),
        ):
            if value is not None and value not in known:
                listed = " or ".join(f'"{one}"' for one in known)
                raise InputError(f"{name} must be {listed}, and is {value!r}.")
        if self.dt is not None and not (math.isfinite(self.dt) and self.dt > 0):
            raise InputError(f"dt must be a positive number, and is {self.dt!r}.")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of what the user said."""
        return tuple(name for name in ("reset", "condition", "dt") if getattr(self, name) is not None)


def rescaled(
    threshold: Array, v_reset: Array, v_init: Array, gain: Array, *, dt_known: bool
) -> tuple[Array, Array, Array]:
    """Threshold, reset value and initial potential of a neuron of r * dt = 1 that fires the same spikes.

    Args:
        threshold: In the unit of the potential.
        v_reset: Likewise.
        v_init: Likewise.
        gain: r * dt of each neuron.
        dt_known: Whether the file or the user says dt.

    Raises:
        NetworkError: r * dt is not positive, or so far from 1 that dt was forgotten.
    """
    if not np.all(np.isfinite(gain)) or not np.all(gain > 0):
        raise NetworkError("r * dt must be a positive number.")
    low, high = float(gain.min()), float(gain.max())
    if not dt_known and not (low > 1 / FAR and high < FAR):
        far = high if high >= FAR else low
        raise NetworkError(
            f"r is {far:g}, far from 1, and the file does not say how long a step is (dt), so that r * dt is not "
            f"known. SpikingJelly writes r = 1 / dt: then give dt={1 / far:g} (--dt {1 / far:g}). Give dt=1 (--dt 1) "
            "if the current of each step is multiplied by r indeed."
        )
    if np.any(np.abs(gain - 1.0) > ROUNDING):
        return threshold / gain, v_reset / gain, v_init / gain
    return threshold, v_reset, v_init


def assumed_lines(
    said: Mapping[str, NeuronFacts], gains: Mapping[str, float], dt: float | None, conventions: Conventions
) -> list[str]:
    """In words, what neither a file of another tool nor the user says, and what is assumed in its place.

    Args:
        said: What the metadata of each spiking node says.
        gains: By the node's name, the r * dt that is farthest from 1 where one is not 1.
        dt: What the file says.
        conventions: What the user says.
    """
    lines = []
    if conventions.reset is None and any(one.reset is None for one in said.values()):
        lines.append(
            "how its neurons are reset: to v_reset, as NIR has it. Networks converted from trained ones mostly "
            'subtract the threshold: reset="subtract" (--reset subtract)'
        )
    if conventions.condition is None and any(one.condition is None for one in said.values()):
        lines.append(
            "whether a neuron at its threshold fires: not, as NIR has it (>). Most simulators let it: "
            'condition=">=" (--condition ">=")'
        )
    if conventions.dt is None and dt is None and gains:
        name, gain = next(iter(gains.items()))
        lines.append(
            f"how long a step is: dt = 1. So {name!r} charges by {gain:g} times its current, and its threshold and "
            "potentials are divided by that: dt= (--dt)"
        )
    if any(one.v_init is None for one in said.values()):
        lines.append("the initial potentials: 0")
    return lines


def assumptions(path: object, assumed: Sequence[str]) -> str:
    """What was assumed about a file, in one line."""
    return f"{path} does not say, and so it is assumed, {'; '.join(assumed)}."
