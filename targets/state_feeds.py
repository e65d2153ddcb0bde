"""What goes into an ONNX graph: images or frames, and the states of samples, which override the graph's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets import Images, in_memory
from cos_export.errors import InputError
from cos_export.network import FloatArray, SampleStates, SpikingNetwork, any_inputs, are_frames, check_inputs

__all__ = ["graph_images", "state_feeds"]


def graph_images(network: SpikingNetwork, images: Images, steps: int) -> FloatArray:
    """Images, or as many frames as the graph of a bundle has steps, where fewer of its steps are asked for.

    What it does in the steps after those is cut off, so frames of zero stand in for what is not given; under the
    layer-wise schedule they would count.

    Args:
        network: Of the bundle.
        images: As for `check_inputs`.
        steps: Those that are asked for.

    Raises:
        InputError: They do not fit the network, or are fewer than the graph of a layer-wise network takes.
    """
    known, array = network.num_timesteps or steps, in_memory(check_inputs(network, images, steps))
    if not are_frames(network, array) or steps >= known:
        return array
    whole = in_memory(any_inputs(network, images))[:, :known]
    missing = known - whole.shape[1]
    if missing and network.schedule == "layerwise":
        raise InputError(
            f"The bundle's layer-wise graph takes {known} frames for each sample, and got {whole.shape[1]}."
        )
    return np.pad(whole, ((0, 0), (0, missing), *[(0, 0)] * (whole.ndim - 2)))


def state_feeds(
    network: SpikingNetwork,
    needed: Mapping[str, tuple[int, ...]],
    overridable: Mapping[str, tuple[int, ...]],
    states: SampleStates | None,
    samples: int,
) -> dict[str, Any]:
    """The states of each sample that a graph takes, one array (samples, ...) each.

    Args:
        network: Whose own states stand in for those of layers of which nothing is said.
        needed: The shapes of what a run must give, without the batch axis, by name.
        overridable: Likewise of what it may give.
        states: What a per-sample method has set, or None.
        samples: N.

    Raises:
        InputError: The graph has no such states, or they have other shapes.
    """
    if states is None:
        return {}
    there, feeds = {**needed, **overridable}, {}
    for kind, values, dtype in (("v_init", states.v_init, np.float32), ("silent", states.silent, np.bool_)):
        for layer, value in values.items():
            name = f"{kind}/{layer}"
            if name not in there:
                layers = sorted(known.partition("/")[2] for known in there if known.startswith(f"{kind}/"))
                raise InputError(
                    f"The bundle's ONNX graph has no {kind} for layer {layer!r}; it has one for "
                    f"{', '.join(map(repr, layers)) or 'no layer'}. A method that sets states per sample needs a graph "
                    "that was exported for it."
                )
            array = np.ascontiguousarray(value, dtype)
            if array.shape != (samples, *there[name]):
                raise InputError(
                    f"{kind} of layer {layer!r} must have shape {(samples, *there[name])}, and has {array.shape}."
                )
            feeds[name] = array
    for name in needed:
        kind, _, layer = name.partition("/")
        if layer in network.neurons and name not in feeds:
            feeds[name] = np.repeat(_own(network, kind, layer)[np.newaxis], samples, axis=0)
    return feeds


def _own(network: SpikingNetwork, kind: str, layer: str) -> NDArray[Any]:
    spec = network.neurons[layer]
    if kind == "v_init":
        return np.asarray(spec.v_init, np.float32)
    return np.zeros(spec.shape, np.bool_) if spec.silent is None else np.asarray(spec.silent, np.bool_)
