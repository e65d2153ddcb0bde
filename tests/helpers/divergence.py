"""How far the outputs of a spiking network are from those of an artificial one, in float64."""

from __future__ import annotations

import numpy as np
import torch

from cos_export.network import SpikingNetwork
from cos_export.simulation import ann_logits, simulate

__all__ = ["divergence"]


def divergence(network: SpikingNetwork, given: SpikingNetwork, steps: int, images: np.ndarray) -> float:
    """The mean KL of the outputs of `network` in `steps` steps from those of `given` with activations."""
    expected = torch.from_numpy(ann_logits(given, images)).double().log_softmax(1)
    actual = torch.from_numpy(simulate(network, images, steps, record_spikes=False).logits[-1]).double().log_softmax(1)
    return float((expected.exp() * (expected - actual)).sum(1).mean())
