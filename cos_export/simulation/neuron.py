"""The integrate-and-fire neuron over a train of currents, on any torch device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cos_export.network import NeuronSpec, SampleStates

__all__ = [
    "NeuronTensors",
    "Run",
    "advance",
    "channels_last",
    "count_spikes",
    "current_at",
    "integrate_and_fire",
    "neuron_tensors",
    "sample_blocks",
    "step",
    "with_states",
]

_CACHED = 1 << 18
"""Numbers in an array that a processor's cache holds together with the few others of a step."""


@dataclass(frozen=True)
class NeuronTensors:
    """A `NeuronSpec` on a device.

    Shapes are (...), but v_init and silent may carry a batch axis in front when they are set for each sample.
    """

    threshold: Tensor
    v_init: Tensor
    strict: bool
    v_reset: Tensor | None
    bias: Tensor | None
    silent: Tensor | None
    levels: int | None


class Run(NamedTuple):
    """What a layer did.

    Attributes:
        spikes: (steps, batch, ...) of 0 and 1, of the current's dtype.
        residual: v(T), the potential that is left, (batch, ...).
        potentials: v(1..T), (steps, batch, ...), if recorded.
    """

    spikes: Tensor
    residual: Tensor
    potentials: Tensor | None

    @property
    def fired(self) -> Tensor:
        """The spikes as booleans, (steps, batch, ...)."""
        return self.spikes.bool()


def neuron_tensors(spec: NeuronSpec, device: torch.device, dtype: torch.dtype) -> NeuronTensors:
    """Copies a layer's neurons to `device`; a threshold that is the same everywhere becomes a scalar."""

    def move(array: object) -> Tensor:
        return channels_last(torch.as_tensor(array).to(device=device, dtype=dtype))

    threshold = move(spec.threshold)
    first = threshold.flatten()[0]
    return NeuronTensors(
        threshold=first.clone() if bool((threshold == first).all()) else threshold,
        v_init=move(spec.v_init),
        strict=spec.condition == ">",
        v_reset=move(spec.v_reset) if spec.reset == "value" else None,
        bias=None if spec.bias is None else move(spec.bias),
        silent=None if spec.silent is None else channels_last(torch.as_tensor(spec.silent).to(device)),
        levels=spec.levels,
    )


def with_states(neuron: NeuronTensors, name: str, states: SampleStates | None, device: torch.device) -> NeuronTensors:
    """A layer's neurons with the states that a per-sample method has set for each sample."""
    if states is not None and name in states.v_init:
        neuron = replace(neuron, v_init=torch.as_tensor(states.v_init[name]).to(device))
    if states is not None and name in states.silent:
        neuron = replace(neuron, silent=torch.as_tensor(states.silent[name]).to(device))
    return neuron


def channels_last(values: Tensor) -> Tensor:
    """`values` (..., channels, height, width) laid out with the channels innermost, as convolutions here are.

    Few channels make a convolution three times as fast that way on a CPU, and a neuron's arrays must lie as its
    currents do, or each step walks through memory in two orders.
    """
    if values.ndim < 3:
        return values
    return values.movedim(-3, -1).contiguous().movedim(-1, -3)


def step(potential: Tensor, current: Tensor, neuron: NeuronTensors) -> tuple[Tensor, Tensor]:
    """One step of the contract: charge, fire, reset.

    Args:
        potential: v(t-1), (batch, ...).
        current: I(t) + beta(t), (batch, ...).
        neuron: The layer.

    Returns:
        What each neuron fired, before any is silenced, as 0 or 1 in the potential's dtype; and v(t).
    """
    charged = potential + current
    fired = charged > neuron.threshold if neuron.strict else charged >= neuron.threshold
    spike = fired.to(charged.dtype)
    if neuron.v_reset is None:
        return spike, torch.addcmul(charged, spike, neuron.threshold, value=-1)
    return spike, torch.where(fired, neuron.v_reset, charged)


