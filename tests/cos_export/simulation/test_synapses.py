"""What a node computes, against PyTorch."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from cos_export.network.graph import convolution as geometry
from cos_export.simulation.synapses import is_multiple, synapse

PICKS = {
    "depthwise": (6, 6, 6, np.float32),
    "a channel for each": (12, 36, 3, np.float32),
    "one in a group": (4, 16, 4, np.float64),
    "wide": (72, 144, 2, np.float64),
}


@pytest.mark.parametrize("kind", PICKS)
def test_channels_that_are_picked_are_multiples_to_the_bit(kind: str) -> None:
    inputs, outputs, groups, dtype = PICKS[kind]
    rng = np.random.default_rng(0)
    size, each = inputs // groups, outputs // groups
    weight, picks = np.zeros((outputs, size, 1, 1), np.float32), rng.integers(0, size, outputs)
    factors = rng.normal(size=outputs).astype(np.float32)
    factors[2] = 0
    weight[np.arange(outputs), picks, 0, 0] = factors
    node = nir.Conv2d((5, 4), weight, 1, 0, 1, groups, np.zeros(outputs, np.float32))
    values = rng.normal(size=(3, inputs, 5, 4)).astype(dtype)
    expected = values[:, np.arange(outputs) // each * size + picks] * factors.astype(dtype)[:, None, None]
    apply = synapse(node, lambda array: torch.from_numpy(np.asarray(array).astype(dtype)))
    for laid in (torch.from_numpy(values), torch.from_numpy(values).contiguous(memory_format=torch.channels_last)):
        actual = apply(laid)
        assert np.array_equal(actual.numpy(), expected)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    # A gradient passes as through any convolution.
    place = torch.from_numpy(values).requires_grad_()
    apply(place).sum().backward()
    gradient = np.zeros(inputs)
    np.add.at(gradient, np.arange(outputs) // each * size + picks, factors)
    assert place.grad is not None
    np.testing.assert_allclose(place.grad[0, :, 0, 0].numpy(), gradient, rtol=1e-5)


def test_two_weights_in_a_row_are_a_sum() -> None:
    weight = np.array([[1, 0], [2, 3], [0, 1], [1, 0]], np.float32)[:, :, None, None]
    node = nir.Conv2d((1, 1), weight, 1, 0, 1, 2, np.array([0, 0, 0, 0], np.float32))
    values = torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1)
    actual = synapse(node, lambda array: torch.as_tensor(np.asarray(array)))(values)
    assert actual.flatten().tolist() == [1, 32, 1000, 100]


EYE = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
NOUGHT = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("weight", "bias", "stride", "padding", "groups", "exact"),
    [
        (1.75 * EYE, NOUGHT, 1, 0, 1, True),
        (-EYE, NOUGHT, 1, 0, 1, True),
        (EYE, NOUGHT + 0.5, 1, 0, 1, False),
        (EYE * np.array([1, 1, 2], np.float32).reshape(3, 1, 1, 1), NOUGHT, 1, 0, 1, False),
        (EYE + np.float32(1e-6), NOUGHT, 1, 0, 1, False),
        (EYE[[1, 0, 2]], NOUGHT, 1, 0, 1, False),
        (EYE, NOUGHT, 2, 0, 1, False),
        (EYE, NOUGHT, 1, 1, 1, False),
        (np.ones((3, 1, 1, 1), np.float32), NOUGHT, 1, 0, 3, False),
        (EYE[:2], NOUGHT[:2], 1, 0, 1, False),
        (np.ones((3, 3, 3, 3), np.float32), NOUGHT, 1, 1, 1, False),
    ],
)
def test_multiples_of_the_identity(
    weight: np.ndarray, bias: np.ndarray, stride: int, padding: int, groups: int, exact: bool
) -> None:
    node = nir.Conv2d((5, 5), weight, stride, padding, 1, groups, bias)
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = functional.conv2d(images, torch.from_numpy(weight), torch.from_numpy(bias), stride, padding, 1, groups)
    given = torch.from_numpy(weight), torch.from_numpy(bias), geometry(node)
    actual = synapse(node, lambda array: torch.as_tensor(np.asarray(array)))(images)
    assert torch.equal(actual, expected) if exact else torch.allclose(actual, expected, atol=1e-6)
    assert is_multiple(*given) == exact
