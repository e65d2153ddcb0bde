"""The two ends of a graph: images as the integers that a network takes, and the mean readout."""

from __future__ import annotations

import numpy as np

from cos_export.network import Quantisation
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.pruning import LOGITS
from cos_export.onnx_file.unrolling import IMAGES
from cos_export.simulation.fixed_point import input_gain, readout_factors

__all__ = ["mean_readout", "quantised_input"]

SUMS = "readout/sums"
"""What a network of integers has added up by each step."""


def quantised_input(builder: GraphBuilder, images: str, quantisation: Quantisation) -> str:
    """The integers of `cos_export.simulation.fixed_point.quantise_input`, operation by operation."""
    gain = builder.constant(f"{IMAGES}/gain", np.array(input_gain(quantisation), np.float32))
    low = builder.constant(f"{IMAGES}/minimum", np.array(quantisation.input_minimum, np.float32))
    high = builder.constant(f"{IMAGES}/maximum", np.array(quantisation.input_maximum, np.float32))
    scaled = builder.add("Mul", [images, gain], f"{IMAGES}/scaled")
    rounded = builder.add("Round", [scaled], f"{IMAGES}/rounded")
    return builder.add("Clip", [rounded, low, high], f"{IMAGES}/integers")


def mean_readout(
    builder: GraphBuilder, outputs: tuple[str, ...], steps: int, quantisation: Quantisation | None, classes: int
) -> None:
    """The mean of the first t outputs for each t, as the running sum over t, in the unit of the logits.

    Sums of integers are exact, and one product for each t follows: a division becomes a product with a rounded inverse
    in some runtimes, and then differs in the last bit.

    Args:
        builder: The graph, where the logits' name is reserved.
        outputs: What reaches the Output in each step, or once for all.
        steps: T.
        quantisation: Of a network of integers.
        classes: Axes of the readout of a sample.
    """
    total, sums = "", []
    for t in range(steps):
        value = outputs[t if len(outputs) > 1 else 0]
        total = value if t == 0 else builder.add("Add", [total, value], f"readout/t{t + 1}/sum")
        sums.append(total)
    if quantisation is None:
        builder.stack([_divided(builder, total, t + 1) for t, total in enumerate(sums)], LOGITS)
        return
    builder.reserve(SUMS)
    # The product stands behind the stack: one that follows a synapse is folded into its weights, which rounds anew.
    builder.stack(sums, SUMS)
    factors = readout_factors(quantisation, steps).reshape(-1, *[1] * (1 + classes))
    builder.add("Mul", [SUMS, builder.constant("readout/factors", factors)], LOGITS, reserved=True)


def _divided(builder: GraphBuilder, total: str, count: int) -> str:
    divisor = builder.constant(f"readout/t{count}/count", np.array(count, np.float32))
    return builder.add("Div", [total, divisor], f"readout/t{count}/mean")
