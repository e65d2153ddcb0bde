"""Ranges that follow every step: of networks whose layers fire in some steps only."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
import random_networks as build
from eight_bit_networks import pictures, with_node
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_networks import integers

import cos_export
from cos_export.errors import NetworkError
from cos_export.network import NeuronSpec, Quantisation, SpikingNetwork
from cos_export.quantisation import check_ranges, layer_ranges
from cos_export.simulation import simulate


def one_neuron(**changes: Any) -> SpikingNetwork:
    """Weight 2 on an input of -127..127, theta = 100, v(0) = 0.5; a readout of weight 3 and bias -1."""
    spec = NeuronSpec(np.full(1, 100, np.float32), np.full(1, 0.5, np.float32), **changes)
    nodes = {
        "input": nir.Input(np.array([1])),
        "fc": nir.Linear(np.full((1, 1), 2, np.float32)),
        "if": build.spiking_node(spec),
        "head": nir.Affine(np.full((1, 1), 3, np.float32), np.full(1, -1, np.float32)),
        "output": nir.Output(np.array([1])),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    return SpikingNetwork(graph, {"if": spec}, quantisation=Quantisation(1.0), input_steps=2)


def test_ranges_by_hand() -> None:
    """Two steps of -254..254, then none: m(2) is at most 0.5 + 254 - 100 + 254, and m(3) 100 less."""
    layer, readout = layer_ranges(one_neuron(), 5)
    assert (layer.current_minimum, layer.current_maximum, layer.largest_sum) == (-254, 254, 254)
    assert (layer.potential_minimum, layer.potential_maximum) == (0.5 - 2 * 254, 0.5 + 254 - 100 + 254)
    assert (readout.potential_minimum, readout.potential_maximum, readout.largest_sum) == (-5, 5 * 2, 4)
    assert layer.steps_that_fit is None and readout.steps_that_fit is None


def test_a_layer_that_is_held_down_sends_nothing() -> None:
    held = one_neuron(bias=np.array([[-1000], [0], [0]], np.float32))
    _, readout = layer_ranges(held, 5)
    assert (readout.potential_minimum, readout.potential_maximum) == (-5, -1)


@pytest.mark.parametrize("name", ["convolutions", "pooling", "residual", "one_axis"])
def test_windows_are_proved_for_every_input(name: str) -> None:
    """The readout can come to as much as under the layer-wise schedule: no layer can fire more often than T times."""
    network = with_node(integers(name), "readout", bias=np.zeros(3, np.float32))
    *_, expected = layer_ranges(network, 4)
    result = cos_export.lowered(network, 4)
    *_, last = layer_ranges(result, result.num_timesteps or 0)
    assert (last.potential_minimum, last.potential_maximum) == (
        expected.potential_minimum,
        expected.potential_maximum,
    )


def test_the_step_that_does_not_fit_is_named() -> None:
    held = one_neuron(bias=np.array([[0], [0], [-(2.0**23)]], np.float32))
    with pytest.raises(NetworkError, match=r"Layer 'if': within 5 steps .* 2 steps fit"):
        check_ranges(held, 5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), name=st.sampled_from(["residual", "pooling", "one_axis", "joined"]))
def test_no_run_leaves_them(seed: int, name: str) -> None:
    network = cos_export.lowered(integers(name, seed), 3)
    ends = np.random.default_rng(seed).choice([-3.0, 3.0], (4, *network.input_shape)).astype(np.float32)
    images = np.concatenate([ends, pictures(network, 4, seed)])
    trace = simulate(network, images, device="cpu", record_potentials=True)
    for entry in layer_ranges(network, network.num_timesteps or 0):
        if entry.name in network.neurons:
            charged = trace.potentials[entry.name] + network.neurons[entry.name].threshold * trace.spikes[entry.name]
            if network.neurons[entry.name].silent is None:
                assert entry.potential_minimum <= charged.min() and charged.max() <= entry.potential_maximum


def test_an_input_is_held_for_at_least_one_step() -> None:
    with pytest.raises(Exception, match="input_steps"):
        replace(one_neuron(), input_steps=0)
    with pytest.raises(NetworkError, match="input_steps must be None"):
        replace(one_neuron(), schedule="layerwise")
