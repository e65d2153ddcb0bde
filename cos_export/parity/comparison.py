"""The end-to-end comparison: how many spikes of a run differ from the reference's, and where they first do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import ParityError
from cos_export.network import SpikingNetwork
from cos_export.trace import Trace

__all__ = ["Comparison", "Divergence", "LayerComparison", "compare"]


@dataclass(frozen=True)
class Divergence:
    """The first spike that differs: of the earliest step, and in it of the first layer.

    Attributes:
        layer: The layer.
        step: t, from 1.
        sample: Its index in the batch.
        neuron: Its index in the layer.
        fired: Whether the target fired; the reference did the opposite.
    """

    layer: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    fired: bool


@dataclass(frozen=True)
class LayerComparison:
    """One layer.

    Attributes:
        slots: Spikes compared at each step: samples x neurons.
        mismatches: Spikes that differ, by step.
        spikes: Spikes that the reference fired, by step.
    """

    slots: int
    mismatches: NDArray[np.int64]
    spikes: NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """A run beside the reference.

    Attributes:
        layers: By layer.
        first: The first divergence, or None.
        logit_difference: The largest difference of two logits, at any step.
        decisions_changed: Samples whose class differs after the last step.
    """

    layers: dict[str, LayerComparison]
    first: Divergence | None
    logit_difference: float
    decisions_changed: int

    @property
    def compared(self) -> int:
        """All spikes compared."""
        return sum(layer.slots * len(layer.mismatches) for layer in self.layers.values())

    @property
    def mismatches(self) -> int:
        """All spikes that differ."""
        return int(sum(layer.mismatches.sum() for layer in self.layers.values()))


def compare(network: SpikingNetwork, reference: Trace, trace: Trace) -> Comparison:
    """Compares two runs of the same inputs.

    Raises:
        ParityError: They do not hold the same layers, steps and samples.
    """
    if reference.logits.shape != trace.logits.shape:
        raise ParityError(f"The reference has logits {reference.logits.shape}, and the run {trace.logits.shape}.")
    layers: dict[str, LayerComparison] = {}
    first: tuple[int, int, Divergence] | None = None
    for rank, name in enumerate(network.layers):
        wanted, found = reference.spikes.get(name), trace.spikes.get(name)
        if wanted is None or found is None or wanted.shape != found.shape:
            raise ParityError(f"The two runs do not both hold the spikes of layer {name!r} in one shape.")
        differs = wanted != found
        axes = tuple(range(1, differs.ndim))
        mismatches = differs.sum(axis=axes, dtype=np.int64)
        layers[name] = LayerComparison(int(wanted[0].size), mismatches, wanted.sum(axis=axes, dtype=np.int64))
        if mismatches.any():
            t = int(np.flatnonzero(mismatches)[0])
            at = tuple(int(i) for i in np.argwhere(differs[t])[0])
            found_here = Divergence(name, t + 1, at[0], at[1:], bool(found[t][at]))
            if first is None or (t, rank) < first[:2]:
                first = (t, rank, found_here)
    return Comparison(
        layers=layers,
        first=None if first is None else first[2],
        logit_difference=float(np.abs(reference.logits - trace.logits).max(initial=0.0)),
        decisions_changed=int((reference.logits[-1].argmax(-1) != trace.logits[-1].argmax(-1)).sum()),
    )
