"""What goes in and out of a step graph, by name: what a loop over it needs to know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cos_export.bundle.file_names import STEP_FILE
from cos_export.network import SpikingNetwork
from cos_export.network.windows import windows

__all__ = ["StepInterface", "StepState", "step_interface"]


@dataclass(frozen=True)
class StepState:
    """The potentials of a layer between two steps.

    Attributes:
        layer: The layer.
        input: The name of v(t - 1).
        output: The name of v(t).
        spikes: The name of what the layer fires.
        type: "float32" or "int32", of both potentials.
        shape: Of a sample.
        silent: The name of the input for a sample's own silent neurons, or None if the graph has none.
        first_step: The first step in which the layer may fire, from 1.
        last_step: The last, or None if it may in all that follow.
    """

    layer: str
    input: str
    output: str
    spikes: str
    type: str
    shape: tuple[int, ...]
    silent: str | None
    first_step: int
    last_step: int | None


@dataclass(frozen=True)
class StepInterface:
    """A step graph from outside.

    Attributes:
        file: The file in the bundle.
        images: The name of the input.
        images_type: "float32", or "int8" or "uint8" for a network of integers, whose input the caller rounds.
        images_scale: What 1 stands for in the input of a network of integers; 1 otherwise.
        start: The name of the boolean that is true in the first step: the graph's own initial potentials are taken
            then, and whatever is given as the states is not looked at.
        step: The name of the step's number, int64, from 1; None if no step differs from another.
        states: By layer.
        output: The name of what the step adds to the readout.
        steps: How many steps make one run.
        readout_scale: What the sum of the outputs is multiplied by ...
        readout_steps: ... and divided by, for the logits of a whole run.
    """

    file: str
    images: str
    images_type: str
    images_scale: float
    start: str
    step: str | None
    states: tuple[StepState, ...]
    output: str
    steps: int
    readout_scale: float
    readout_steps: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "states": [asdict(s) | {"shape": list(s.shape)} for s in self.states]}


def step_interface(network: SpikingNetwork, steps: int, *, silent_inputs: bool = False) -> StepInterface:
    """What the step graph of a network takes and returns.

    Args:
        network: What it holds.
        steps: T.
        silent_inputs: Whether each layer takes a mask of a sample's own silent neurons, which `srp` sets.
    """
    coding, layerwise = network.quantisation, network.schedule == "layerwise"
    opens = windows(network, steps) if layerwise else None
    numbered = layerwise or network.input_steps is not None
    numbered = numbered or any(spec.bias is not None for spec in network.neurons.values())
    images_type = "float32" if coding is None else "int8" if coding.input_minimum < 0 else "uint8"
    return StepInterface(
        file=STEP_FILE,
        images="images",
        images_type=images_type,
        images_scale=1.0 if coding is None else coding.input_scale,
        start="start",
        step="step" if numbered else None,
        states=tuple(
            StepState(
                layer=name,
                input=f"v/{name}",
                output=f"v_next/{name}",
                spikes=f"spikes/{name}",
                type="float32" if coding is None else "int32",
                shape=spec.shape,
                silent=f"silent/{name}" if silent_inputs else None,
                first_step=1 if opens is None else opens.opens[name] + 1,
                last_step=None if opens is None else opens.opens[name] + steps,
            )
            for name, spec in network.neurons.items()
        ),
        output="output",
        steps=steps if opens is None else opens.last_step,
        readout_scale=network.readout_scale,
        readout_steps=steps,
    )
