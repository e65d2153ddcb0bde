"""The end-to-end comparison: how many spikes of a run differ from the reference's, and where they first do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cos_export.decisions import decisions
from cos_export.errors import ParityError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.parity.margin import margin_at
from cos_export.simulation.sample_parts import blocks
from cos_export.simulation.trace import Trace

__all__ = ["Comparison", "Divergence", "LayerComparison", "check_numbers", "compare"]


@dataclass(frozen=True)
class Divergence:
    """The first spike that differs: of the earliest step, and in it of the first layer.

    All that reached the neuron until then is the same in both runs, so one m(t) was right for both (`margin`).

    Attributes:
        layer: The layer.
        step: t, from 1.
        sample: Its index in the batch.
        neuron: Its index in the layer.
        fired: Whether the target fired; the reference did the opposite.
        margin: m(t) - theta in float64, in the network's units: a half-integer in a network of integers.
        bound: How far rounding may take it; 0 in a network of integers.
    """

    layer: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    fired: bool
    margin: float
    bound: float


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
        logit_difference: The largest difference of two logits, at any step; nan if one of them is.
        decisions_changed: Samples whose class differs after the last step, or whose logits are not finite there.
        identical: Whether every spike and every logit is the reference's, bit for bit.
    """

    layers: dict[str, LayerComparison]
    first: Divergence | None
    logit_difference: float
    decisions_changed: int
    identical: bool

    @property
    def compared(self) -> int:
        """All spikes compared."""
        return sum(layer.slots * len(layer.mismatches) for layer in self.layers.values())

    @property
    def mismatches(self) -> int:
        """All spikes that differ."""
        return int(sum(layer.mismatches.sum() for layer in self.layers.values()))


def compare(network: SpikingNetwork, images: FloatArray, reference: Trace, trace: Trace) -> Comparison:
    """Compares two runs of the same inputs.

    Args:
        network: What was run.
        images: (samples, ...), its inputs.
        reference: The recorded run, with the states that a per-sample method had set.
        trace: The run to compare with it.

    Raises:
        ParityError: They do not hold the same layers, steps and samples, or something that is not a number.
    """
    if reference.logits.shape != trace.logits.shape:
        raise ParityError(f"The reference has logits {reference.logits.shape}, and the run {trace.logits.shape}.")
    check_numbers(network, trace)
    layers: dict[str, LayerComparison] = {}
    first: tuple[int, int] | None = None
    for rank, name in enumerate(network.layers):
        expected, actual = reference.spikes.get(name), trace.spikes.get(name)
        if expected is None or actual is None or expected.shape != actual.shape:
            raise ParityError(f"The two runs do not both hold the spikes of layer {name!r} in one shape.")
        mismatches = _differing(expected, actual)
        fired = np.array([np.count_nonzero(step) for step in expected], np.int64)
        layers[name] = LayerComparison(int(expected[0].size), mismatches, fired)
        if mismatches.any():
            earliest = (int(np.flatnonzero(mismatches)[0]), rank)
            first = earliest if first is None else min(first, earliest)
    with np.errstate(invalid="ignore"):  # inf - inf is nan, and says so in what is returned
        distance = np.abs(reference.logits - trace.logits).max(initial=0.0)
    return Comparison(
        layers=layers,
        first=None if first is None else _divergence(network, images, reference, trace, *first),
        logit_difference=float(distance),
        decisions_changed=_decisions_changed(reference.logits[-1], trace.logits[-1]),
        identical=first is None and reference.logits.tobytes() == trace.logits.tobytes(),
    )


def check_numbers(network: SpikingNetwork, trace: Trace) -> None:
    """Refuses a run whose spikes or logits are not numbers at all.

    Raises:
        ParityError: They are of another type; the message names the layer.
    """
    arrays = {f"the spikes of layer {name!r}": trace.spikes[name] for name in network.layers if name in trace.spikes}
    for what, array in {**arrays, "the logits": trace.logits}.items():
        if array.dtype.kind not in "biuf":
            raise ParityError(f"The run has {what} of type {array.dtype}; they must be numbers.")


def _decisions_changed(expected: FloatArray, actual: FloatArray) -> int:
    """Samples whose class differs; one whose logits are not finite has none."""
    undecided = ~(np.isfinite(expected) & np.isfinite(actual)).all(-1)
    return int((undecided | (decisions(expected) != decisions(actual))).sum())


def _differing(expected: NDArray[np.bool_], actual: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many spikes differ, by step."""
    parts = list(blocks(expected.shape[1], int(np.prod(expected.shape[2:]))))
    counts = [
        sum(np.count_nonzero(np.not_equal(one[part], other[part])) for part in parts)
        for one, other in zip(expected, actual, strict=True)
    ]
    return np.array(counts, np.int64)


def _divergence(
    network: SpikingNetwork, images: FloatArray, reference: Trace, trace: Trace, t: int, rank: int
) -> Divergence:
    name = network.layers[rank]
    expected, actual = reference.spikes[name][t], trace.spikes[name][t]
    sample = next(number for number in range(len(expected)) if np.not_equal(expected[number], actual[number]).any())
    differs = np.not_equal(expected[sample], actual[sample])
    neuron = [int(i) for i in np.unravel_index(int(differs.argmax()), differs.shape)]
    fired = bool(trace.spikes[name][(t, sample, *neuron)])
    margin, bound = margin_at(network, images, reference, name, t + 1, sample, tuple(neuron))
    return Divergence(name, t + 1, sample, tuple(neuron), fired, margin, bound)