def current_at(currents: Sequence[Tensor], t: int, neuron: NeuronTensors) -> Tensor:
    """I + beta of the step with index t = 0, 1, ...: (batch, ...).

    Args:
        currents: (batch, ...) of each step, or of one if the current is the same at every step.
        t: Which step.
        neuron: The layer.
    """
    current = currents[t if len(currents) > 1 else 0]
    if neuron.bias is None or t >= len(neuron.bias):
        return current
    return current + neuron.bias[t].reshape(-1, *[1] * (current.ndim - 2))


def advance(potential: Tensor, current: Tensor, neuron: NeuronTensors, spike: Tensor) -> None:
    """One step of the contract in place: the numbers of `step`, and no memory beside.

    Args:
        potential: v(t-1), (batch, ...), which becomes v(t).
        current: I(t) + beta(t), (batch, ...).
        neuron: The layer.
        spike: (batch, ...) of the potential's dtype, which becomes what each neuron fired, as 0 or 1.
    """
    potential += current
    compare = torch.gt if neuron.strict else torch.ge
    compare(potential, neuron.threshold, out=spike)
    if neuron.v_reset is None:
        potential.addcmul_(spike, neuron.threshold, value=-1)
    else:
        potential.copy_(torch.where(spike.bool(), neuron.v_reset, potential))


def sample_blocks(currents: Tensor) -> list[slice]:
    """Parts of the batch whose arrays stay in a processor's cache; all of it on other devices.

    Args:
        currents: (steps, batch, ...).
    """
    samples = currents.shape[1]
    if currents.device.type != "cpu" or samples == 0:
        return [slice(0, samples)]
    size = max(1, _CACHED // max(1, currents[0, 0].numel()))
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def integrate_and_fire(
    currents: Tensor,
    steps: int,
    neuron: NeuronTensors,
    *,
    record_potentials: bool = False,
    overwrite: bool = False,
) -> Run:
    """Runs a layer from v_init for `steps` steps.

    Args:
        currents: I, (steps, batch, ...), or (1, batch, ...) if it is the same at every step.
        steps: T.
        neuron: The layer.
        record_potentials: Whether to keep v(t), after the reset.
        overwrite: Whether the spikes may take the place of the currents, which are lost then: memory that is written
            for the first time costs more than the sums.

    Returns:
        The spikes that leave the layer, and v(1..T) if asked for.
    """
    batch = currents.shape[1:]
    if overwrite and len(currents) >= steps:
        spikes = currents[:steps]
    else:
        spikes = torch.empty_like(currents[:steps].expand(steps, *batch))
    potentials = torch.empty_like(spikes) if record_potentials else None
    residual = torch.empty_like(currents[0]).copy_(neuron.v_init)
    for block in sample_blocks(currents):
        # A view takes as long as a small block's sum: all at once.
        part, potential, fired = currents[:, block].unbind(), residual[block], spikes[:, block].unbind()
        for t in range(steps):
            advance(potential, current_at(part, t, neuron), neuron, fired[t])
            if potentials is not None:
                potentials[t, block] = potential
    if neuron.silent is not None:
        # Filling where a boolean says so takes ten times as long as a product.
        spikes *= neuron.silent.logical_not().to(spikes.dtype)
    return Run(spikes, residual, potentials)


def count_spikes(currents: Tensor, steps: int, neuron: NeuronTensors, *, added: Tensor | float = 0.0) -> Tensor:
    """How often each neuron fires in a run of `integrate_and_fire`, (batch, ...), without its spikes.

    Args:
        currents: I, (steps, batch, ...), or (1, batch, ...) if it is the same at every step; left as they are.
        steps: T.
        neuron: The layer.
        added: A current beside that, the same for all samples and steps: (...) or one number.
    """
    counts = torch.zeros_like(currents[0])
    for block in sample_blocks(currents):
        part = [current + added for current in currents[:, block].unbind()]
        potential = torch.empty_like(part[0]).copy_(neuron.v_init)
        fired = torch.empty_like(potential)
        for t in range(steps):
            advance(potential, current_at(part, t, neuron), neuron, fired)
            counts[block] += fired
    if neuron.silent is not None:
        counts *= neuron.silent.logical_not().to(counts.dtype)
    return counts
