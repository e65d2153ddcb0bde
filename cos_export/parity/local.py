"""The local check: is each spike that a target fired the right answer to the spikes that it had itself?

End to end, one neuron within rounding of its threshold changes everything after it, so a difference proves
nothing. Locally it does: give each layer the target's own input spikes and each neuron the target's own earlier
spikes, compute m(t) in float64, and the spike must be [m(t) >= theta] unless m(t) is within the rounding bound.
In a network of integers all sums are exact, and that bound is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.errors import ParityError
from cos_export.integers import encoded
from cos_export.network import FloatArray, NeuronSpec, SampleStates, SpikingNetwork
from cos_export.parity.rounding import UNIT_ROUNDOFF, Bounded, bounded_synapse, exact, gamma, sum_of
from cos_export.progress import Progress, silent
from cos_export.trace import Trace

__all__ = ["LocalLayer", "LocalResult", "Violation", "check_local"]

LISTED = 20
"""Violations described one by one; the rest are counted."""


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
    """The local check of a run: by layer, the readout under the Output node's name."""

    layers: dict[str, LocalLayer]
    listed: list[Violation] = field(default_factory=list)

    @property
    def violations(self) -> int:
        """All violations."""
        return int(sum(layer.violations.sum() for layer in self.layers.values()))


class _Tally:
    """Counts over the chunks of a batch."""

    def __init__(self, steps: int) -> None:
        self.violations = np.zeros(steps, np.int64)
        self.near_ties = np.zeros(steps, np.int64)
        self.largest_bound = 0.0


def check_local(
    network: SpikingNetwork,
    images: FloatArray,
    trace: Trace,
    *,
    states: SampleStates | None = None,
    batch_size: int = 64,
    progress: Progress = silent,
) -> LocalResult:
    """Checks every spike and every logit of a run against float64.

    Args:
        network: What was run.
        images: (samples, ...), its inputs.
        trace: The target's run, with all its spikes.
        states: What a per-sample method had set.
        batch_size: Samples checked at once.
        progress: Told of each batch.

    Raises:
        ParityError: The trace lacks a layer, or its shape is not the network's.
    """
    for name, spec in network.neurons.items():
        wanted = (trace.steps, len(images), *spec.shape)
        found = trace.spikes[name].shape if name in trace.spikes else None
        if found != wanted:
            raise ParityError(f"Layer {name!r} should have spikes of shape {wanted}, and the trace has {found}.")
    tallies = {name: _Tally(trace.steps) for name in (*network.layers, network.output_name)}
    listed: list[Violation] = []
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            progress("checking every spike", start, len(images))
            _check_chunk(network, images, trace, states, slice(start, start + batch_size), tallies, listed)
    progress("checking every spike", len(images), len(images))
    layers = {
        name: LocalLayer(tally.violations, tally.near_ties, tally.largest_bound) for name, tally in tallies.items()
    }
    return LocalResult(layers, sorted(listed, key=lambda v: (v.step, network.order.index(v.layer)))[:LISTED])


def _check_chunk(
    network: SpikingNetwork,
    images: FloatArray,
    trace: Trace,
    states: SampleStates | None,
    chunk: slice,
    tallies: dict[str, _Tally],
    listed: list[Violation],
) -> None:
    inputs = encoded(torch.from_numpy(images[chunk]), network.quantisation).to(torch.float64)
    unit = UNIT_ROUNDOFF if network.quantisation is None else 0.0
    values: dict[str, Bounded] = {}
    remaining = {name: sum(name in feeds for feeds in network.predecessors.values()) for name in network.order}
    for name in network.order:
        sources = network.predecessors[name]
        if name in network.neurons:
            spikes = torch.from_numpy(trace.spikes[name][:, chunk])
            parts = [values[source] for source in sources]
            own = _own_states(network.neurons[name], name, states, chunk)
            _check_layer(name, network.neurons[name], own, parts, spikes, chunk.start, tallies[name], listed, unit)
            values[name] = exact(spikes.to(torch.float64))
        elif not sources:
            values[name] = exact(inputs.unsqueeze(0))
        else:
            merged, magnitude = sum_of([values[source] for source in sources])
            if len(sources) > 1:
                merged = Bounded(merged.value, merged.error + gamma(len(sources) - 1, unit) * magnitude)
            values[name] = _per_step(bounded_synapse(network.graph.nodes[name], unit), merged)
        for source in set(sources):
            remaining[source] -= 1
            if remaining[source] == 0:
                del values[source]
    readout = values[network.output_name]
    logits = torch.from_numpy(trace.logits[:, chunk]).to(torch.float64)
    _check_readout(network, readout, logits, chunk.start, tallies[network.output_name], listed)


