"""`quantise`: a trained network as integers that every backend computes alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.bounds import MAX_STEPS, MOST_SAMPLES
from cos_export.datasets import Images, image_array
from cos_export.device import resolve_device
from cos_export.errors import InputError, NetworkError, ResolutionWarning
from cos_export.network import (
    FloatArray,
    NeuronSpec,
    Quantisation,
    SpikingNetwork,
    check_held_throughout,
    check_network,
    held_images,
    with_normalisation_of,
)
from cos_export.network.node_facts import facts
from cos_export.numerics import INPUT_BITS, WEIGHT_BITS, input_ranges
from cos_export.progress import Progress, silent
from cos_export.quantisation.fitting import fitted_synapse
from cos_export.quantisation.groups import Group, fold_averages, free_name, groups, with_carriers
from cos_export.quantisation.ranges import check_ranges
from cos_export.quantisation.resolution import coarse_layers
from cos_export.quantisation.scales import Rounding, Scales, arrivals, best_scale, channel_thresholds, rounded_synapse
from cos_export.quantisation.splitting import parts_allowed, split
from cos_export.simulation.fixed_point import half_integers
from cos_export.whole_number import whole_number

__all__ = ["SAMPLES", "quantise"]

SAMPLES = 64
"""Images on which scales are compared and weights fitted, unless the user says otherwise."""

_BEHIND_WEIGHTS = ((7, 31), (7, 15), (7, 7), (3, 7), (3, 3), (2, 2), (1, 1))
"""The last choices of `_inner_weights`, of which the second number is for the weights behind."""


def _inner_weights(largest: int) -> tuple[tuple[int, int], ...]:
    """What the largest weight may be where another synapse follows at once, and behind it: the first that fits.

    The integers of two synapses in a row multiply, and 24 bits do not hold many products of three numbers of 8.
    """
    halved = [(inner, largest) for shift in range(6) if (inner := largest >> shift) > 2]
    return (*halved, *(pair for pair in _BEHIND_WEIGHTS if max(pair) < largest))


def quantise(
    network: SpikingNetwork,
    images: Images,
    *,
    steps: int | None = None,
    per_channel: bool = False,
    power_of_two: bool = False,
    even_weights: bool = False,
    weight_bits: int = WEIGHT_BITS,
    samples: int = SAMPLES,
    device: str | torch.device = "auto",
    progress: Progress = silent,
) -> SpikingNetwork:
    """Makes the network of integers that is closest to a network of float32 numbers.

    With one scale u for each layer (what 1 stands for in its potentials) and the scale of a synapse's input,
    u_in = 1 for spikes and input_scale for images, and weights of b bits,

        w_int = clip(round(w u_in / u), -2^(b-1), 2^(b-1) - 1)     b_int = round(b / u)     theta_int = theta / u
        v_init_int = floor(v_init / u) + 1/2

    u is chosen so that theta / u is an integer and the squared error of the layer's currents over the images is least.
    Then each weight may go to the other of the two integers beside it, and the bias further, where that brings the
    currents over the images closer (`cos_export.quantisation.fitting`).
    All synapses that feed a layer share its scale; those that feed the readout share readout_scale. Average pooling
    becomes sum pooling, and wherever a spike would be added without a weight it gets a synapse of weight 1 / u. The
    identity path of a residual becomes several synapses side by side if its weight takes more bits.

    Every sum stays below 2^24 in magnitude, so float32 holds it exactly, in whatever order it is added.

    Args:
        network: The network, of float32.
        images: As for `cos_export.simulate`; labels are left aside. The network takes on the normalisation of a
            `Dataset` if it has none.
        steps: T for which ranges are proved; by default what the network was calibrated for, or 1.
        per_channel: Whether each output channel of a layer may have a scale of its own, and so its own threshold. A
            layer that a residual's identity path reaches keeps one.
        power_of_two: Whether thresholds and the scales of input and readout are powers of two.
        even_weights: Whether weights are even.
        weight_bits: Of each weight, with its sign.
        samples: Images on which scales are compared and weights fitted; all serve to find the range of the input.
        device: Where to compute.
        progress: Told as it goes on.

    Returns:
        The network of integers. Calibrate it again: potentials that were tuned before are only rounded.

    Warns:
        ResolutionWarning: The integers of a layer are coarser than its levels (`cos_export.quantisation.resolution`).

    Raises:
        InputError: The network is quantised already, or the images do not fit.
        NetworkError: Weights of so many bits are not to be had, a layer cannot be written in integers, or its ranges
            do not fit; the message names it.
    """
    check_network(network)
    check_held_throughout(network)
    if network.quantisation is not None:
        raise InputError("The network is one of integers already.")
    samples = whole_number("samples", samples, 1, MOST_SAMPLES)
    steps = None if steps is None else whole_number("steps", steps, 1, MAX_STEPS)
    network = with_normalisation_of(network, images)
    array = held_images(network, images)
    prepared = with_carriers(fold_averages(network))
    # Spread over all, for images may come sorted by class.
    chosen = array[:: max(1, len(array) // samples)][:samples]
    inputs = arrivals(prepared, chosen, resolve_device(device))
    rounding, parts = Rounding(power_of_two, even_weights, weight_bits), groups(prepared)
    coding = _input_coding(image_array(images, network.normalisation), rounding)
    choices = _inner_weights(rounding.largest_weight)
    inner = any(group.inner for group in parts)
    behind = frozenset(name for group in parts if group.inner for name in group.readers)
    for largest in choices if inner else choices[:1]:
        work = _Work(prepared, coding, rounding, per_channel, largest, behind)
        for number, group in enumerate(_in_order(parts)):
            progress("quantising", number, len(parts))
            work.quantise_group(group, inputs)
        progress("quantising", len(parts), len(parts))
        result = work.network()
        try:
            check_ranges(result, steps or network.num_timesteps or 1)
        except NetworkError:
            if not inner or largest == choices[-1]:
                raise
        else:
            break
    for line in coarse_layers(network, result, steps or network.num_timesteps or 1):
        warnings.warn(line, ResolutionWarning, stacklevel=2)
    return result


def _in_order(parts: list[Group]) -> list[Group]:
    """The groups, each after those that give its producers their input scale.

    Raises:
        NetworkError: There is no such order.
    """
    ordered: list[Group] = []
    while len(ordered) < len(parts):
        known = {name for group in ordered for name in group.readers}
        ready = [group for group in parts if group not in ordered and known.issuperset(group.producers)]
        if not ready:
            names = ", ".join(name for group in parts if group not in ordered for name in group.producers)
            raise NetworkError(f"The scales of {names} depend on each other: the network has no form in integers.")
        ordered += ready
    return ordered


def _input_coding(images: FloatArray, rounding: Rounding) -> Quantisation:
    """Bits that reach from the least to the largest value, with a sign if one is negative."""
    signed, unsigned = input_ranges(INPUT_BITS)
    low, high = signed if float(images.min()) < 0 else unsigned
    largest = float(np.abs(images).max()) or float(high)
    scale = 2.0 ** np.ceil(np.log2(largest / high)) if rounding.power_of_two else largest / high
    return Quantisation(float(np.float32(scale)), low, high, weight_bits=rounding.weight_bits)


@dataclass
class _Work:
    """What has been decided so far.

    Attributes:
        before: The network in float32.
        coding: Of its input, and of its readout once that is decided.
        rounding: Of weights and scales.
        per_channel: Whether channels may have scales of their own.
        largest: What the largest weight becomes where another synapse follows, and behind it.
        behind: The nodes that take what a synapse gives, with no neurons between.
    """

    before: SpikingNetwork
    coding: Quantisation
    rounding: Rounding
    per_channel: bool
    largest: tuple[int, int]
    behind: frozenset[str]

    def __post_init__(self) -> None:
        self.nodes: dict[str, nir.NIRNode] = dict(self.before.graph.nodes)
        self.neurons: dict[str, NeuronSpec] = {}
        self.input_scales: dict[str, float] = {}
        self.edges = [(str(source), str(target)) for source, target in self.before.graph.edges]

    def quantise_group(self, group: Group, inputs: Mapping[str, Tensor]) -> None:
        """Decides a group's scale, and rounds what has it."""
        scale = np.ones(1)
        if group.producers:
            scale = self._scale(group, inputs)
        elif group.edges:
            scale = np.array([self.coding.input_scale if group.edges[0][0] == self.before.input_name else 1.0])
        for name, parts in parts_allowed({name: self.nodes[name] for name in group.producers}).items():
            node, input_scale = self.nodes[name], self.input_scales[name]
            if parts > 1:
                whole = rounded_synapse(node, input_scale, scale, self.rounding, parts)
                self._place(name, split(whole, bits=self.rounding.weight_bits, even=self.rounding.even_weights))
            else:
                self._place(name, [fitted_synapse(node, input_scale, scale, self.rounding, inputs[name])])
        for name in group.readers:
            self.input_scales[name] = float(scale[0])
        for name in group.layers:
            self.neurons[name] = _rounded_neurons(self.before.neurons[name], scale)
            self.nodes[name] = _node(self.neurons[name], self.before.graph.nodes[name])
        if group.readout:
            self.coding = replace(self.coding, readout_scale=float(np.float32(scale[0])))

    def _place(self, name: str, parts: list[nir.NIRNode]) -> None:
        """Puts a node in its place, and what it was split into beside it."""
        self.nodes[name] = parts[0]
        wires = [edge for edge in self.edges if name in edge]
        for part in parts[1:]:
            beside = free_name(self.nodes, name)
            self.nodes[beside] = part
            self.edges += [(beside if a == name else a, beside if b == name else b) for a, b in wires]

    def _scale(self, group: Group, inputs: Mapping[str, Tensor]) -> Scales:
        nodes = {name: self.nodes[name] for name in group.producers}
        threshold, by_channel, (inner, behind) = None, False, self.largest
        # What carries a spike past a convolution takes more synapses side by side the finer the scale is, and where
        # channels differ it is no longer one number, which is quick to multiply by.
        one = any(parts > 1 for parts in parts_allowed(nodes).values())
        if len(group.layers) == 1 and not group.readout:
            others = [name for name in group.readers if name not in group.layers]
            by_channel = all(facts(self.nodes[name]).kind == "pooling" for name in others)
            threshold = channel_thresholds(self.before.neurons[group.layers[0]].threshold, single=not by_channel)
            by_channel = by_channel and threshold is not None
        return best_scale(
            nodes,
            self.input_scales,
            inputs,
            threshold,
            self.rounding,
            per_channel=self.per_channel and by_channel and not one,
            largest=inner if group.inner else behind if self.behind.intersection(group.producers) else None,
        )

    def network(self) -> SpikingNetwork:
        """The network of integers."""
        graph = nir.NIRGraph(self.nodes, self.edges, metadata=self.before.graph.metadata, type_check=False)
        return replace(self.before, graph=graph, neurons=self.neurons, quantisation=self.coding)


def _rounded_neurons(spec: NeuronSpec, scale: Scales) -> NeuronSpec:
    channels = np.broadcast_to(scale, spec.shape[0])
    column = channels.reshape(-1, *[1] * (len(spec.shape) - 1))
    strict = spec.condition == ">"

    def half(values: FloatArray) -> FloatArray:
        return half_integers(np.asarray(values / column, np.float32), strict=strict)

    def whole(values: NDArray[np.float64]) -> FloatArray:
        return np.asarray(np.rint(values), np.float32)

    return replace(
        spec,
        threshold=np.maximum(whole(spec.threshold / column), np.float32(1)),
        v_init=half(spec.v_init),
        v_reset=None if spec.v_reset is None else half(spec.v_reset),
        bias=None if spec.bias is None else whole(spec.bias / channels),
        scale=np.array(channels),
    )


def _node(spec: NeuronSpec, node: nir.IF) -> nir.IF:
    reset = np.zeros_like(spec.threshold) if spec.v_reset is None else spec.v_reset
    return nir.IF(np.ones_like(spec.threshold), spec.threshold, reset, metadata=node.metadata)
