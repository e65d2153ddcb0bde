"""How far the currents of a network of integers are from those of float32, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from cos_export.device import full_precision
from cos_export.network import FloatArray, NeuronSpec, SpikingNetwork
from cos_export.network.wires import Wires
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.neuron import neuron_tensors
from cos_export.simulation.synapses import synapse

__all__ = ["JUDGED", "current_errors"]

JUDGED = 32
"""Images on which currents are compared, unless someone has more time."""


def current_errors(
    before: SpikingNetwork, after: SpikingNetwork, images: FloatArray, steps: int, device: torch.device
) -> Mapping[str, float]:
    """What rounding changes of the current of each layer, and of the readout, relative to how much that varies.

        sqrt(mean (z_int u - z)^2 / max(mean (z - mean of the channel)^2, (theta / L)^2 / 12))

    over images, channels and places, where z is the current for the activations of the network in float32, and z_int
    what the integers make of the same activations: so what a layer is given is right, and the errors are its own, those
    of all synapses between the neurons before it and itself. Where a current hardly varies it is compared with what the
    L levels of its activation (`steps` for a ReLU) lose anyway, and the readout with the variance over classes, too.

    Args:
        before: The network in float32.
        after: The same in integers.
        images: As `before` takes them, (samples, ...).
        steps: T.
        device: Where to compute.
    """
    activations, currents = _float32(before, images, device)
    coding = after.quantisation
    given = torch.as_tensor(images / (1.0 if coding is None else coding.input_scale)).to(device, torch.float32)
    wires: Wires[Tensor] = Wires(after)
    errors: dict[str, float] = {}
    with torch.no_grad(), full_precision():
        for name, parts in wires.walk():
            arriving = torch.stack(parts).sum(0) if parts else given
            if name in currents:
                current = currents.pop(name).double()
                off = (arriving.double() * _scale(after, name) - current).square().mean()
                reference = _reference(before.neurons.get(name), current, steps)
                errors[name] = float((off / reference).sqrt()) if reference else 0.0
            if name in activations:
                wires[name] = activations[name]
            else:
                wires[name] = synapse(after.graph.nodes[name], _mover(device))(arriving)
    return errors


def _float32(
    network: SpikingNetwork, images: FloatArray, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The activations of each layer, and the currents of each and of the Output."""
    wires: Wires[Tensor] = Wires(network)
    activations: dict[str, Tensor] = {}
    currents: dict[str, Tensor] = {}
    with torch.no_grad(), full_precision():
        for name, parts in wires.walk():
            arriving = torch.stack(parts).sum(0) if parts else torch.as_tensor(images).to(device, torch.float32)
            if name in network.neurons:
                neuron = neuron_tensors(network.neurons[name], device, torch.float32)
                currents[name], activations[name] = arriving, clipped_activation(name, neuron, arriving)
                wires[name] = activations[name]
                continue
            if name == network.output_name:
                currents[name] = arriving
            wires[name] = synapse(network.graph.nodes[name], _mover(device))(arriving)
    return activations, currents


def _scale(network: SpikingNetwork, name: str) -> Tensor | float:
    """What 1 stands for in a layer's currents, to be multiplied with them, or in the readout's."""
    spec = network.neurons.get(name)
    if spec is None or spec.scale is None:
        return 1.0 if network.quantisation is None else network.quantisation.readout_scale
    return torch.as_tensor(np.asarray(spec.scale, np.float64)).reshape(-1, *[1] * (len(spec.shape) - 1))


def _reference(spec: NeuronSpec | None, current: Tensor, steps: int) -> float:
    """The variance that an error of a current is compared with."""
    if spec is None:
        return float(current.var(unbiased=False)) or float(current.square().mean())
    others = [axis for axis in range(current.ndim) if axis != 1]
    varies = float((current - current.mean(others, keepdim=True)).square().mean())
    return max(varies, float(np.mean(np.square(spec.threshold / (spec.levels or steps), dtype=np.float64))) / 12)


def _mover(device: torch.device) -> Callable[[object], Tensor]:
    return lambda array: torch.as_tensor(np.asarray(array)).to(device, torch.float32)
