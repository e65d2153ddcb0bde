"""Neurons of no client: the contract in five lines, for what runs clients' neurons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cos_export.clients.nir_graph import Layer


class PlainNeurons(nn.Module):
    """Integrate-and-fire neurons with any threshold, comparison and reset."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer, self.threshold = layer, torch.tensor(layer.threshold)
        self.v = torch.zeros(())

    def start(self, potential: Tensor) -> None:
        self.v = potential

    def forward(self, current: Tensor) -> Tensor:
        charged = self.v + current
        fired = charged > self.threshold if self.layer.strict else charged >= self.threshold
        reset = charged - self.threshold if self.layer.v_reset is None else torch.tensor(self.layer.v_reset)
        self.v = torch.where(fired, reset, charged)
        return fired.float()
