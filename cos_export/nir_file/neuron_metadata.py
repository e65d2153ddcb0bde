"""The metadata of a spiking node, whose keys `cos_export.nir_file.graph_metadata` lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import FloatArray, NeuronSpec, SpikingNetwork
from cos_export.network.fields import numbers
from cos_export.network.neuron_spec import Condition, Reset
from cos_export.network.windows import windows
from cos_export.nir_file.metadata_values import array, floats, integer, word

__all__ = ["ALWAYS_WRITTEN", "NODE_KEYS", "NeuronFacts", "neuron_metadata", "read_neuron_metadata", "window_metadata"]

ALWAYS_WRITTEN = ("v_init", "reset_mechanism", "spike_condition")
"""What every spiking node of our files says."""

NODE_KEYS = frozenset({*ALWAYS_WRITTEN, "v_bias", "silent", "levels", "integer_scale", "window_opens"})


@dataclass(frozen=True)
class NeuronFacts:
    """What a spiking node's metadata says; None where it says nothing. Fields as in `NeuronSpec`."""

    v_init: FloatArray | None = None
    reset: Reset | None = None
    condition: Condition | None = None
    bias: FloatArray | None = None
    silent: NDArray[np.bool_] | None = None
    levels: int | None = None
    scale: NDArray[np.float64] | None = None
    window_opens: int | None = None


def window_metadata(network: SpikingNetwork) -> dict[str, dict[str, int]]:
    """What is written on each spiking node about when it fires, by name: nothing unless the graph is layer-wise."""
    if network.schedule == "synchronous" or network.num_timesteps is None:
        return {name: {} for name in network.layers}
    return {name: {"window_opens": on} for name, on in windows(network, network.num_timesteps).opens.items()}


def neuron_metadata(spec: NeuronSpec) -> dict[str, Any]:
    """What is written on a spiking node."""
    metadata: dict[str, Any] = {
        "v_init": np.asarray(spec.v_init, np.float32),
        "reset_mechanism": spec.reset,
        "spike_condition": spec.condition,
    }
    if spec.bias is not None:
        metadata["v_bias"] = np.asarray(spec.bias, np.float32)
    if spec.silent is not None:
        metadata["silent"] = np.asarray(spec.silent, np.uint8)
    if spec.levels is not None:
        metadata["levels"] = int(spec.levels)
    if spec.scale is not None:
        metadata["integer_scale"] = np.asarray(spec.scale, np.float64)
    return metadata


def read_neuron_metadata(metadata: Mapping[str, Any]) -> NeuronFacts:
    """Reads a spiking node's metadata.

    Raises:
        NetworkError: An entry has a value that it cannot have. The caller knows the node's name.
    """
    reset, condition = word("reset_mechanism", metadata), word("spike_condition", metadata)
    for key, value, known in (
        ("reset_mechanism", reset, get_args(Reset)),
        ("spike_condition", condition, get_args(Condition)),
    ):
        if value is not None and value not in known:
            listed = " and ".join(f'"{one}"' for one in known)
            raise NetworkError(f"its metadata says {key} = {value!r}; known are {listed}.")
    silent = metadata.get("silent")
    if silent is not None and not np.isin(numbers("its metadata's silent", silent), (0, 1)).all():
        raise NetworkError("its metadata has a silent mask with values other than 0 and 1.")
    levels, opens = metadata.get("levels"), metadata.get("window_opens")
    scale = array("integer_scale", metadata.get("integer_scale"))
    return NeuronFacts(
        v_init=floats("v_init", metadata.get("v_init")),
        reset=cast("Reset | None", reset),
        condition=cast("Condition | None", condition),
        bias=floats("v_bias", metadata.get("v_bias")),
        silent=None if silent is None else np.asarray(silent).astype(np.bool_),
        levels=None if levels is None else integer("levels", levels, 1),
        scale=None if scale is None else scale.astype(np.float64),
        window_opens=None if opens is None else integer("window_opens", opens, 0, 2**31),
    )
