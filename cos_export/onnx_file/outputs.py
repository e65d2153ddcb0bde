"""What a T-step graph returns, by name, as the trace that every target returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.network import SampleStates, SpikingNetwork
from cos_export.onnx_file.presimulation import half_start
from cos_export.simulation.trace import Trace

__all__ = ["trace_of"]


def trace_of(network: SpikingNetwork, values: Mapping[str, NDArray[Any]], *, per_sample: bool) -> Trace:
    """The run, with the states that the graph itself has set for each sample if it pre-simulates.

    Args:
        network: What was run.
        values: By output.
        per_sample: Whether the graph pre-simulates. If that sets no potentials, every sample starts from theta / 2.
    """
    groups: dict[str, dict[str, NDArray[Any]]] = {"spikes": {}, "v_init": {}, "silent": {}}
    for key, value in values.items():
        kind, _, layer = key.partition("/")
        if kind in groups and layer in network.neurons:
            groups[kind][layer] = value
    states = None
    if per_sample and (groups["v_init"] or groups["silent"]):
        samples = values["logits"].shape[1]
        for name in groups["silent"]:
            _, start = half_start(network.neurons[name], network.quantisation)
            groups["v_init"][name] = np.repeat(start, samples, axis=0)
        states = SampleStates(v_init=groups["v_init"], silent=groups["silent"])
    return Trace(logits=np.asarray(values["logits"]), spikes=groups["spikes"], states=states)
