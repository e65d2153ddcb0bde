"""The local check: is each spike that a target fired the right answer to the spikes that it had itself?

End to end, one neuron within rounding of its threshold changes everything after it, so a difference proves
nothing. Locally it does: give each layer the target's own input spikes and each neuron the target's own earlier
spikes, compute m(t) in float64, and the spike must be [m(t) >= theta] unless m(t) is within the rounding bound.
In a network of integers that bound is 0, and float64 keeps the sums exact whatever algorithm a target adds them by,
the float32 convolutions of the reference included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.errors import ParityError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork
from cos_export.parity.comparison import check_numbers
from cos_export.parity.evaluation import Charge, Evaluation, at_step
from cos_export.parity.margin import evaluation_of
from cos_export.parity.rounding import Bounded, gamma
from cos_export.progress import Progress, silent
from cos_export.quantisation.integrality import check_integers
from cos_export.simulation.neuron import channels_last
from cos_export.simulation.trace import Trace

__all__ = ["LocalLayer", "LocalResult", "Violation", "check_local"]

LISTED = 20
"""Violations described one by one; the rest are counted."""

_HELD = 2**19
"""Numbers in the train of the largest layer, for as many samples as are checked at once: 4 MB, which caches hold."""


@dataclass(frozen=True)
class Violation:
    """A spike, or a missing one, that rounding cannot explain.

    Attributes:
        layer: The layer, or the Output node for a readout that is off.
        step: t, from 1.
        sample: Its index in the batch.
        neuron: Its index in the layer, (channel, row, column) or (feature,).
        fired: Whether the target fired.
        margin: m(t) - theta in float64; for a readout, how far the logit is off.
        bound: How large the margin may be.
    """

    layer: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    fired: bool
    margin: float
    bound: float


@dataclass(frozen=True)
class LocalLayer:
    """The local check of one layer.

    Attributes:
        violations: By step.
        near_ties: By step: spikes that could be either, m(t) being within the bound of theta.
        largest_bound: The largest rounding bound, in units of the threshold (of the logit for the readout).
    """

    violations: NDArray[np.int64]
    near_ties: NDArray[np.int64]
    largest_bound: float


@dataclass(frozen=True)
class LocalResult:
    """The local check of a run.

    Attributes:
        layers: By spiking layer.
        readout: Of the logits; it has no ties.
        listed: The first violations, one by one.
    """

    layers: dict[str, LocalLayer]
    readout: LocalLayer
    listed: list[Violation] = field(default_factory=list)

    @property
    def violations(self) -> int:
        """All violations."""
        return int(sum(layer.violations.sum() for layer in (*self.layers.values(), self.readout)))


class _Tally:
    """Counts over the chunks of a batch."""

    def __init__(self, steps: int) -> None:
        self.violations = np.zeros(steps, np.int64)
        self.near_ties = np.zeros(steps, np.int64)
        self.largest_bound = 0.0

    def see_bound(self, bound: float) -> None:
        """Keeps the largest bound, and nan once there is one."""
        self.largest_bound = bound if not bound <= self.largest_bound else self.largest_bound


def check_local(
    network: SpikingNetwork,
    images: FloatArray,
    trace: Trace,
    *,
    states: SampleStates | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> LocalResult:
    """Checks every spike and every logit of a run against float64.

    Args:
        network: What was run.
        images: (samples, ...), its inputs.
        trace: The target's run, with all its spikes.
        states: What a per-sample method had set.
        batch_size: Samples checked at once, by default as memory allows.
        progress: Told of each batch.

    Raises:
        ParityError: The trace lacks a layer, or its shape is not the network's.
        NetworkError: A network of integers holds something else, for which sums would not be exact.
    """
    check_integers(network)
    check_numbers(network, trace)
    for name, spec in network.neurons.items():
        expected = (trace.steps, len(images), *spec.shape)
        actual = trace.spikes[name].shape if name in trace.spikes else None
        if actual != expected:
            raise ParityError(f"Layer {name!r} should have spikes of shape {expected}, and the trace has {actual}.")
    largest = max(math.prod(shape) for shape in network.shapes.values())
    size = batch_size or max(1, _HELD // (largest * trace.steps))
    tallies = {name: _Tally(trace.steps) for name in (*network.layers, network.output_name)}
    listed: list[Violation] = []
    evaluation = evaluation_of(network, trace.steps)
    with torch.no_grad():
        for start in range(0, len(images), size):
            progress("checking every spike", start, len(images))
            _check_chunk(evaluation, images, trace, states, slice(start, start + size), tallies, listed)
    progress("checking every spike", len(images), len(images))
    layers = {
        name: LocalLayer(tally.violations, tally.near_ties, tally.largest_bound) for name, tally in tallies.items()
    }
    readout = layers.pop(network.output_name)
    return LocalResult(layers, readout, sorted(listed, key=lambda v: (v.step, network.order.index(v.layer)))[:LISTED])


def _check_chunk(
    evaluation: Evaluation,
    images: FloatArray,
    trace: Trace,
    states: SampleStates | None,
    chunk: slice,
    tallies: dict[str, _Tally],
    listed: list[Violation],
) -> None:
    network = evaluation.network
    fired, others = {}, {}
    for name in network.layers:
        spikes = torch.from_numpy(trace.spikes[name][:, chunk])
        fired[name] = channels_last(spikes.bool())
        if spikes.dtype != torch.bool:
            others[name] = channels_last((spikes != 0) & (spikes != 1))
    for name, arriving in evaluation.walk(torch.from_numpy(images[chunk]), fired):
        if name == network.output_name:
            logits = torch.from_numpy(trace.logits[:, chunk]).to(torch.float64)
            _check_readout(network, arriving[0], logits, chunk.start, tallies[name], listed)
            continue
        neurons, bound = evaluation.neurons(name, states, chunk), None
        for charge in evaluation.charges(neurons, arriving, fired[name]):
            seen = fired[name][charge.step - 1, charge.block]
            hidden = None if neurons.silent is None else neurons.silent.expand(fired[name].shape[1:])[charge.block]
            wrong = _wrong(charge, seen, hidden)
            if name in others:
                wrong = wrong | others[name][charge.step - 1, charge.block]
            first = chunk.start + charge.block.start
            if charge.bound is not None and charge.bound is not bound:  # That of a window is one for all its steps.
                bound = charge.bound
                tallies[name].see_bound(float((bound / neurons.threshold).max()))
            _count(name, charge, wrong, seen, first, tallies[name], listed)


def _wrong(charge: Charge, seen: Tensor, hidden: Tensor | None) -> Tensor:
    """Spikes that neither the margin nor rounding explains, and those of neurons that are silenced.

    Where the margin or its bound is not a finite number, nothing explains a spike or its absence.
    """
    wrong = charge.fired != charge.should
    if charge.bound is not None:
        wrong &= ~(charge.margin.abs() <= charge.bound)
    for value in (charge.margin, charge.bound):
        # A sum in float64 is finite only if every term is, and reading it once is all that a sound run costs.
        if value is not None and not bool(torch.isfinite(value.sum())):
            wrong |= ~torch.isfinite(value)
    return wrong if hidden is None else wrong | (hidden & seen)


def _count(
    name: str,
    charge: Charge,
    wrong: Tensor,
    seen: Tensor,
    first: int,
    tally: _Tally,
    listed: list[Violation],
) -> None:
    t = charge.step - 1
    if charge.bound is not None:
        tally.near_ties[t] += int(torch.count_nonzero(charge.margin.abs() <= charge.bound))
    if not bool(wrong.any()):
        return
    tally.violations[t] += int(torch.count_nonzero(wrong))
    for index in wrong.nonzero()[:LISTED].tolist():
        at = tuple(index)
        bound = 0.0 if charge.bound is None else float(charge.bound[at])
        margin = float(charge.margin[at])
        listed.append(Violation(name, charge.step, first + at[0], at[1:], bool(seen[at]), margin, bound))


def _check_readout(
    network: SpikingNetwork,
    outputs: Bounded,
    logits: Tensor,
    first_sample: int,
    tally: _Tally,
    listed: list[Violation],
) -> None:
    """The mean over the first t outputs takes t - 1 additions and one division, in any order.

    Of integers the additions are exact, which leaves the rounding of scale / t and that of the product with it.
    """
    quantisation = network.quantisation
    total, error, magnitude = (torch.zeros_like(logits[0]) for _ in range(3))
    for t in range(len(logits)):
        output = at_step(outputs, t)
        total = total + output.value
        magnitude = magnitude + output.value.abs()
        if output.error is not None:
            error, magnitude = error + output.error, magnitude + output.error
        steps = t + 1
        bound = (error + gamma(steps + 1) * magnitude) / steps
        mean = total / steps
        if quantisation is not None:
            mean = mean * quantisation.readout_scale
            bound = gamma(2) * mean.abs()
        off = (logits[t] - mean).abs()
        # What is nan is within no bound, and within an infinite one would be everything.
        wrong = ~((off <= bound) & torch.isfinite(bound))
        tally.violations[t] += int(wrong.sum())
        tally.see_bound(float(bound.max()))
        for index in wrong.nonzero()[:LISTED].tolist():
            at = tuple(index)
            sample, margin = first_sample + at[0], float(off[at])
            listed.append(Violation(network.output_name, steps, sample, at[1:], False, margin, float(bound[at])))
