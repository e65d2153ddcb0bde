"""Factors that differ from place to place: a `nir.Scale`, in float32 and in integers."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cos_export.capturing import capture
from cos_export.errors import CaptureError
from cos_export.exporting import export_and_verify
from cos_export.network import SpikingNetwork
from cos_export.quantisation import quantise
from cos_export.simulation import ann_logits
from targets import get

IMAGES = np.random.default_rng(0).random((6, 3, 4, 4), np.float32)


class Masked(nn.Module):
    """Maps times a mask: of the image, of spikes, and of half of the channels of spikes."""

    mask: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(64 + 32, 5)
        self.register_buffer("mask", (torch.rand(4, 4, 4) > 0.4).float())
        self.register_buffer("window", torch.rand(4, 4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardtanh(self.first(x * self.window), 0.0, 0.5) * self.mask
        x = nn.functional.hardtanh(self.second(x) / self.window, 0.0, 0.5)
        result: Tensor = self.head(torch.cat([x.flatten(1), (x[:, ::2] * self.mask[1:3]).flatten(1)], 1))
        return result


def captured() -> tuple[nn.Module, SpikingNetwork]:
    model = Masked().eval()
    return model, capture(model, IMAGES[:1])


def test_factors_by_place_are_exact() -> None:
    model, network = captured()
    with torch.no_grad():
        expected = model(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(ann_logits(network, IMAGES, device="cpu"), expected, atol=1e-6)
    assert sum(isinstance(node, nir.Scale) for node in network.graph.nodes.values()) >= 4


@pytest.mark.parametrize("integers", [False, True], ids=["float32", "int8"])
def test_a_bundle_of_it_passes_parity(integers: bool, tmp_path: Path) -> None:
    _, network = captured()
    if integers:
        network = quantise(network, IMAGES, steps=3, device="cpu")
    targets = [get("pytorch"), get("onnxruntime")]
    _, parity = export_and_verify(network, tmp_path / "b", 3, golden=IMAGES[:3], targets=targets, device="cpu")
    assert parity is not None and parity.passed
    assert not integers or all(target.mismatches == 0 for target in parity.values())


class Shifted(nn.Module):
    """A map plus a number for each place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(16, 5)
        self.place = nn.Parameter(torch.rand(4, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(nn.functional.relu6(self.conv(x) + self.place).flatten(1))
        return result


def test_what_is_added_by_place_is_refused_with_the_reason() -> None:
    with pytest.raises(CaptureError, match="no node of NIR adds a number to each place"):
        capture(Shifted().eval(), IMAGES[:1])
