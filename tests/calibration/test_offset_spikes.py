from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scalar_reference import cos_potential, run
from small_networks import layer, one_neuron, two_layers

from calibration.methods.cos import calibrated_potentials
from calibration.offset_spikes import designed_spikes, offset_spikes
from cos_export.errors import InputError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.report.offset_picture import save_offset_picture
from cos_export.simulation.neuron import integrate_and_fire, neuron_tensors

ITERATIONS = (0, 1, 2, 4)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-8, 9, (count, 2, 5, 5)).astype(np.float32) / 16


def qcfs(current: float, theta: float, levels: int | None) -> float:
    if levels is None:
        return min(1.0, max(0.0, current / theta))
    return min(1.0, max(0.0, math.floor(current * levels / theta + 0.5) / levels))


class Slow:
    """The statistics of `two_layers`, one neuron at a time in Python floats."""

    def __init__(self, network: SpikingNetwork, steps: int, rho: int) -> None:
        self.network, self.steps, self.rho = network, steps, rho
        self.psi: dict[tuple[str, int], list[int]] = {}
        self.errors: dict[tuple[str, int], list[float]] = {}

    def convolved(self, image: np.ndarray) -> np.ndarray:
        node = self.network.graph.nodes["conv"]
        padded = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        weight, actual = node.weight.astype(np.float64), np.zeros((3, 5, 5))
        for c, y, x in np.ndindex(3, 5, 5):
            actual[c, y, x] = (weight[c] * padded[:, y : y + 3, x : x + 3]).sum() + node.bias[c]
        return actual

    def image(self, image: np.ndarray) -> None:
        dense, first = self.network.graph.nodes["dense"], self.convolved(image).ravel()
        thetas = {name: float(spec.threshold.flat[0]) for name, spec in self.network.neurons.items()}
        levels = {name: spec.levels for name, spec in self.network.neurons.items()}
        artificial = {"first": [qcfs(z, thetas["first"], levels["first"]) for z in first]}
        z = dense.weight.astype(np.float64) @ np.array(artificial["first"]) + dense.bias
        artificial["second"] = [qcfs(float(value), thetas["second"], levels["second"]) for value in z]
        horizon = max(self.steps, self.rho)
        for k in ITERATIONS:
            currents = [[float(value)] * horizon for value in first]
            for name in ("first", "second"):
                trains = []
                for activation, train in zip(artificial[name], currents, strict=True):
                    trains.append(self.neuron(name, k, activation, train, thetas[name]))
                outputs = np.array(trains, np.float64).T
                currents = (
                    (outputs @ dense.weight.T.astype(np.float64) + dense.bias).T.tolist() if name == "first" else []
                )

    def neuron(self, name: str, k: int, activation: float, train: list[float], theta: float) -> list[int]:
        start = theta / 2
        inputs = train[: self.rho]
        total = run(inputs, theta, start)
        expected = sum(total.spikes) + math.floor(total.potentials[-1] / theta)
        designed = min(self.rho, max(0, expected))
        v_init = cos_potential(inputs, theta, start, k)
        after = run(train, theta, v_init)
        self.psi.setdefault((name, k), []).append(designed - sum(after.spikes[: self.rho]))
        rate = sum(after.spikes[: self.steps]) / self.steps
        self.errors.setdefault((name, k), []).append((activation - rate) ** 2)
        return after.spikes


@pytest.mark.parametrize(("steps", "rho", "levels"), [(4, 4, 4), (2, 4, None), (8, 6, 4), (3, 2, 2)])
def test_is_the_scalar_reference(steps: int, rho: int, levels: int | None) -> None:
    base = two_layers(seed=19)
    network = base.with_neurons(
        {name: NeuronSpec(spec.threshold, spec.v_init, levels=levels) for name, spec in base.neurons.items()}
    )
    data = images(7)
    slow = Slow(network, steps, rho)
    for image in data:
        slow.image(image)
    actual = offset_spikes(network, data, steps, rho, iterations=ITERATIONS, batch_size=3, device="cpu")
    assert (actual.samples, actual.iterations) == (7, ITERATIONS)
    spread = set()
    for name, rows in actual.layers.items():
        for k, row in rows.items():
            psi = slow.psi[name, k]
            spread |= set(psi)
            clipped = [min(actual.psi[-1], max(actual.psi[0], value)) for value in psi]
            assert list(row.counts) == [clipped.count(value) for value in actual.psi], (name, k)
            assert row.no_offset == psi.count(0) / len(psi)
            assert row.mean_square == pytest.approx(sum(value**2 for value in psi) / len(psi), rel=1e-12)
            # Without levels the activation is a quotient that float32 rounds; with them it is exact.
            bound = 1e-12 if levels else 1e-6
            assert row.mse == pytest.approx(sum(slow.errors[name, k]) / len(psi), rel=bound)
    assert len(spread) >= 3, "the images must make neurons fire too few and too many spikes"


