"""`quantise`: a trained network as integers that every backend computes alike."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from cos_export.bounds import MAX_STEPS, MOST_SAMPLES
from cos_export.datasets import ImageArray, Images, image_array
from cos_export.device import resolve_device
from cos_export.errors import InputError, ResolutionWarning
from cos_export.network import (
    Quantisation,
    SpikingNetwork,
    check_held_throughout,
    check_network,
    held_images,
    with_normalisation_of,
)
from cos_export.numerics import INPUT_BITS, WEIGHT_BITS, input_ranges
from cos_export.progress import Progress, silent
from cos_export.quantisation.counting import Scales
from cos_export.quantisation.current_errors import JUDGED, current_errors
from cos_export.quantisation.groups import fold_averages, groups, in_order, with_carriers, without_dead_ends
from cos_export.quantisation.headroom import finest_scales
from cos_export.quantisation.integer_nodes import IntegerNodes
from cos_export.quantisation.intervals import Interval, input_interval
from cos_export.quantisation.mirroring import with_copies_of_mirrored
from cos_export.quantisation.ranges import check_ranges
from cos_export.quantisation.resolution import coarse_layers
from cos_export.quantisation.scales import Rounding, arrivals
from cos_export.quantisation.separating import with_separate_readers
from cos_export.whole_number import whole_number

__all__ = ["SAMPLES", "quantise"]

SAMPLES = 64
"""Images on which scales are compared and weights fitted, unless the user says otherwise."""

_SLACK = 1.01
"""Of the scales in which sums fit before weights are rounded, which makes some of them larger."""

_RETRIES = 6
"""How often what does not fit after rounding gets a coarser scale."""


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
    network = with_normalisation_of(without_dead_ends(network), images)
    array = held_images(network, images)
    rounding = Rounding(power_of_two, even_weights, weight_bits)
    coding = _input_coding(image_array(images, network.normalisation), rounding)
    if per_channel or power_of_two or even_weights:
        network = with_copies_of_mirrored(network)
    prepared = with_separate_readers(with_carriers(fold_averages(network)), coding.input_scale, rounding.largest_weight)
    # Spread over all, for images may come sorted by class.
    chosen = array[np.arange(0, len(array), max(1, len(array) // samples))[:samples]]
    inputs = arrivals(prepared, chosen, resolve_device(device))
    parts = in_order(groups(prepared))
    proved = steps or network.num_timesteps or 1
    values = input_interval(coding, network.input_shape[0])
    images_reach = Interval(*(coding.input_scale * end for end in values))
    finest = {name: _SLACK * scale for name, scale in finest_scales(prepared, images_reach, proved).items()}
    for attempt in range(_RETRIES + 1):
        work = IntegerNodes(prepared, coding, rounding, per_channel, parts, finest)
        for number in range(len(parts)):
            progress("quantising", number, len(parts))
            work.quantise_group(number, inputs)
        progress("quantising", len(parts), len(parts))
        result = work.network()
        beyond = _beyond(result, work.coding, proved)
        if not beyond or attempt == _RETRIES:
            break
        finest |= {name: finest[name] * factor for name, factor in beyond.items() if name in finest}
    check_ranges(result, proved)
    errors = current_errors(network, result, chosen[:JUDGED], proved, resolve_device(device))
    for line in coarse_layers(network, result, proved, errors):
        warnings.warn(line, ResolutionWarning, stacklevel=2)
    return result


_PART = 64
"""Images that are looked at together for their range."""


def _input_coding(images: ImageArray, rounding: Rounding) -> Quantisation:
    """Bits that reach from the least to the largest value, with a sign if one is negative."""
    signed, unsigned = input_ranges(INPUT_BITS)
    least, most = 0.0, 0.0
    for start in range(0, len(images), _PART):
        part = images[start : start + _PART]
        least, most = min(least, float(part.min())), max(most, float(part.max()))
    low, high = signed if least < 0 else unsigned
    largest = max(-least, most) or float(high)
    scale = 2.0 ** np.ceil(np.log2(largest / high)) if rounding.power_of_two else largest / high
    return Quantisation(float(np.float32(scale)), low, high, weight_bits=rounding.weight_bits)


def _beyond(network: SpikingNetwork, quantisation: Quantisation, steps: int) -> dict[str, Scales]:
    """By node, how many times coarser than it is a scale must be for its sums to fit; for those alone that do not."""
    images = input_interval(quantisation, network.input_shape[0])
    needed = finest_scales(network, images, steps)
    return {name: np.maximum(_SLACK * factor, 1.0) for name, factor in needed.items() if factor.max() > 1}
