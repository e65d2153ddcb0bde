from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import two_layers

from calibration import calibrate
from calibration.data import calibration_data
from calibration.methods.static import Static
from calibration.tuning.teacher import teacher_logits, teacher_table
from cos_export.network import SpikingNetwork
from cos_export.simulation import ann_logits, simulate
from cos_export.simulation.activations import limit_activation
from cos_export.simulation.program import Program

IMAGES = np.random.default_rng(4).normal(size=(24, 2, 5, 5)).astype(np.float32)


def quantised() -> SpikingNetwork:
    """Two layers of QCFS neurons with L = 2."""
    network = two_layers(seed=8)
    return network.with_neurons({name: replace(spec, levels=2) for name, spec in network.neurons.items()})


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_the_activation_by_hand() -> None:
    network = quantised()
    neuron = Program(network).neurons["first"]
    currents = neuron.threshold * torch.tensor([-0.5, 0.0, 0.3, 0.6, 1.0, 2.5])
    torch.testing.assert_close(
        limit_activation("first", neuron, currents), torch.tensor([0.0, 0.0, 0.3, 0.6, 1.0, 1.0])
    )


def test_it_is_what_many_steps_come_to_and_not_the_quantised_network() -> None:
    network = quantised()
    limit = teacher_logits(Program(network), torch.from_numpy(IMAGES)).exp().numpy()
    far = np.abs(softmax(ann_logits(network, IMAGES)) - limit).mean()
    for steps, bound in ((64, 4.0), (1024, 64.0)):
        spiking = softmax(simulate(network, IMAGES, steps, record_spikes=False).logits[-1])
        assert np.abs(spiking - limit).mean() < far / bound


@pytest.mark.parametrize("both_sides", [False, True])
def test_the_mean_over_both_sides(both_sides: bool) -> None:
    network = quantised()
    without = network.with_neurons({name: replace(spec, levels=None) for name, spec in network.neurons.items()})
    expected = softmax(ann_logits(without, IMAGES))
    if both_sides:
        expected = (expected + softmax(ann_logits(without, IMAGES[..., ::-1].copy()))) / 2
    actual = teacher_logits(Program(network), torch.from_numpy(IMAGES), both_sides=both_sides)
    np.testing.assert_allclose(actual.exp().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_table_has_the_outputs_of_each_image_in_its_row() -> None:
    network, images = quantised(), torch.from_numpy(IMAGES)
    data, stages = calibration_data(network, IMAGES, 10), set[str]()
    table = teacher_table(Program(network), data, lambda stage, done, total: stages.add(stage), both_sides=True)
    for number in range(len(IMAGES)):
        alone = teacher_logits(Program(network), images[number : number + 1], both_sides=True)
        torch.testing.assert_close(table[number : number + 1], alone)
        mirrored = teacher_logits(Program(network), images[number : number + 1].flip(-1), both_sides=True)
        torch.testing.assert_close(table[number : number + 1], mirrored)
    assert stages == {"asking the teacher"}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, "once"),
        ({"flip": True, "both_sides": True}, "once"),
        ({"flip": True}, "anew"),
        ({"shift": 1}, "anew"),
        ({"updates": 2}, "anew"),
    ],
)
def test_the_teacher_is_asked_once_where_images_come_again_as_they_are(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], asked: str
) -> None:
    network = two_layers(seed=8)
    answered: list[int] = []

    def counted(program: Program, images: torch.Tensor, *, both_sides: bool = False) -> torch.Tensor:
        answered.append(len(images))
        return teacher_logits(program, images, both_sides=both_sides)

    for module in ("methods.static", "tuning.update", "tuning.teacher"):
        monkeypatch.setattr(f"calibration.{module}.teacher_logits", counted)
    settings: dict[str, Any] = {"updates": 6, "samples": 8, "precision": "float32"}
    method = Static(**settings | options)
    # Of 24 images 4 are held out, which are looked at before and after.
    actual = calibrate(network, IMAGES, method, 2)
    assert sum(answered) - 2 * 4 == (20 if asked == "once" else method.updates * 8)
    monkeypatch.setattr(Static, "_known_outputs", lambda *_: None)
    expected = calibrate(network, IMAGES, method, 2)
    for name, spec in expected.neurons.items():
        np.testing.assert_allclose(actual.neurons[name].v_init, spec.v_init, rtol=1e-4, atol=1e-5)
    assert any((spec.v_init != network.neurons[name].v_init).any() for name, spec in expected.neurons.items())
