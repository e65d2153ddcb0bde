"""Means over the calibration images, all layers in one pass or one layer at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from calibration.data import CalibrationData
from cos_export.network import SpikingNetwork
from cos_export.network.schedule import Schedule, summed_steps
from cos_export.processes import summed
from cos_export.simulation.layerwise import fire_in_window
from cos_export.simulation.neuron import NeuronTensors, count_spikes, integrate_and_fire
from cos_export.simulation.program import NeuronRule, Program

__all__ = ["fired", "mean_outputs", "mean_rates", "mean_spikes"]


def fired(currents: Tensor, neuron: NeuronTensors, steps: int, schedule: Schedule) -> Tensor:
    """What one layer sends, by the schedule of its network.

    Args:
        currents: I, (steps or 1, batch, ...); under the layer-wise schedule their sum over the window, (1, batch, ...).
            They are overwritten.
        neuron: The layer.
        steps: T.
        schedule: When layers fire.

    Returns:
        Its spikes, (steps, batch, ...); under the layer-wise schedule how many there are, (1, batch, ...).
    """
    if schedule == "layerwise":
        return fire_in_window(currents[0], neuron, steps).counts.unsqueeze(0)
    return integrate_and_fire(currents, steps, neuron, overwrite=True).spikes


def mean_outputs(program: Program, data: CalibrationData, rule: NeuronRule) -> dict[str, Tensor]:
    """The mean over the calibration images of the outputs of each layer at each step: (steps or 1, ...), float64.

    One pass over the images, of which a batch is in memory at once; with several processes each takes its share, and
    all return the mean over all.

    Args:
        program: The network on a device.
        data: The images.
        rule: The outputs of each layer, such as `clipped_activation`.
    """
    sums: dict[str, Tensor] = {}

    def observe(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        outputs = rule(name, neuron, currents)
        total = outputs.sum(1, dtype=torch.float64)
        sums[name] = sums[name] + total if name in sums else total
        return outputs

    for images in data.ordered():
        program.propagate(images.to(program.device), observe)
    summed([*sums.values()])
    return {name: total / len(data) for name, total in sums.items()}


def mean_rates(
    network: SpikingNetwork, data: CalibrationData, steps: int, device: torch.device | str
) -> dict[str, Tensor]:
    """The mean over the calibration images of each layer's spikes, in float64.

    At each step, (steps, ...); under the layer-wise schedule over all steps of the window, (1, ...), from the number of
    spikes in it, for which one pass of each synapse does.

    Args:
        network: What fires.
        data: The images.
        steps: T.
        device: Where.
    """
    window = summed_steps(network.schedule, steps)

    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        return fired(currents, neuron, steps, network.schedule)

    means = mean_outputs(Program(network, device, window=window), data, rule)
    return {name: mean / window for name, mean in means.items()}


def mean_spikes(
    currents: Iterable[Tensor],
    neuron: NeuronTensors,
    steps: int,
    samples: int,
    schedule: Schedule,
    *,
    added: Tensor | float = 0.0,
) -> Tensor:
    """The mean of one layer's spikes over the images of all processes and the steps: (...) in float64.

    Args:
        currents: What arrives at it, a batch at a time, as `fired` takes it.
        neuron: The layer.
        steps: T.
        samples: The images of all processes.
        schedule: When layers fire.
        added: What arrives beside that, the same for all images.
    """
    total = torch.zeros_like(neuron.v_init, dtype=torch.float64)
    for batch in currents:
        if schedule == "layerwise":
            counts = fired(batch + added, neuron, steps, schedule)[0]
        else:
            counts = count_spikes(batch, steps, neuron, added=added)
        total += counts.sum(0, dtype=torch.float64)
    summed([total])
    return total / (samples * steps)
