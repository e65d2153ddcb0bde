from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import random_networks
import torch
from small_networks import two_layers
from torch import Tensor

import calibration.layerwise as layerwise
from calibration.data import calibration_data
from calibration.layerwise import Currents, Sending, layer_by_layer
from cos_export.network import SpikingNetwork
from cos_export.neuron import NeuronTensors, integrate_and_fire
from cos_export.propagation import Program

STEPS = 3


def walked(network: SpikingNetwork, images: np.ndarray, amplitude: float | None = None) -> dict[str, list[Tensor]]:
    """What arrived at each layer, batch by batch, on its second walk."""
    found: dict[str, list[Tensor]] = {}

    def settle(name: str, neuron: NeuronTensors, currents: Currents) -> Sending:
        list(currents())
        found[name] = list(currents())
        weight = None if amplitude is None else torch.tensor(amplitude)
        return Sending(lambda batch: integrate_and_fire(batch, STEPS, neuron).spikes, weight)

    layer_by_layer(Program(network), calibration_data(network, images, batch_size=4), settle)
    return found


def propagated(network: SpikingNetwork, images: np.ndarray, amplitude: float = 1.0) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        found[name] = currents
        return integrate_and_fire(currents, STEPS, neuron).spikes * amplitude

    Program(network).propagate(torch.from_numpy(images), rule)
    return found


CASES: list[Callable[[], SpikingNetwork]] = [
    lambda: two_layers(seed=3),
    lambda: random_networks.residual(np.random.default_rng(0)),
    *[lambda seed=seed: random_networks.random_network(seed) for seed in range(8)],  # type: ignore[misc]
]


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("amplitude", [None, 0.5])
def test_each_layer_gets_what_a_walk_of_the_whole_network_gives_it(
    make: Callable[[], SpikingNetwork], amplitude: float | None
) -> None:
    network = make()
    images = random_networks.images(network, 10)
    found, wanted = walked(network, images, amplitude), propagated(network, images, amplitude or 1.0)
    assert list(found) == list(network.layers)
    for name, batches in found.items():
        assert [batch.shape[1] for batch in batches] == [4, 4, 2]
        assert torch.equal(torch.cat(batches, 1), wanted[name]), "dyadic weights leave nothing to rounding"


def test_trains_are_dropped_when_their_last_reader_has_heard_them(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_networks.sequential(
        np.random.default_rng(0), (2, 6, 6), ["if", *[part for _ in range(3) for part in (_convolution(), "if")]]
    )
    held: list[int] = []
    original = layerwise._currents

    def counting(program, data, name, trains):  # type: ignore[no-untyped-def]
        held.append(len(trains))
        return original(program, data, name, trains)

    monkeypatch.setattr(layerwise, "_currents", counting)
    walked(network, random_networks.images(network, 4))
    assert max(held) == 1 and len(network.layers) == 4


def _convolution():  # type: ignore[no-untyped-def]
    return random_networks.conv2d(np.random.default_rng(1), 2, 2)


def test_spikes_are_kept_in_bits() -> None:
    spikes = (torch.rand(3, 5, 2, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    packed = layerwise._packed(spikes)
    assert packed.bits.nbytes == -(-spikes.numel() // 8)
    assert torch.equal(layerwise._unpacked(packed).float(), spikes)
