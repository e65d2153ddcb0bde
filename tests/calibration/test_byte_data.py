"""Calibration and training on pixels that lie on the device as bytes, against the same images as float32."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import two_layers
from torch import nn

from calibration import FTBC, Static, StaticMethod, calibrate
from calibration.data import CalibrationData, calibration_data
from cos_export.datasets import Dataset, Normalisation, byte_images, stored
from cos_export.device_images import DeviceImages
from cos_export.training import Recipe, train

PIXELS = np.random.default_rng(3).integers(0, 256, (48, 2, 5, 5), np.uint8)
NORMALISED = Normalisation.of([0.5, 0.4], [0.25, 0.3])


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Dataset]:
    """The same images as bytes and as float32."""
    labels = np.arange(48) % 4
    floats = Dataset(PIXELS, labels, "pixels", "").normalised(NORMALISED)
    for module in (byte_images, stored):
        monkeypatch.setattr(module, "AS_BYTES", 0)
    return Dataset(PIXELS, labels, "pixels", "").normalised(NORMALISED), floats


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each batch that was taken, whether it was of bytes on the device."""
    seen, original = list[bool](), DeviceImages.take

    def take(self: DeviceImages, *given: object) -> object:
        seen.append(self._table is not None)
        return original(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(DeviceImages, "take", take)
    return seen


@pytest.mark.parametrize(
    "method",
    [
        Static(updates=6, samples=8, rounds=2, flip=True, shift=1, learning_rate=0.04),
        FTBC(batches=5, samples=8),
    ],
    ids=["static", "ftbc"],
)
def test_a_calibration_comes_to_the_same_to_the_bit(
    both: tuple[Dataset, Dataset], held: list[bool], method: StaticMethod
) -> None:
    network = two_layers(seed=8)
    of_bytes, of_floats = (calibrate(network, data, method, 2, device="cpu") for data in both)
    half = len(held) // 2
    assert half >= 5 and held == [True] * half + [False] * half
    for name, spec in of_floats.neurons.items():
        np.testing.assert_array_equal(of_bytes.neurons[name].v_init, spec.v_init)
        if spec.bias is not None:
            np.testing.assert_array_equal(of_bytes.neurons[name].bias, spec.bias)


def test_a_training_comes_to_the_same_to_the_bit(both: tuple[Dataset, Dataset], held: list[bool]) -> None:
    recipe, weights = Recipe(2, 0.1, 16, shift=1, flip=True), []
    for data in both:
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4))
        for number, parameter in enumerate(model.parameters()):
            parameter.data.copy_(
                parameter.data.new_tensor(np.sin(np.arange(parameter.numel()) + number)).reshape(parameter.shape)
            )
        train(model, data, recipe, device="cpu")
        weights.append([parameter.detach().numpy() for parameter in model.parameters()])
    assert held == [True] * 6 + [False] * 6
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_of_floats_are_read_as_before(both: tuple[Dataset, Dataset], held: list[bool]) -> None:
    data: CalibrationData = calibration_data(two_layers(seed=8), both[1], 8)
    batch = next(data.shuffled(8, 0))
    assert held == [False]
    np.testing.assert_array_equal(batch.images, data.take(batch.numbers.numpy()))
