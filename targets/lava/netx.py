"""Writes a network of integers as the HDF5 file that lava-dl's `netx.hdf5.Network` reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.atomic_file import atomic_write
from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.graph import Shape
from cos_export.numerics import numerics_of
from targets.lava.netx_layers import NETX_BITS, conv_layer, dense_layer, neuron_group, pooled, readout_group

__all__ = ["write_netx"]


def write_netx(network: SpikingNetwork, path: Path | str) -> None:
    """Writes a network of integers for netx, which loads it as a chain of Lava's own synapses and neurons.

    Sums over windows are folded into the weights that follow. netx has no field for initial potentials, so each
    layer's stand in a data set of ours, `v_init`, which netx passes over: whoever loads the file sets them, and the
    reset by subtraction and the comparison >=, before the first step. (`LavaTarget("netx")` does.)

        /layer/<i>/type      "input", "conv", "dense" or "flatten"
        /layer/<i>/shape     (channels, height, width) or (features,)
        /layer/<i>/weight    integers of 8 bits, (out, in, height, width) or (out, in); bias, of 16 bits
        /layer/<i>/neuron    type "CUBA" without leak; vThMant: theta; v_init: floor(v(0))
        /schedule            "layerwise" if a layer must add up before it fires, which netx passes over, too

    Args:
        network: Of integers of 8 bits.
        path: The file, written whole or not at all.

    Raises:
        NetworkError: netx cannot express the network; says which node, and why.
    """
    if network.quantisation is None or network.quantisation.weight_bits != NETX_BITS:
        raise NetworkError(
            f"netx computes in integers of {NETX_BITS} bits, and the network's numerics are {network.numerics}. "
            f"Convert it with --numerics {numerics_of(NETX_BITS)}."
        )
    if network.input_steps is not None:
        raise NetworkError(
            f"netx holds the input for all steps, and this network's input is held for {network.input_steps} only. Run "
            "it on another back end."
        )
    if network.input_encoding == "frames":
        raise NetworkError(
            "netx holds the input for all steps, and this network takes frames. Run it on another back end."
        )
    layers = _layers(network)
    content = io.BytesIO()  # libhdf5 crashes the process where it cannot write, as on a full disk
    with h5py.File(content, "w") as file:
        for number, layer in enumerate(layers):
            _write(file.create_group(f"layer/{number}"), layer)
        if network.schedule == "layerwise":
            file["schedule"] = np.bytes_(network.schedule)
    with atomic_write(path) as draft:
        draft.write_bytes(content.getbuffer())


def _write(group: Any, entries: Mapping[str, Any]) -> None:
    for key, value in entries.items():
        if isinstance(value, Mapping):
            _write(group.create_group(key), value)
        else:
            group.create_dataset(key, data=value.encode("ascii") if isinstance(value, str) else value)


@dataclass
class _Walk:
    """What has been met on the way from the Input.

    Attributes:
        layers: Finished entries of the file.
        synapse: The entry of a synapse whose neurons are still to come.
        window: Of the sum that is to be folded into the next synapse, (height, width).
        summed: The shape that this sum is over, before it and any flattening.
        inputs: The least and the largest value that the next synapse may receive.
    """

    layers: list[dict[str, Any]]
    inputs: tuple[int, int]
    synapse: dict[str, Any] = field(default_factory=dict)
    window: tuple[int, int] = (1, 1)
    summed: Shape = ()


def _layers(network: SpikingNetwork) -> list[dict[str, Any]]:
    limits = network.quantisation
    inputs = (0, 1) if limits is None else (limits.input_minimum, limits.input_maximum)
    walk = _Walk([{"type": "input", "shape": np.array(network.input_shape)}], inputs, summed=network.input_shape)
    for name in network.order:
        node = network.graph.nodes[name]
        try:
            if len(network.predecessors[name]) > 1:
                raise NetworkError("several edges meet here, as at the end of a shortcut, and netx knows chains only.")
            if sum(name in sources for sources in network.predecessors.values()) > 1:
                raise NetworkError("several edges leave here, as at a shortcut, and netx knows chains only.")
            _take(walk, network, name)
        except NetworkError as error:
            raise NetworkError(f"netx cannot express node {name!r} ({type(node).__name__}): {error}") from None
    return walk.layers


def _take(walk: _Walk, network: SpikingNetwork, name: str) -> None:
    """Walks on by one node."""
    node = network.graph.nodes[name]
    arriving = network.shapes[next(iter(network.predecessors[name]), name)]
    if isinstance(node, nir.Input):
        return
    if isinstance(node, nir.IF | nir.Output):
        if not walk.synapse:
            raise NetworkError("no synapse is in front of it.")
        spec = network.neurons.get(name)
        group = readout_group() if spec is None else neuron_group(spec)
        walk.layers.append({**walk.synapse, "shape": np.array(network.shapes[name]), "neuron": group})
        walk.synapse, walk.inputs, walk.summed = {}, (0, 1), network.shapes[name]
        return
    if walk.synapse:
        raise NetworkError("another synapse is in front of it, with no neurons between them.")
    if isinstance(node, nir.SumPool2d):
        high, wide = pooled(node, arriving)
        walk.window = (walk.window[0] * high, walk.window[1] * wide)
    elif isinstance(node, nir.Flatten):
        if len(network.shapes[name]) != 1:
            raise NetworkError("it leaves more than one axis.")
        walk.layers.append({"type": "flatten"})
    elif isinstance(node, nir.Conv2d):
        walk.synapse = conv_layer(node, walk.window, walk.inputs)
        walk.window = (1, 1)
    elif isinstance(node, nir.Affine | nir.Linear):
        bias: NDArray[Any] | None = getattr(node, "bias", None)
        walk.synapse = dense_layer(node.weight, bias, walk.window, walk.summed, walk.inputs)
        walk.window = (1, 1)
    else:
        raise NetworkError("it has no such layer.")
