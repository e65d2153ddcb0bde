"""How windows slide, as attributes of ONNX's operators."""

from __future__ import annotations

from typing import Any

from cos_export.network.graph import Convolution, Pooling

__all__ = ["convolution_attributes", "sum_attributes", "window_attributes"]


def convolution_attributes(geometry: Convolution) -> dict[str, Any]:
    """Of Conv and ConvInteger."""
    return {
        "kernel_shape": geometry.kernel,
        "strides": geometry.stride,
        "pads": [before for before, _ in geometry.padding] + [after for _, after in geometry.padding],
        "dilations": geometry.dilation,
        "group": geometry.groups,
    }


def window_attributes(window: Pooling) -> dict[str, Any]:
    """Of AveragePool."""
    return {"kernel_shape": window.kernel, "strides": window.stride, "pads": window.padding * 2}


def sum_attributes(window: Pooling, channels: int) -> dict[str, Any]:
    """Of Conv and ConvInteger whose kernels of ones add up the windows of each channel."""
    return window_attributes(window) | {"group": channels}
