"""Neurons that depart from a file's contract in one or several ways, to tell by its spikes what an importer ignores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cos_export.clients.network import ClientNetwork
from cos_export.clients.nir_graph import Layer, read_graph
from cos_export.network import FloatArray

__all__ = ["CONTRACT", "Variant", "run", "variants"]


@dataclass(frozen=True)
class Variant:
    """What a neuron makes of the file.

    Attributes:
        v_init: Whether it starts from the file's initial potential, or from 0.
        to_zero: Whether it is reset to 0, and not by subtraction.
        strict: Whether it fires above the threshold only.
        decay: What is left of the potential from step to step.
        several: Whether it fires as often in a step as the threshold fits into its potential.
        clipped: Whether potentials below minus the threshold are raised to it.
    """

    v_init: bool = True
    to_zero: bool = False
    strict: bool = False
    decay: float = 1.0
    several: bool = False
    clipped: bool = False

    @property
    def ignores(self) -> list[str]:
        """What of the contract it does not do, in words."""
        said = {
            "the initial potentials": not self.v_init,
            "reset by subtraction (resets to 0)": self.to_zero,
            "`>=` (fires above the threshold only)": self.strict,
            f"that nothing leaks (keeps {self.decay:g} of a potential)": self.decay != 1.0,
            "that a neuron fires once in a step": self.several,
            "potentials below minus the threshold": self.clipped,
        }
        return [words for words, holds in said.items() if holds]


CONTRACT = Variant()


def variants() -> Iterator[Variant]:
    """All of them, those that depart least first."""
    flags = (False, True)
    made = [
        Variant(not start, to_zero, strict, decay, several, clipped)
        for start, to_zero, strict, decay, several, clipped in product(flags, flags, flags, (1.0, 0.9), flags, flags)
        if not (several and (to_zero or strict))
    ]
    yield from sorted(made, key=lambda variant: len(variant.ignores))


class _Neurons(nn.Module):
    threshold: Tensor

    def __init__(self, layer: Layer, variant: Variant) -> None:
        super().__init__()
        self.name, self.fired = layer.name, list[Tensor]()
        self.register_buffer("threshold", torch.from_numpy(np.array(layer.threshold)))
        self.variant = variant

    def start(self, potential: Tensor) -> None:
        self.potential = potential if self.variant.v_init else torch.zeros_like(potential)

    def forward(self, current: Tensor) -> Tensor:
        variant, theta = self.variant, self.threshold
        charged = variant.decay * self.potential + current
        if variant.several:
            fired = torch.floor(charged / theta).clamp_(min=0)
        else:
            fired = (charged > theta if variant.strict else charged >= theta).to(charged.dtype)
        left = torch.where(fired > 0, 0.0, charged) if variant.to_zero else charged - fired * theta
        self.potential = torch.maximum(left, -theta) if variant.clipped else left
        self.fired.append(fired)
        return fired


def run(nir_file: Path, images: FloatArray, steps: int, variant: Variant) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Logits, (steps, samples, classes), and how often each neuron fires, (steps, samples, ...) by layer."""
    network = ClientNetwork(read_graph(nir_file), lambda layer: _Neurons(layer, variant))
    with torch.no_grad():
        logits = network(torch.from_numpy(images), steps)
    layers = (module for module in network.modules() if isinstance(module, _Neurons))
    return logits.numpy(), {layer.name: torch.stack(layer.fired).numpy() for layer in layers}