def _per_step(evaluate: Callable[[Bounded], Bounded], given: Bounded) -> Bounded:
    """Applies a function over samples to a train (steps or 1, batch, ...)."""
    steps, batch = given.value.shape[:2]
    flat = evaluate(Bounded(given.value.flatten(0, 1), given.error.flatten(0, 1)))
    return Bounded(*(part.reshape(steps, batch, *part.shape[1:]) for part in flat))


def _own_states(spec: NeuronSpec, name: str, states: SampleStates | None, chunk: slice) -> tuple[Tensor, Tensor | None]:
    """v(0) in float64 and the silent mask that the layer ran with."""
    v_init, mask = spec.v_init, spec.silent
    if states is not None:
        v_init = states.v_init[name][chunk] if name in states.v_init else v_init
        mask = states.silent[name][chunk] if name in states.silent else mask
    return torch.as_tensor(v_init).to(torch.float64), None if mask is None else torch.as_tensor(mask)


def _at(part: Bounded, t: int) -> Bounded:
    index = t if len(part.value) > 1 else 0
    return Bounded(part.value[index], part.error[index])


def _check_layer(
    name: str,
    spec: NeuronSpec,
    own: tuple[Tensor, Tensor | None],
    parts: list[Bounded],
    spikes: Tensor,
    first_sample: int,
    tally: _Tally,
    listed: list[Violation],
    unit: float,
) -> None:
    theta = torch.as_tensor(spec.threshold).to(torch.float64)
    bias = spec.bias_per_step(len(spikes))
    v_init, mask = own
    potential = v_init.expand(spikes.shape[1:])
    drift = torch.zeros_like(potential)
    # A silenced neuron goes on charging and firing unseen, so its own earlier spikes are what exact arithmetic says.
    for t in range(len(spikes)):
        terms = [Bounded(potential, drift), *(_at(part, t) for part in parts)]
        if bias is not None:
            beta = torch.from_numpy(bias[t]).to(torch.float64).expand_as(potential)
            terms.append(Bounded(beta, torch.zeros_like(beta)))
        charged, magnitude = sum_of(terms)
        bound = charged.error + gamma(len(terms) - 1, unit) * magnitude
        margin = charged.value - theta
        should = margin > 0 if spec.condition == ">" else margin >= 0
        fired = spikes[t] if mask is None else torch.where(mask, should, spikes[t])
        near = margin.abs() <= bound if unit else torch.zeros_like(should)
        wrong = (fired != should) & ~near
        if mask is not None:
            wrong |= mask & spikes[t]
        tally.violations[t] += int(wrong.sum())
        tally.near_ties[t] += int(near.sum())
        tally.largest_bound = max(tally.largest_bound, float((bound / theta).max()))
        for index in wrong.nonzero()[:LISTED].tolist():
            at = tuple(index)
            listed.append(
                Violation(
                    name, t + 1, first_sample + at[0], at[1:], bool(spikes[t][at]), float(margin[at]), float(bound[at])
                )
            )
        reset = charged.value - theta * fired
        drift = bound + unit * (reset.abs() + bound)
        if spec.reset == "value" and spec.v_reset is not None:
            reset = torch.where(fired, torch.as_tensor(spec.v_reset).to(torch.float64), charged.value)
            drift = torch.where(fired, 0.0, bound)
        potential = reset


def _check_readout(
    network: SpikingNetwork,
    outputs: Bounded,
    logits: Tensor,
    first_sample: int,
    tally: _Tally,
    listed: list[Violation],
) -> None:
    """The mean over the first t outputs takes t - 1 additions and one division, in any order.

    Of integers the additions are exact, which leaves the division and the product with the scale.
    """
    quantisation = network.quantisation
    total = torch.zeros_like(logits[0])
    error, magnitude = torch.zeros_like(total), torch.zeros_like(total)
    for t in range(len(logits)):
        output = _at(outputs, t)
        total, error = total + output.value, error + output.error
        magnitude = magnitude + output.value.abs() + output.error
        steps = t + 1
        bound = (error + gamma(steps + 1) * magnitude) / steps
        mean = total / steps
        if quantisation is not None:
            mean = mean * quantisation.readout_scale
            bound = gamma(2) * mean.abs()
        off = (logits[t] - mean).abs()
        wrong = off > bound
        tally.violations[t] += int(wrong.sum())
        tally.largest_bound = max(tally.largest_bound, float(bound.max()))
        for index in wrong.nonzero()[:LISTED].tolist():
            at = tuple(index)
            sample, margin = first_sample + at[0], float(off[at])
            listed.append(Violation(network.output_name, steps, sample, at[1:], False, margin, float(bound[at])))
