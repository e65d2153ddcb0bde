"""Clips whose bounds are tensors of the module, beside what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError
from cos_export.simulation import ann_logits

IMAGES = np.random.default_rng(0).random((6, 2, 4, 4), np.float32) * 4 - 2


class Clipped(nn.Module):
    """A convolution, an activation that is a function of it and of this module, and a linear layer."""

    alpha: nn.Parameter
    by_channel: nn.Parameter
    zero: Tensor
    low: Tensor
    by_place: Tensor

    def __init__(self, activation: Callable[[Clipped, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(48, 4)
        self.alpha = nn.Parameter(torch.tensor(0.7))
        self.by_channel = nn.Parameter(torch.tensor([0.3, 0.5, 0.9]).view(1, 3, 1, 1))
        self.register_buffer("zero", torch.zeros(()))
        self.register_buffer("low", torch.tensor([-0.2, 0.0, 0.1]).view(3, 1, 1))
        self.register_buffer("by_place", torch.rand(3, 4, 4))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.activation(self, self.conv(x)).flatten(1))
        return result


EXACT: dict[str, Callable[[Clipped, Tensor], Tensor]] = {
    "tensors": lambda m, z: torch.clamp(z, m.zero, m.alpha),
    "in place": lambda m, z: z.clamp_(m.zero, m.alpha),
    "made in forward": lambda m, z: torch.clamp(z, torch.zeros_like(m.alpha), functional.softplus(m.alpha)),
    "minimum of a relu": lambda m, z: torch.minimum(functional.relu(z), m.alpha),
    "the bound first": lambda m, z: torch.minimum(m.alpha, functional.relu(z)),
    "maximum of a relu": lambda m, z: functional.relu(z).clamp(max=m.alpha),
    "a number above a relu": lambda m, z: functional.relu(z).clamp(max=0.7),
    "item": lambda m, z: torch.clamp(z, 0, m.alpha.item()),
    "by channel": lambda m, z: torch.clamp(z, torch.zeros_like(m.by_channel), m.by_channel),
    "both by channel": lambda m, z: torch.clamp(z, m.low, m.by_channel),
    "relu by channel": lambda m, z: torch.minimum(torch.relu(z), m.by_channel.view(-1, 1, 1)),
}
"""With one population of neurons each."""


@pytest.mark.parametrize("name", EXACT)
def test_bounds_of_the_module_are_bounds(name: str) -> None:
    model = Clipped(EXACT[name]).eval()
    network = capture(model, IMAGES[:1])
    with torch.no_grad():
        expected = model(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(ann_logits(network, IMAGES, device="cpu"), expected, atol=1e-6)
    assert len(network.layers) == 1
    # Some values lie beyond the bound, or the test would say nothing of it.
    assert (model.conv(torch.from_numpy(IMAGES)) > 0.9).any()


def test_a_lower_or_an_upper_bound_alone() -> None:
    model = Clipped(lambda m, z: functional.hardtanh(torch.maximum(z, m.low), -1.0, 1.0) + torch.minimum(z, m.alpha))
    network = capture(model.eval(), IMAGES[:1], thresholds={"maximum": np.float32(9.0), "minimum": np.float32(9.0)})
    with torch.no_grad():
        expected = model(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(ann_logits(network, IMAGES, device="cpu"), expected, atol=1e-5)


def test_a_relu_that_something_else_reads_stays_one() -> None:
    def both(m: Clipped, z: Tensor) -> Tensor:
        rectified = functional.relu(z)
        return torch.minimum(rectified, m.alpha) + rectified

    model = Clipped(both).eval()
    thresholds = {"relu": np.float32(9.0), "minimum": np.float32(9.0)}
    network = capture(model, IMAGES[:1], thresholds=thresholds)
    with torch.no_grad():
        expected = model(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(ann_logits(network, IMAGES, device="cpu"), expected, atol=1e-5)


def test_bounds_by_place_are_refused() -> None:
    with pytest.raises(CaptureError, match="minimum: it compares what depends on the input with a constant"):
        capture(Clipped(lambda m, z: torch.minimum(functional.relu6(z), m.by_place)).eval(), IMAGES[:1])
    found = check_model(Clipped(lambda m, z: torch.clamp(z, m.zero, m.by_place)).eval(), IMAGES[:1])
    assert "differs from place to place" in (found.blockers[0].blocker or "") and found.blockers[0].op == "clamp"
