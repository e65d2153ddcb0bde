"""What a layer of a client's neurons is to the runner."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cos_export.clients.nir_graph import Array, Layer
from cos_export.errors import NetworkError

__all__ = ["Neurons", "tensor", "uniform"]


class Neurons(Protocol):
    """A module of a client's neurons, without the batch axis in what it was made from."""

    def start(self, potential: Tensor) -> None:
        """Starts a batch: v(0), (batch, ...)."""

    def __call__(self, current: Tensor) -> Tensor:
        """One step: what arrives, (batch, ...), and the spikes, 0 or 1, likewise."""


def tensor(values: Array) -> Tensor:
    """A copy of an array as float32."""
    return torch.tensor(values, dtype=torch.float32)


def uniform(client: str, layer: Layer, what: str, values: Array) -> float:
    """The one number that all neurons of a layer have.

    Raises:
        NetworkError: They have several.
    """
    first = float(values.flat[0])
    if bool((values != first).any()):
        raise NetworkError(
            f"{client} has one {what} for all neurons of a layer, and layer {layer.name!r} has several, from "
            f"{values.min():.6g} to {values.max():.6g}. Make the network with one for each layer, or take another "
            "client."
        )
    return first
