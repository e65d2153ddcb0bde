from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import random_networks
import torch
from numpy.typing import NDArray
from small_networks import two_layers
from torch import Tensor

import calibration.layer_by_layer as layerwise
from calibration.data import calibration_data
from calibration.layer_by_layer import CalibratedLayer, Currents, layer_by_layer
from calibration.spike_store import MEMORY, SpikeStore
from calibration.statistics import fired
from cos_export.network import SpikingNetwork
from cos_export.simulation.layerwise import LayerwiseProgram, window_charge
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire
from cos_export.simulation.program import Program

STEPS = 3


def walked(
    network: SpikingNetwork, images: np.ndarray, amplitude: float | None = None, memory: int = MEMORY
) -> dict[str, list[Tensor]]:
    """What arrived at each layer, batch by batch, on its second walk."""
    actual: dict[str, list[Tensor]] = {}

    def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
        list(currents())
        actual[name] = list(currents())
        weight = None if amplitude is None else torch.tensor(amplitude)
        return CalibratedLayer(lambda batch: integrate_and_fire(batch, STEPS, neuron).spikes, weight)

    layer_by_layer(Program(network), calibration_data(network, images, batch_size=4), calibrate_layer, memory=memory)
    return actual


def propagated(network: SpikingNetwork, images: np.ndarray, amplitude: float = 1.0) -> dict[str, Tensor]:
    actual: dict[str, Tensor] = {}

    def rule(name: str, neuron: NeuronTensors, currents: Tensor) -> Tensor:
        actual[name] = currents
        return integrate_and_fire(currents, STEPS, neuron).spikes * amplitude

    Program(network).propagate(torch.from_numpy(images), rule)
    return actual


CASES: list[Callable[[], SpikingNetwork]] = [
    lambda: two_layers(seed=3),
    lambda: random_networks.residual(np.random.default_rng(0)),
    *[lambda seed=seed: random_networks.random_network(seed) for seed in range(8)],
]


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("amplitude", [None, 0.5])
def test_each_layer_gets_what_a_walk_of_the_whole_network_gives_it(
    make: Callable[[], SpikingNetwork], amplitude: float | None
) -> None:
    network = make()
    images = random_networks.images(network, 10)
    actual, expected = walked(network, images, amplitude), propagated(network, images, amplitude or 1.0)
    assert list(actual) == list(network.layers)
    for name, batches in actual.items():
        assert [batch.shape[1] for batch in batches] == [4, 4, 2]
        assert torch.equal(torch.cat(batches, 1), expected[name]), "dyadic weights leave nothing to rounding"


@pytest.mark.parametrize("make", CASES)
def test_under_a_window_each_layer_gets_the_sum_that_a_run_of_the_whole_network_gives_it(
    make: Callable[[], SpikingNetwork],
) -> None:
    network = make()
    soft = {name: replace(spec, reset="subtract") for name, spec in network.neurons.items()}
    network = replace(network.with_neurons(soft), schedule="layerwise")
    images = random_networks.images(network, 10)
    expected: dict[str, Tensor] = {}
    LayerwiseProgram(network, STEPS).run(
        torch.from_numpy(images),
        lambda name, neuron: neuron,
        lambda name, run: expected.update({name: run.charged}),
    )
    actual: dict[str, list[Tensor]] = {}

    def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
        actual[name] = list(currents())
        return CalibratedLayer(lambda batch: fired(batch.clone(), neuron, STEPS, "layerwise"))

    data = calibration_data(network, images, batch_size=4)
    program = Program(network, window=STEPS)
    layer_by_layer(program, data, calibrate_layer, memory=0)
    assert list(actual) == list(network.layers)
    for name, batches in actual.items():
        assert [batch.shape[:2] for batch in batches] == [(1, 4), (1, 4), (1, 2)]
        charged = window_charge(torch.cat(batches, 1)[0], program.neurons[name], STEPS)
        assert torch.equal(charged, expected[name]), "dyadic weights leave nothing to rounding"


@pytest.mark.parametrize(("most", "walks"), [(layerwise.CURRENTS, 1), (10, 2)])
def test_currents_that_fit_are_computed_once(most: int, walks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_networks.residual(np.random.default_rng(0))
    images = random_networks.images(network, 10)
    expected = walked(network, images)
    computed: Counter[str] = Counter()
    original = Program.currents

    def counting(program: Program, name: str, outputs: Callable[[str], Tensor]) -> Tensor:
        computed[name] += 1
        return original(program, name, outputs)

    monkeypatch.setattr(layerwise, "CURRENTS", most)
    monkeypatch.setattr(Program, "currents", counting)
    actual = walked(network, images)
    for name, batches in actual.items():
        assert all(torch.equal(a, b) for a, b in zip(batches, expected[name], strict=True))
    last = network.layers[-1]
    assert computed[last] == 3 * walks, "three batches; nobody reads what the last layer sends"


def test_trains_are_dropped_when_their_last_reader_has_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_networks.sequential(
        np.random.default_rng(0), (2, 6, 6), ["if", *[part for _ in range(3) for part in (_convolution(), "if")]]
    )
    held: list[int] = []
    original = layerwise._currents

    def counting(program, data, name, trains):
        held.append(len(trains))
        return original(program, data, name, trains)

    monkeypatch.setattr(layerwise, "_currents", counting)
    walked(network, random_networks.images(network, 4))
    assert max(held) == 1 and len(network.layers) == 4


def _convolution():
    return random_networks.conv2d(np.random.default_rng(1), 2, 2)


@pytest.mark.parametrize("make", CASES[:4])
@pytest.mark.parametrize("memory", [0, 40])
def test_spikes_that_lie_in_files_are_the_same(
    make: Callable[[], SpikingNetwork], memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    network = make()
    images = random_networks.images(network, 10)
    written: list[Path] = []
    original = SpikeStore._written

    def noting(store: SpikeStore, bits: NDArray[np.uint8]) -> Path:
        written.append(original(store, bits))
        return written[-1]

    monkeypatch.setattr(SpikeStore, "_written", noting)
    in_memory = walked(network, images)
    assert not written
    in_files = walked(network, images, memory=memory)
    assert written and all(tmp_path in file.parents for file in written)
    assert list(tmp_path.iterdir()) == [], "the folder is removed"
    for name, batches in in_memory.items():
        assert all(torch.equal(a, b) for a, b in zip(batches, in_files[name], strict=True))


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_files_go_when_the_last_reader_has_read_them_and_whatever_happens(
    raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parts = ["if", *[part for _ in range(3) for part in (_convolution(), "if")]]
    network = random_networks.sequential(np.random.default_rng(0), (2, 6, 6), parts)
    lying: list[int] = []

    def calibrate_layer(name: str, neuron: NeuronTensors, currents: Currents) -> CalibratedLayer:
        lying.append(len(list(tmp_path.rglob("*.npy"))))
        if name == network.layers[-1]:
            raise raised
        return CalibratedLayer(lambda batch: integrate_and_fire(batch, STEPS, neuron).spikes)

    data = calibration_data(network, random_networks.images(network, 10), batch_size=4)
    with pytest.raises(raised):
        layer_by_layer(Program(network), data, calibrate_layer, memory=0)
    assert lying == [0, 3, 3, 3], "three batches of one layer at a time"
    assert list(tmp_path.iterdir()) == []
