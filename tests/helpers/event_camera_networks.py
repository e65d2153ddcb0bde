"""Networks for event cameras as other tools write them to NIR files, rebuilt by hand with weights of their own.

Two channels of 34 x 34 pixels (N-MNIST), convolutions, sums over windows and linear layers with integrate-and-fire
neurons behind each. Weights are multiples of 1/8, so that sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import random_networks as build

__all__ = ["EVENT_CAMERA_FILES", "event_frames", "write_event_camera_file"]

SIZE = 34
STEPS = 5


@dataclass(frozen=True)
class EventCameraFile:
    """How one of the files is written.

    Attributes:
        pool: The type of its pools.
        linear: Whether its linear layers have no bias.
        classes_fire: Whether neurons stand behind the last synapse, and the Output takes their spikes.
        threshold: Of all neurons.
        r: Of all neurons; dt is 1 / r.
        shape_of_parameters: "full", or "one" number for all neurons of a layer.
        names: What the ends are called.
        v_reset: Whether the file has the field, which nir before 1.0.6 does not know.
        dt_said: Whether the graph's metadata say dt.
        dense: Whether a layer without convolutions takes the flattened input.
    """

    pool: Any = nir.SumPool2d
    linear: bool = False
    classes_fire: bool = True
    threshold: float = 1.0
    r: float = 1.0
    shape_of_parameters: str = "full"
    names: tuple[str, str] = ("input", "output")
    v_reset: bool = True
    dt_said: bool = False
    dense: bool = False


EVENT_CAMERA_FILES: Mapping[str, EventCameraFile] = {
    "as converted, biases of zero": EventCameraFile(),
    "linear layers without a bias": EventCameraFile(linear=True),
    "before v_reset was a field": EventCameraFile(v_reset=False),
    "ends called in and out": EventCameraFile(names=("in", "out"), linear=True, v_reset=False),
    "averages": EventCameraFile(pool=nir.AvgPool2d),
    "thresholds of 1.5, a readout of currents": EventCameraFile(threshold=1.5, classes_fire=False),
    "r = 1 / dt, dt in the file": EventCameraFile(r=1024.0, dt_said=True),
    "one number for all neurons": EventCameraFile(shape_of_parameters="one", threshold=0.75),
    "a multilayer perceptron": EventCameraFile(dense=True),
}


def event_frames(samples: int, seed: int = 0) -> Any:
    """Numbers of events, (samples, T, 2, 34, 34): mostly 0, of which each step has others."""
    return np.random.default_rng(seed).poisson(0.15, (samples, STEPS, 2, SIZE, SIZE)).astype(np.float32)


def write_event_camera_file(path: Path, chosen: EventCameraFile) -> None:
    """Writes one of the files."""
    rng = np.random.default_rng(11)
    layers: list[nir.NIRNode] = []
    shape: tuple[int, ...] = (2, SIZE, SIZE)
    if not chosen.dense:
        for outputs, kernel, stride, pooled in ((4, 5, 2, False), (4, 3, 1, True), (4, 3, 1, True)):
            convolution = build.conv2d(rng, shape[0], outputs, (kernel, kernel), stride=stride)
            convolution.input_shape = np.array(shape[1:])
            shape = (outputs, *((n + 2 - kernel) // stride + 1 for n in shape[1:]))
            layers += [convolution, _neurons(chosen, shape)]
            if pooled:
                layers.append(build.pool(chosen.pool))
                shape = (outputs, *(n // 2 for n in shape[1:]))
    layers.append(nir.Flatten(np.array(shape), 0, -1))
    width = int(np.prod(shape))
    for number, outputs in enumerate((16, 10)):
        weight = build.dyadic(rng, outputs, width, low=-4, high=4 if chosen.dense else 5)
        bias = build.dyadic(rng, outputs, low=-1, high=1)
        layers.append(nir.Linear(weight) if chosen.linear else nir.Affine(weight, bias))
        if number == 0 or chosen.classes_fire:
            layers.append(_neurons(chosen, (outputs,)))
        width = outputs
    first, last = chosen.names
    nodes = {
        first: nir.Input(np.array([2, SIZE, SIZE])),
        **{str(number): node for number, node in enumerate(layers)},
        last: nir.Output(np.array([10])),
    }
    metadata = {"dt": 1 / chosen.r} if chosen.dt_said else {}
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(nodes)), metadata=metadata, type_check=False), compression=None)
    if not chosen.v_reset:
        with h5py.File(path, "r+") as file:
            for node in file["node/nodes"].values():
                if "v_reset" in node:
                    del node["v_reset"]


def _neurons(chosen: EventCameraFile, shape: tuple[int, ...]) -> nir.IF:
    whole = shape if chosen.shape_of_parameters == "full" else (1,)
    return nir.IF(np.full(whole, chosen.r, np.float32), np.full(whole, chosen.threshold, np.float32))
