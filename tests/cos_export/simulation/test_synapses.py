"""What a node computes, against PyTorch."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from cos_export.network.graph import convolution as geometry
from cos_export.simulation.synapses import is_multiple, synapse

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
