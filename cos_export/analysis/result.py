"""What `layer_errors` finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cos_export.analysis.split import Split

__all__ = ["KINDS", "LayerDivergences", "LayerErrors", "Output"]

KINDS = ("unclipped", "clipped", "quantised", "spiking")
"""The networks that are compared: u, c, q and s of `Split`, in all layers."""


@dataclass(frozen=True)
class LayerDivergences:
    """The mean KL divergence at the output, in nats, from the network that is clipped in all layers.

    Attributes:
        unclipped: Of the network in which this layer alone is not clipped.
        alone: Of the network in which this layer alone spikes; all others keep the clipped activation.
        repaired: Of the network in which all layers spike but this one, which answers with its clipped activation.
    """

    unclipped: float
    alone: float
    repaired: float


@dataclass(frozen=True)
class Output:
    """A whole network at its output.

    Attributes:
        divergence: The mean KL divergence from the clipped network, in nats.
        accuracy: The share of right answers, or None without labels.
    """

    divergence: float
    accuracy: float | None


@dataclass(frozen=True)
class LayerErrors:
    """What `layer_errors` measured.

    Attributes:
        steps: T.
        schedule: When layers fire.
        method: What calibrated the network.
        samples: Images.
        networks: By the name of `KINDS`.
        own: By layer, the split where each of the four networks has inputs of its own in every layer: errors of the
            layers before are in it.
        local: By layer, the split where all four get what the layer gets in the spiking network: its own errors.
        divergences: By layer.
        trained_clipped: Layers with levels: QCFS has them, and its training knew of the clipping.
    """

    steps: int
    schedule: str
    method: str
    samples: int
    networks: Mapping[str, Output]
    own: Mapping[str, Split]
    local: Mapping[str, Split]
    divergences: Mapping[str, LayerDivergences]
    trained_clipped: frozenset[str] = frozenset()

    @property
    def worst(self) -> str:
        """The layer without whose spikes the output would come closest to the clipped network."""
        return min(self.divergences, key=lambda name: self.divergences[name].repaired)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "steps": self.steps,
            "schedule": self.schedule,
            "method": self.method,
            "samples": self.samples,
            "networks": {name: asdict(output) for name, output in self.networks.items()},
            "worst": self.worst,
            "layers": {
                name: {
                    "own": self.own[name].to_dict(),
                    "local": self.local[name].to_dict(),
                    "divergence": asdict(self.divergences[name]),
                    "trained_clipped": name in self.trained_clipped,
                }
                for name in self.own
            },
        }
