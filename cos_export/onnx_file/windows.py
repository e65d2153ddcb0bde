"""A layer of the layer-wise schedule in ONNX: one charge for the whole window, and the spikes from their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cos_export.network import NeuronSpec
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.neurons import silencer, threshold_of

__all__ = ["WindowValues", "fire_in_window"]


@dataclass(frozen=True)
class WindowValues:
    """What a layer sends on, after silencing.

    Attributes:
        counts: The number of spikes in the window, (batch, ...) float32, which the next synapses take.
        fired: The spikes of the window, (steps, batch, ...) bool, under the name `spikes/<layer>`.
    """

    counts: str
    fired: str


def fire_in_window(builder: GraphBuilder, name: str, spec: NeuronSpec, current: str, steps: int) -> WindowValues:
    """Appends the charge, and the spikes that follow from it.

        m    = v_init + sum over the window of I(t) + beta(t)
        n    = clip(floor(m / theta), 0, T)        (> in place of >=: clip(ceil(m / theta) - 1, 0, T))
        s(k) = 1 if n >= k else 0

    The order of operations is that of `cos_export.simulation.layerwise`, so that equal currents give equal spikes.

    Args:
        builder: The graph.
        name: The layer.
        spec: Its neurons.
        current: The sum over the window of I(t), (batch, ...).
        steps: T.
    """
    start = builder.constant(f"v_init/{name}", np.asarray(spec.v_init, np.float32)[np.newaxis], reserved=True)
    bias = spec.bias_over_window(steps)
    if bias is not None:
        start = builder.add("Add", [start, builder.constant(f"bias/{name}", bias, reserved=True)], f"{name}/start")
    charge = builder.declare(builder.add("Add", [current, start], f"{name}/charge"), ("batch", *spec.shape))
    ratio = charge
    threshold = builder.constant(f"threshold/{name}", threshold_of(spec), reserved=True)
    if not bool((spec.threshold == 1).all()):
        ratio = builder.add("Div", [charge, threshold], f"{name}/ratio")
    if spec.condition == ">=":
        whole = builder.add("Floor", [ratio], f"{name}/whole")
    else:
        one = builder.constant(f"{name}/one", np.array(1, np.float32))
        whole = builder.add("Sub", [builder.add("Ceil", [ratio], f"{name}/ceiling"), one], f"{name}/whole")
    least = builder.constant(f"{name}/none", np.array(0, np.float32))
    most = builder.constant(f"{name}/all", np.array(steps, np.float32))
    counts = builder.add("Clip", [whole, least, most], f"{name}/counts")
    speaks = silencer(builder, name, spec)
    if speaks is not None:
        counts = builder.add("Mul", [counts, speaks.number], f"{name}/sent")
    number = np.arange(1, steps + 1, dtype=np.float32).reshape(-1, *[1] * (1 + len(spec.shape)))
    numbers = builder.constant(f"{name}/numbers", number)
    fired = builder.add("GreaterOrEqual", [counts, numbers], f"spikes/{name}", reserved=True)
    return WindowValues(counts, fired)
