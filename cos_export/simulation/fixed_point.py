"""Fixed point at run time: images as integers, and potentials that never tie with a threshold."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.errors import InputError, NetworkError
from cos_export.network import FloatArray, NeuronSpec, Quantisation, SpikingNetwork
from cos_export.network.graph import with_attributes

__all__ = [
    "LARGEST_POTENTIAL",
    "LARGEST_START",
    "check_potentials",
    "half_integers",
    "input_gain",
    "quantise_input",
    "readout_factors",
    "round_to_half_integers",
    "start_potentials",
]


LARGEST_POTENTIAL = 2**23 - 1
"""Potentials have 24 bits with their sign, and saturate, as on Loihi 2; half-integers below it are float32 numbers."""

LARGEST_START = 2.0**22 - 0.5
"""What a sample's own initial potential may be at most: it leaves half of the 24 bits to what the steps add."""


def check_potentials(layer: str, potentials: Tensor, quantisation: Quantisation | None) -> None:
    """Refuses potentials of integers beyond 24 bits, where targets saturate, or sums in float32 are rounded.

    Args:
        layer: Whose they are.
        potentials: What is left after the last step, which is where one that runs away is farthest.
        quantisation: Of the network; one of float32 has no such bound.

    Raises:
        NetworkError: One is.
    """
    if quantisation is not None and bool((potentials.abs() > LARGEST_POTENTIAL).any()):
        raise NetworkError(
            f"The potentials of layer {layer!r} leave the 24 bits that they have in integers, and no two targets go on "
            "alike from there. Run fewer steps, or quantise the network for as many as you run (steps=)."
        )


def input_gain(quantisation: Quantisation) -> np.float32:
    """What images are multiplied by, float32(1 / input_scale): one product rounds alike everywhere, a division may not.

    (PyTorch divides by a number on a GPU by multiplying with its rounded inverse.)
    """
    return np.float32(1.0 / quantisation.input_scale)


def readout_factors(quantisation: Quantisation, steps: int) -> FloatArray:
    """What the sum of the first t outputs is multiplied by for the logits of step t, t = 1..steps: (steps,).

        logits(t) = float32(sum of the first t outputs * float32(readout_scale / t))

    The sum is exact, and one product rounds alike everywhere; a division by t does not.
    """
    return (quantisation.readout_scale / np.arange(1, steps + 1, dtype=np.float64)).astype(np.float32)


def quantise_input(images: Tensor, quantisation: Quantisation | None) -> Tensor:
    """The integers that a network of `quantisation` takes for `images`, in their dtype; without one, the images.

        x = clip(round(image * float32(1 / input_scale)), input_minimum, input_maximum)     half to even

    Args:
        images: (samples, ...), float32 or float32 numbers in float64.
        quantisation: Of the network.
    """
    if quantisation is None:
        return images
    rounded = torch.round(images.to(torch.float32) * float(input_gain(quantisation)))
    return rounded.clamp_(quantisation.input_minimum, quantisation.input_maximum).to(images.dtype)


def half_integers(potentials: FloatArray, *, strict: bool = False) -> FloatArray:
    """The half-integers that start the same spikes as `potentials` if thresholds and currents are integers.

    m(t) - v(0) is an integer then, so for an integer theta every v(0) in [k, k + 1) gives m(t) >= theta at the same
    steps, and k + 1/2 among them. With m > theta it is (k - 1, k], and k - 1/2. From k + 1/2 no m(t) equals theta, so
    both comparisons agree, and an integer target may keep k with >=.
    """
    whole = np.ceil(potentials) - 0.5 if strict else np.floor(potentials) + 0.5
    return np.asarray(whole, np.float32)


def start_potentials(potentials: Tensor, quantisation: Quantisation | None, *, strict: bool) -> Tensor:
    """What a run starts from where a sample's own calibration asks for `potentials`.

    In a network of integers half-integers (`half_integers`), at most `LARGEST_START`: the calibration of a saturated
    neuron may ask for more. Elsewhere they are what is asked for.

    Args:
        potentials: (batch, ...).
        quantisation: Of the network.
        strict: Whether the layer fires above its threshold only.
    """
    if quantisation is None:
        return potentials
    reached = potentials.clamp(-LARGEST_START, LARGEST_START)
    return torch.ceil(reached) - 0.5 if strict else torch.floor(reached) + 0.5


def round_to_half_integers(network: SpikingNetwork) -> SpikingNetwork:
    """A network that was calibrated in integers as integers again; one of float32 as it is.

    Initial potentials go to half-integers, which changes no spike (`half_integers`). Thresholds and biases that a
    method has tuned are rounded to integers.

    Raises:
        InputError: A weight is not an integer any more: the method has changed weights, which are quantised before it.
    """
    if network.quantisation is None:
        return network
    nodes = {name: _integer_node(name, node) for name, node in network.graph.nodes.items()}
    graph = nir.NIRGraph(nodes, list(network.graph.edges), metadata=network.graph.metadata, type_check=False)
    return replace(network, graph=graph, neurons={name: _integer_spec(spec) for name, spec in network.neurons.items()})


def _integer_spec(spec: NeuronSpec) -> NeuronSpec:
    strict = spec.condition == ">"
    return replace(
        spec,
        threshold=np.maximum(_whole(spec.threshold), np.float32(1)),
        v_init=half_integers(spec.v_init, strict=strict),
        v_reset=None if spec.v_reset is None else half_integers(spec.v_reset, strict=strict),
        bias=None if spec.bias is None else _whole(spec.bias),
    )


def _integer_node(name: str, node: nir.NIRNode) -> nir.NIRNode:
    for field in ("weight", "scale"):
        value = getattr(node, field, None)
        if value is not None and not np.array_equal(value, _whole(value)):
            raise InputError(
                f"Node {name!r} has weights that are not integers: the calibration has changed them. Use such a method "
                "before the network is quantised, or another one for integers."
            )
    if getattr(node, "bias", None) is None:
        return node
    return with_attributes(node, bias=_whole(node.bias))


def _whole(values: object) -> NDArray[np.float32]:
    return np.rint(np.asarray(values, np.float32)).astype(np.float32)
