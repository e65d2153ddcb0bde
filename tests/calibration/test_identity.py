"""The hash of a network: another one for whatever changes its spikes, and the same for what does not."""

from __future__ import annotations

import copy
from dataclasses import replace

import nir
import numpy as np
import pytest
from small_networks import two_layers

from calibration.identity import fingerprint
from cos_export.network import SpikingNetwork

NETWORK = two_layers(seed=3)
FIRST, SECOND = NETWORK.neurons["first"], NETWORK.neurons["second"]
ZEROS = np.zeros_like(FIRST.threshold)


def of_conv(**changes: object) -> SpikingNetwork:
    conv = copy.copy(NETWORK.graph.nodes["conv"])
    for name, value in changes.items():
        setattr(conv, name, value)
    return NETWORK.with_nodes({"conv": conv})


def twice() -> SpikingNetwork:
    """An edge more, of the same shape: what reaches the second layer counts twice."""
    graph = copy.copy(NETWORK.graph)
    again = nir.Affine(graph.nodes["dense"].weight, graph.nodes["dense"].bias)
    graph.nodes = {**graph.nodes, "again": again}
    graph.edges = [*graph.edges, ("flat", "again"), ("again", "second")]
    return SpikingNetwork(graph, NETWORK.neurons)


CHANGES = {
    "levels": NETWORK.with_neurons({"first": replace(FIRST, levels=4)}),
    "condition": NETWORK.with_neurons({"first": replace(FIRST, condition=">")}),
    "reset": NETWORK.with_neurons({"first": replace(FIRST, reset="value", v_reset=ZEROS)}),
    "v_reset": NETWORK.with_neurons({"first": replace(FIRST, reset="value", v_reset=ZEROS - 1)}),
    "silent": NETWORK.with_neurons({"first": replace(FIRST, silent=ZEROS.astype(bool))}),
    "bias": NETWORK.with_neurons({"first": replace(FIRST, bias=np.ones((2, 3), np.float32))}),
    "v_init": NETWORK.with_neurons({"second": replace(SECOND, v_init=SECOND.v_init * 2)}),
    "threshold": NETWORK.with_neurons({"second": replace(SECOND, threshold=SECOND.threshold * 2)}),
    "geometry": of_conv(padding=2, dilation=2),
    "weight": of_conv(weight=NETWORK.graph.nodes["conv"].weight * 2),
    "wiring": twice(),
    "input steps": replace(NETWORK, input_steps=2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_spikes_changes_the_hash(change: str) -> None:
    others = {name: fingerprint(network) for name, network in CHANGES.items() if name != change}
    assert fingerprint(CHANGES[change]) not in {fingerprint(NETWORK), *others.values()}


def test_what_says_the_same_has_the_same_hash() -> None:
    assert fingerprint(copy.copy(NETWORK)) == fingerprint(two_layers(seed=3))
    assert fingerprint(of_conv(stride=np.int64(1), dilation=1)) == fingerprint(of_conv(stride=1, dilation=np.int64(1)))
    assert fingerprint(replace(NETWORK, method="opi", num_timesteps=3)) == fingerprint(NETWORK)
