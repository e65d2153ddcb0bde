"""From a network to a job's nodes: plain settings and float32 arrays, no NIR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import FloatArray, NeuronSpec, SampleStates, SpikingNetwork, are_frames, check_states
from cos_export.network.graph import convolution, pooling
from cos_export.network.node_facts import facts
from cos_export.network.windows import windows
from cos_export.simulation.fixed_point import quantise_input
from cos_export.simulation.layerwise import check_layerwise
from targets.lava.fixed_point import in_integers
from targets.lava.lowered_node import LoweredNode

__all__ = ["lower", "lower_synapse"]


def lower(
    network: SpikingNetwork, images: FloatArray, steps: int, states: SampleStates | None = None
) -> dict[str, LoweredNode]:
    """The nodes of a network in topological order, by name.

    Args:
        network: What to run.
        images: (samples, ...), held for all steps or the network's `input_steps`; or frames (samples, T, ...).
        steps: T.
        states: Initial potentials and silent masks of each sample, in place of the network's.

    Raises:
        NetworkError: A node of the network cannot be run in Lava, or has other numbers than its numerics allow.
        InputError: The states do not fit the network or the images.
    """
    held = states or SampleStates()
    check_states(network, held, len(images))
    opens = _openings(network, steps)
    lowered: dict[str, LoweredNode] = {}
    for name in network.order:
        node = network.graph.nodes[name]
        try:
            kind = facts(node).kind
            if kind == "input":
                taken = quantise_input(torch.from_numpy(images), network.quantisation).numpy()
                shown = steps if network.input_steps is None else min(steps, network.input_steps)
                frames = are_frames(network, images)
                if frames and network.schedule == "layerwise":
                    raise NetworkError(
                        "Lava runs a layer-wise network on an input that is held, and not on frames. Run it in PyTorch "
                        "or ONNX Runtime, or synchronously."
                    )
                lowered[name] = LoweredNode("input", {"shown": shown, "frames": frames}, {"images": taken})
            elif kind == "neurons":
                lowered[name] = _neurons(network.neurons[name], steps, held, name)
            else:
                lowered[name] = lower_synapse(node)
            if name in opens:
                lowered[name] = replace(lowered[name], settings={**lowered[name].settings, "opens": opens[name]})
            if network.quantisation is not None:
                lowered[name] = in_integers(lowered[name])
        except NetworkError as error:
            raise NetworkError(f"Node {name!r} ({type(node).__name__}): {error}") from None
    return lowered


def _openings(network: SpikingNetwork, steps: int) -> Mapping[str, int]:
    """The steps before each layer may fire, and before the Output is read, under the layer-wise schedule."""
    if network.schedule == "synchronous":
        return {}
    check_layerwise(network)
    known = windows(network, steps)
    return {**known.opens, network.output_name: known.readout_opens}


def _neurons(spec: NeuronSpec, steps: int, states: SampleStates, name: str) -> LoweredNode:
    arrays: dict[str, NDArray[Any]] = {
        "threshold": _single(spec.threshold),
        "v_init": _single(states.v_init.get(name, spec.v_init)),
    }
    if spec.reset == "value":
        arrays["v_reset"] = _single(spec.v_reset)
    bias = spec.bias_per_step(steps)
    if bias is not None:
        arrays["bias"] = bias.reshape(steps, -1)
    silent = states.silent.get(name, spec.silent)
    if silent is not None:
        arrays["silent"] = np.asarray(silent, np.bool_)
    own = {"v_init": states.v_init, "silent": states.silent}
    settings = {
        "condition": spec.condition,
        "reset": spec.reset,
        "per_sample": [key for key, arrays_by_layer in own.items() if name in arrays_by_layer],
    }
    return LoweredNode("neuron", settings, arrays)


def _single(array: object) -> FloatArray:
    return np.ascontiguousarray(array, np.float32)


@singledispatch
def lower_synapse(node: nir.NIRNode) -> LoweredNode:
    """A node that holds no neurons.

    Raises:
        NetworkError: Nodes of its type cannot be run.
    """
    raise NetworkError(f"a node of type {type(node).__name__} cannot be run in Lava.")


@lower_synapse.register
def _(node: nir.Output) -> LoweredNode:
    return LoweredNode("output")


@lower_synapse.register(nir.Conv1d)
@lower_synapse.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d) -> LoweredNode:
    geometry = convolution(node)
    settings = {
        "stride": list(geometry.stride),
        "padding": [list(pair) for pair in geometry.padding],
        "dilation": list(geometry.dilation),
        "groups": geometry.groups,
    }
    return LoweredNode("convolution", settings, _weights(node.weight, node.bias))


@lower_synapse.register
def _(node: nir.Affine) -> LoweredNode:
    return LoweredNode("linear", {}, _weights(node.weight, node.bias))


@lower_synapse.register
def _(node: nir.Linear) -> LoweredNode:
    return LoweredNode("linear", {}, _weights(node.weight, None))


def _weights(weight: object, bias: object) -> dict[str, NDArray[Any]]:
    arrays = {"weight": _single(weight)}
    if bias is not None:
        # A bias may be one number for all channels.
        arrays["bias"] = np.array(np.broadcast_to(_single(bias), (len(arrays["weight"]),)))
    return {**arrays}


@lower_synapse.register
def _(node: nir.Scale) -> LoweredNode:
    return LoweredNode("scale", {}, {"scale": _single(node.scale)})


@lower_synapse.register(nir.SumPool2d)
@lower_synapse.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d) -> LoweredNode:
    window = pooling(node)
    settings = {
        "kernel": list(window.kernel),
        "stride": list(window.stride),
        "padding": list(window.padding),
        "divisor": facts(node).divisor,
    }
    return LoweredNode("pool", settings)


@lower_synapse.register
def _(node: nir.Flatten) -> LoweredNode:
    return LoweredNode("flatten")
