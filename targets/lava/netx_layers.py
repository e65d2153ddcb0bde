"""The entries of a netx file for one synapse and one layer of neurons, within what netx and Lava compute exactly."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import NeuronSpec
from cos_export.network.graph import Shape, convolution, pooling
from cos_export.numerics import signed_range

__all__ = ["NETX_BITS", "conv_layer", "dense_layer", "neuron_group", "pooled", "readout_group"]

Integers = NDArray[np.int64]

NETX_BITS = 8
"""Of a weight."""

_LARGEST = 2**23
"""Of currents, thresholds and potentials: they have 24 bits."""

_LARGEST_BIAS = 2**15
"""What Lava's neurons hold. The chip has 13 bits and an exponent, which netx fixes."""


def pooled(node: nir.SumPool2d, shape: Shape) -> tuple[int, int]:
    """The window of a sum over (channels, height, width), if it tiles the plane.

    Raises:
        NetworkError: It does not.
    """
    window = pooling(node)
    tiles = all(size % length == 0 for size, length in zip(shape[1:], window.kernel, strict=True))
    if window.stride != window.kernel or any(window.padding) or not tiles:
        raise NetworkError("only sums over windows that tile the plane can be folded into the synapse that follows.")
    return window.kernel[0], window.kernel[1]


def conv_layer(node: nir.Conv2d, window: tuple[int, int], inputs: tuple[int, int]) -> dict[str, Any]:
    """A convolution of sums over `window`, as a convolution of what is summed.

    Each weight is repeated over the window: a sum over (h, w) before a kernel of (p, q) with stride s and padding b is
    a kernel of (p h, q w) with stride (s h, s w) and padding (b h, b w).

    Args:
        node: The convolution.
        window: Of the sum in front of it; (1, 1) if there is none.
        inputs: The least and the largest value that may arrive.

    Raises:
        NetworkError: netx has no such convolution, or a number is out of its range.
    """
    geometry = convolution(node)
    weight = _weights(node.weight)
    if any(before != after for before, after in geometry.padding):
        raise NetworkError("its padding differs before and after.")
    stride, padding, dilation = geometry.stride, tuple(before for before, _ in geometry.padding), geometry.dilation
    if window != (1, 1):
        weight = np.kron(_dilated(weight, geometry.dilation), np.ones(window, np.int64))
        stride, padding, dilation = (
            (stride[0] * window[0], stride[1] * window[1]),
            (padding[0] * window[0], padding[1] * window[1]),
            (1, 1),
        )
    _check_currents(weight, inputs)
    return {
        "type": "conv",
        "weight": weight,
        "bias": _biases(node.bias, len(weight)),
        "stride": np.array(stride),
        "padding": np.array(padding),
        "dilation": np.array(dilation),
        "groups": geometry.groups,
    }


def _dilated(weight: Integers, dilation: Shape) -> Integers:
    """The kernel with the zeros that dilation puts between its weights."""
    rows, columns = (spread * (size - 1) + 1 for size, spread in zip(weight.shape[2:], dilation, strict=True))
    wide = np.zeros((*weight.shape[:2], rows, columns), np.int64)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def dense_layer(
    weight: NDArray[Any], bias: NDArray[Any] | None, window: tuple[int, int], summed: Shape, inputs: tuple[int, int]
) -> dict[str, Any]:
    """A linear layer of flattened sums over `window`, as one of what is summed.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        window: Of the sum in front of it; (1, 1) if there is none.
        summed: The shape that arrives, before the sum and the flattening.
        inputs: The least and the largest value that may arrive.

    Raises:
        NetworkError: A number is out of netx's range.
    """
    matrix = _weights(weight)
    if window != (1, 1):
        channels, height, width = summed
        planes = matrix.reshape(len(matrix), channels, height // window[0], width // window[1])
        matrix = np.kron(planes, np.ones(window, np.int64)).reshape(len(matrix), -1)
    if matrix.max() <= 0:
        # netx scales a matrix of one sign to the full range, to -256 at the negative end, where Lava cuts it to -255.
        raise NetworkError("none of its weights is positive, and netx changes such weights.")
    _check_currents(matrix, inputs)
    return {"type": "dense", "weight": matrix, "bias": _biases(bias, len(matrix))}


def neuron_group(spec: NeuronSpec) -> dict[str, Any]:
    """A layer of neurons: no leak, no memory of the current, one threshold.

    Raises:
        NetworkError: netx has no such neurons, or a number is out of its range.
    """
    theta = float(spec.threshold.flat[0])
    if not (spec.threshold == spec.threshold.flat[0]).all():
        raise NetworkError("its neurons have different thresholds, and netx knows one for each layer.")
    if spec.reset != "subtract" or spec.bias is not None or spec.silent is not None:
        raise NetworkError("netx knows no reset to a value, no bias for each step, and no silent neurons.")
    if theta >= _LARGEST or theta != round(theta):
        raise NetworkError(f"its threshold is {theta:.10g}, and must be an integer up to {_LARGEST - 1}.")
    strict = spec.condition == ">"
    start = (np.ceil(spec.v_init) - 1 if strict else np.floor(spec.v_init)).astype(np.int64)
    if np.abs(start).max(initial=0) >= _LARGEST:
        raise NetworkError(f"an initial potential is {np.abs(start).max()}, and they end at {_LARGEST - 1}.")
    return {**_group(int(theta)), "v_init": start}


def readout_group() -> dict[str, Any]:
    """The neurons that stand for the Output: at a threshold that is of no meaning."""
    return _group(_LARGEST - 1)


def _group(theta: int) -> dict[str, Any]:
    return {"type": "CUBA", "iDecay": 4096, "vDecay": 0, "vThMant": theta, "refDelay": 1, "gradedSpike": False}


def _whole(values: Any, what: str) -> Integers:
    array = np.asarray(values, np.float64)
    if not np.array_equal(array, np.rint(array)):
        raise NetworkError(f"{what} holds numbers that are not integers.")
    return array.astype(np.int64)


def _weights(values: Any) -> Integers:
    weight = _whole(values, "weight")
    least, largest = signed_range(NETX_BITS)
    if weight.min() < least or weight.max() > largest:
        raise NetworkError(
            f"its weights go from {weight.min()} to {weight.max()}, and netx's from {least} to {largest}."
        )
    return weight


def _biases(values: Any, count: int) -> Integers:
    bias = np.array(np.broadcast_to(_whole(0 if values is None else values, "bias"), (count,)))
    if bias.min() < -_LARGEST_BIAS or bias.max() >= _LARGEST_BIAS:
        raise NetworkError(
            f"its biases go from {bias.min()} to {bias.max()}, and netx's from {-_LARGEST_BIAS} to {_LARGEST_BIAS - 1}."
        )
    return bias


def _check_currents(weight: Integers, inputs: tuple[int, int]) -> None:
    """Refuses currents that could pass the end of Lava's range, where they wrap around."""
    rows = weight.reshape(len(weight), -1)
    low, high = inputs
    most = np.maximum(rows * low, rows * high).sum(axis=1).max()
    least = np.minimum(rows * low, rows * high).sum(axis=1).min()
    if max(most, -least) >= _LARGEST:
        raise NetworkError(f"its currents may go from {least} to {most}, and Lava's wrap around at {_LARGEST}.")
