"""What 1 stands for in a layer: the scale whose rounding changes the layer's currents least."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.device import full_precision
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.node_facts import bias_of, facts, weight_field
from cos_export.network.wires import Wires
from cos_export.numerics import WEIGHT_BITS, signed_range
from cos_export.quantisation.counting import Scales, expanded, largest_weights, weights_by_input
from cos_export.quantisation.mirroring import multiples
from cos_export.quantisation.splitting import SMALLEST_FRACTION, parts_allowed, widest_scale
from cos_export.simulation.activations import clipped_activation
from cos_export.simulation.neuron import neuron_tensors
from cos_export.simulation.synapses import synapse

__all__ = [
    "LARGEST_THRESHOLD",
    "Rounding",
    "arrivals",
    "best_scale",
    "channel_thresholds",
    "rounded_synapse",
    "squared_error",
]

LARGEST_THRESHOLD = 2**22 - 1
"""Thresholds are kept below this by a coarser scale, so that a potential of 24 bits holds two of them."""

_WITHOUT_WEIGHTS = 2**17 - 1
"""The threshold of a layer whose weights are all 0, which has nothing else to go by."""

_FRACTIONS = np.geomspace(SMALLEST_FRACTION, 1.0, 14)
"""Of the scale in which the largest weight is the largest that its bits hold: below 1 the largest weights are clipped,
and the others finer."""

_FINE_FRACTIONS = np.geomspace(0.95, 1.05, 9)
"""Of the best of those, which lie a tenth apart."""

_OCTAVES = np.array([0.25, 0.5, 1.0, 2.0])


@dataclass(frozen=True)
class Rounding:
    """How weights become integers.

    Attributes:
        power_of_two: Whether a threshold is a power of two (and the readout's scale), so that the scale of the weights
            in multiples of the threshold is one, too.
        even_weights: Whether weights are even, as Loihi 2 holds weights of mixed sign.
        weight_bits: Of each weight, with its sign.
    """

    power_of_two: bool = False
    even_weights: bool = False
    weight_bits: int = WEIGHT_BITS

    @property
    def largest_weight(self) -> int:
        """What its bits hold at most."""
        return signed_range(self.weight_bits)[1]

    def weights(self, values: NDArray[np.float64], parts: int = 1) -> NDArray[np.float64]:
        """The nearest integers that a weight can be, clipped to what `parts` synapses hold together."""
        step = 2.0 if self.even_weights else 1.0
        least, largest = signed_range(self.weight_bits)
        # Even ones, for each part must hold its share of a weight of either sign.
        together = float(largest - largest % 2) * parts
        low, high = (float(least), least + 2.0**self.weight_bits - step) if parts == 1 else (-together, together)
        return np.clip(step * np.rint(values / step), low, high)

    def beside(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The integers that a weight can be below and above each value: the same one twice where it is clipped."""
        step = 2.0 if self.even_weights else 1.0
        below = step * np.floor(values / step)
        return self.weights(below), self.weights(below + step)

    def scale(self, around: Scales, threshold: Scales | None, finest: Scales | float = 0.0) -> Scales:
        """A scale close to `around`, not below `finest`, in which `threshold`, if there is one, is an integer n.

        It is threshold / n. So a threshold is never rounded, and what its spikes stand for never changes.
        """
        around = np.maximum(around, finest)
        if threshold is None:
            if self.power_of_two:
                octave = np.rint(np.log2(around))
                around = 2.0 ** np.where(2.0**octave < finest, octave + 1, octave)
            return around.astype(np.float32).astype(np.float64)
        most = np.floor(threshold / np.maximum(finest, np.finfo(np.float64).tiny) * (1 + 1e-12))
        count = np.minimum(np.rint(threshold / around), most)
        if self.power_of_two:
            octave = np.rint(np.log2(threshold / around))
            count = 2.0 ** np.where(2.0**octave > most, octave - 1, octave)
        return np.asarray(threshold / np.maximum(count, 1.0))


def arrivals(network: SpikingNetwork, images: FloatArray, device: torch.device) -> dict[str, Tensor]:
    """What arrives at each weighted node, (samples, ...), with activations in place of spikes."""

    def move(array: object) -> Tensor:
        return torch.as_tensor(np.asarray(array)).to(device, torch.float32)

    wires: Wires[Tensor] = Wires(network)
    inputs: dict[str, Tensor] = {}
    with torch.no_grad(), full_precision():
        for name, parts in wires.walk():
            node = network.graph.nodes[name]
            arriving = torch.stack(parts).sum(0) if parts else move(images)
            if facts(node).weighted:
                inputs[name] = arriving
            if name in network.neurons:
                neuron = neuron_tensors(network.neurons[name], device, torch.float32)
                wires[name] = clipped_activation(name, neuron, arriving)
            else:
                wires[name] = synapse(node, move)(arriving)
    return inputs


def rounded_synapse(
    node: nir.NIRNode, input_scale: Scales | float, output_scale: Scales, rounding: Rounding, parts: int = 1
) -> nir.NIRNode:
    """A weighted node in integers.

        w_int = round(w * input_scale / output_scale)      b_int = round(b / output_scale)

    Args:
        node: The node.
        input_scale: What 1 stands for in its input: one number for each channel, or one in all.
        output_scale: What 1 stands for in its output.
        rounding: Of the weights.
        parts: Into how many nodes it may be split.
    """
    result, field = copy.copy(node), weight_field(node)
    weight = np.asarray(getattr(node, field), np.float64)
    scale = expanded(output_scale, len(weight))
    scaled = weight * weights_by_input(node, input_scale) / scale.reshape(-1, *[1] * (weight.ndim - 1))
    setattr(result, field, rounding.weights(scaled, parts).astype(np.float32))
    bias = bias_of(node)
    if bias is not None:
        result.bias = np.rint(np.broadcast_to(bias.astype(np.float64), scale.shape) / scale).astype(np.float32)
    return result


def best_scale(
    nodes: Mapping[str, nir.NIRNode],
    input_scales: Mapping[str, Scales],
    inputs: Mapping[str, Tensor],
    threshold: Scales | None,
    rounding: Rounding,
    *,
    per_channel: bool,
    finest: Scales | float = 0.0,
) -> Scales:
    """The scale in which the nodes that feed a layer change its currents least when they are rounded.

    Minimises, over the images at hand, the mean over samples of

        sum over nodes and neurons of (W_int x output_scale - W x + b_int output_scale - b)^2

    over scales from 0.3 to 1 of the one in which the largest weight is the largest that its bits hold, first widely and
    then closely spaced, but for those in which the sums do not fit. With `per_channel` each channel has its own
    minimum. Where a synapse may be split, the largest weight is that of the others.

    Args:
        nodes: Weighted nodes whose outputs are added, by name.
        input_scales: What 1 stands for in the input of each.
        inputs: What arrives at each, (samples, ...), not yet in integers.
        threshold: Of each channel, or one number, to be an integer in the scale; None if there is none.
        rounding: Of weights and scales.
        per_channel: Whether channels may have scales of their own.
        finest: The least scale in which the sums fit, for each channel or for all.

    Returns:
        One number for each channel of the threshold, or one in all.
    """
    channels = 1 if threshold is None else len(threshold)
    if threshold is not None:
        finest = np.maximum(finest, threshold / LARGEST_THRESHOLD)
    if not per_channel:
        finest = np.max(finest)
    parts = parts_allowed(nodes, input_scales)
    largest = {name: largest_weights(node, input_scales[name], per_channel=per_channel) for name, node in nodes.items()}
    widest = widest_scale({name: weights / rounding.largest_weight for name, weights in largest.items()}, parts)
    floor = 1.0 if threshold is None else threshold / _WITHOUT_WEIGHTS
    widest = np.maximum(np.where(widest > 0, widest, floor), finest)
    best: Scales = np.broadcast_to(widest, channels)
    least = np.full(channels, np.inf)
    tried: set[bytes] = set()
    integral = multiples(largest, nodes, rounding.largest_weight)
    for fractions in [_OCTAVES] if rounding.power_of_two else [_FRACTIONS, _FINE_FRACTIONS, None]:
        candidates = integral if fractions is None else [best * fraction for fraction in fractions]
        for candidate in candidates:
            scale = rounding.scale(candidate, threshold, finest)
            if scale.tobytes() in tried:
                continue
            tried.add(scale.tobytes())
            errors = [
                squared_error(
                    node,
                    rounded_synapse(node, input_scales[name], scale, rounding, parts[name]),
                    input_scales[name],
                    scale,
                    inputs[name],
                )
                for name, node in nodes.items()
            ]
            total = np.sum(errors, axis=0) if per_channel else np.full(channels, sum(float(e.sum()) for e in errors))
            better = total < least
            best, least = np.where(better, scale, best), np.where(better, total, least)
    return best


def squared_error(
    node: nir.NIRNode, whole: nir.NIRNode, input_scale: Scales | float, output_scale: Scales, inputs: Tensor
) -> Scales:
    """The squared error of each channel of a node's output, a sum over neurons per sample, if it becomes `whole`.

    Args:
        node: The node.
        whole: In integers.
        input_scale: What 1 stands for in its input: one number for each channel, or one in all.
        output_scale: What 1 stands for in its output.
        inputs: What arrives at it, (samples, ...), not yet in integers.
    """
    change, field = copy.copy(node), weight_field(node)
    weight = np.asarray(getattr(node, field), np.float64)
    scale = expanded(output_scale, len(weight))
    column = scale.reshape(-1, *[1] * (weight.ndim - 1)) / weights_by_input(node, input_scale)
    setattr(change, field, np.asarray(getattr(whole, field), np.float64) * column - weight)
    bias = bias_of(node)
    if bias is not None:
        change.bias = whole.bias * scale - bias.astype(np.float64)

    def move(array: object) -> Tensor:
        return torch.as_tensor(np.asarray(array)).to(inputs.device, torch.float32)

    with torch.no_grad(), full_precision():
        off = synapse(change, move)(inputs).double().square().transpose(0, 1).flatten(1)
    return np.asarray((off.sum(1) / len(inputs)).cpu().numpy())


def channel_thresholds(threshold: FloatArray, *, single: bool) -> Scales | None:
    """The threshold of each channel (one number in all if `single`), or None if a channel has several."""
    flat = threshold.reshape(1 if single else len(threshold), -1).astype(np.float64)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None
