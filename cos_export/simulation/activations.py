"""The artificial neurons that a layer of spiking ones stands for, as rules of `Program.propagate`."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_export.simulation.neuron import NeuronTensors

__all__ = ["clipped_activation", "limit_activation", "unclipped_activation"]


def clipped_activation(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
    """The artificial neuron that a layer stands for, as a rule: its activation a / theta in [0, 1].

    With levels L it is clip(floor(z L / theta + 1/2) / L, 0, 1) (QCFS), without it is clip(z / theta, 0, 1).
    """
    if neuron.levels is None:
        return limit_activation(name, neuron, currents)
    quantised = torch.floor(currents * neuron.levels / neuron.threshold + 0.5) / neuron.levels
    return quantised.clamp_(0.0, 1.0)


def limit_activation(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
    """What a layer's mean output under a constant current z tends to as T grows, as a rule: clip(z / theta, 0, 1).

    The soft reset loses no charge: with 0 <= z <= theta a neuron fires T z / theta times, up to one spike. QCFS is this
    rounded to L levels.
    """
    return (currents / neuron.threshold).clamp_(0.0, 1.0)


def unclipped_activation(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
    """The ReLU before a threshold was chosen for it, as a rule: max(z, 0) / theta."""
    return (currents / neuron.threshold).clamp_(min=0.0)