# Worked by hand, one neuron with theta = 1 that starts from 1/2, rho = 4 and constant currents from below by `train`.
@pytest.mark.parametrize(
    ("train", "before", "once", "twice"),
    [
        # v = -0.5, -1.5, 2.0 - 1, 2.0 - 1: two spikes, and v(4) = 1.0 is a tie: one more is wanted, and once gives it.
        ([-1.0, -1.0, 3.5, 1.0], 1, 0, 0),
        # v = -2.5, -5.5, -5.5, 3.5 - 1 = 2.5: one spike, three wanted, psi = +2; each iteration gives one.
        ([-3.0, -3.0, 0.0, 9.0], 2, 1, 0),
        # v = 1.25 - 1, then down to -0.75: one spike, none wanted: psi = -1.
        ([0.75, -1.0, 0.0, 0.0], -1, 0, 0),
        # Every step fires and v(4) = 4.5: an activation wants no more than all.
        ([2.0, 2.0, 2.0, 2.0], 0, 0, 0),
        # No spike and v(4) = -3.5: nothing to take back.
        ([-1.0, -1.0, -1.0, -1.0], 0, 0, 0),
        # v(4) = 0 after a tie at the first step is not an offset.
        ([0.5, 0.0, 0.0, 0.0], 0, 0, 0),
    ],
)
def test_cases_worked_by_hand(train: list[float], before: int, once: int, twice: int) -> None:
    neuron = neuron_tensors(layer((1,), 1.0), torch.device("cpu"), torch.float32)
    currents = torch.tensor(train).reshape(4, 1, 1)
    designed = float(designed_spikes(currents, 4, neuron))
    for k, expected in ((0, before), (1, once), (2, twice)):
        spec = layer((1,), 1.0)
        start = calibrated_potentials(currents, 4, neuron, k).numpy()[0]
        shifted = neuron_tensors(NeuronSpec(spec.threshold, start), torch.device("cpu"), torch.float32)
        assert designed - float(integrate_and_fire(currents, 4, shifted).spikes.sum()) == expected


def test_a_constant_input_has_no_offset_and_no_error() -> None:
    """With T = L, theta / 2 and a constant current a layer fires exactly its activation (QCFS)."""
    base = one_neuron(1.0)
    one = np.ones(1, np.float32)
    network = base.with_neurons({"neuron": NeuronSpec(one, np.full(1, 0.5, np.float32), levels=4)})
    data = np.linspace(-1, 2, 97, dtype=np.float32).reshape(-1, 1)
    actual = offset_spikes(network, data, 4, 4, iterations=(0,)).layers["neuron"][0]
    assert (actual.no_offset, actual.mse) == (1.0, 0.0)


def test_batches_and_data_sets_do_not_matter() -> None:
    class Set(torch.utils.data.Dataset[object]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> object:
            return images(9)[index], 0

    network = two_layers(seed=2)
    whole = offset_spikes(network, images(9), 4, batch_size=9)
    for data in (images(9), Set()):
        parts = offset_spikes(network, data, 4, batch_size=2)
        assert [r.counts for rows in parts.layers.values() for r in rows.values()] == [
            r.counts for rows in whole.layers.values() for r in rows.values()
        ]
        for name, rows in parts.layers.items():
            for k, row in rows.items():
                assert row.mse == pytest.approx(whole.layers[name][k].mse, rel=1e-12)


def test_the_document_and_the_picture(tmp_path: Path) -> None:
    actual = offset_spikes(two_layers(seed=2), images(5), 4, rho=6)
    document = json.loads(json.dumps(actual.to_dict()))
    assert document["psi"] == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
    assert list(document["layers"]["second"]) == ["0", "1", "2", "4"]
    assert sum(document["layers"]["second"]["4"]["counts"]) == 5 * 6
    once, again = (save_offset_picture(tmp_path / f"{n}.png", document).read_bytes() for n in "ab")
    assert once == again and once.startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"ends otherwise"):
        save_offset_picture(tmp_path / "a.pdf", document)


def test_refusals() -> None:
    network = two_layers(seed=1)
    for options in ({"rho": 0}, {"iterations": ()}, {"iterations": (0, -1)}):
        with pytest.raises(InputError, match=r"rho must be at least 1|iterations must"):
            offset_spikes(network, images(2), 4, **options)
    with pytest.raises(InputError, match="number of steps"):
        offset_spikes(network, images(2))
    spec = network.neurons["first"]
    reset = NeuronSpec(spec.threshold, spec.v_init, reset="value", v_reset=np.zeros_like(spec.threshold))
    with pytest.raises(InputError, match="'first' is reset to a value"):
        offset_spikes(network.with_neurons({"first": reset}), images(2), 2)
