"""Inputs that change with time in Lava: the same spikes as the reference, in both back ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import random_networks as build

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.quantisation import quantise
from cos_export.simulation import simulate
from targets.lava import LavaTarget
from targets.lava.lava_target import run_network
from targets.lava.lowering import lower
from targets.lava.netx import write_netx

T = 4


def network_and_frames(numerics: str) -> tuple[SpikingNetwork, Any]:
    network = build.residual(np.random.default_rng(0))
    frames = build.dyadic(np.random.default_rng(1), 5, T, *network.input_shape, low=-4, high=8)
    if numerics == "int8":
        network = quantise(network, frames, steps=T)
    return replace(network, input_encoding="frames"), frames


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("numerics", ["float32", "int8"])
@pytest.mark.parametrize("backend", ["batched", "faithful"])
def test_frames_fire_the_reference_spikes(backend: Any, numerics: str) -> None:
    network, frames = network_and_frames(numerics)
    # Groups of two, the last of which is not full.
    actual = run_network(network, frames, T, options=LavaTarget(backend, batch_size=2))
    expected = simulate(network, frames, T)
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], spikes, err_msg=name)
        assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(actual.logits, expected.logits)


def test_what_holds_its_input_refuses_frames(tmp_path: Any) -> None:
    network, frames = network_and_frames("int8")
    with pytest.raises(NetworkError, match="netx holds the input"):
        write_netx(network, tmp_path / "network.hdf5")
    with pytest.raises(
        NetworkError, match=r"'input' \(Input\): Lava runs a layer-wise network on an input that is held"
    ):
        lower(replace(network, schedule="layerwise"), frames, T)
