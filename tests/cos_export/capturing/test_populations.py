"""Populations whose channels go different ways are several: no weight of 0 is left for what a synapse does not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from capturing_proof import prove_relu
from torch import Tensor, nn
from torch.nn import functional as F

from cos_export.capturing import capture, captured
from cos_export.capturing.options import check_options
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.simulation import ann_logits


class Cut(nn.Module):
    """Six channels, of which each of two convolutions takes some."""

    def __init__(self, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], *inputs: int) -> None:
        super().__init__()
        self.one, self.act, self.first, self.second = nn.Conv2d(2, 6, 3), nn.ReLU(), first, second
        self.left, self.right = nn.Conv2d(inputs[0], 3, 1), nn.Conv2d(inputs[1], 5, 3)
        self.left_act, self.right_act, self.fc = nn.ReLU(), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.one(x))
        left, right = self.left_act(self.left(self.first(x))), self.right_act(self.right(self.second(x)))
        joined: Tensor = self.fc(torch.cat([left.mean((2, 3)), right.mean((2, 3))], 1))
        return joined


def weights(network: SpikingNetwork) -> int:
    nodes = network.graph.nodes.values()
    return sum(np.size(getattr(node, held)) for node in nodes if (held := facts(node).weights) is not None)


def parts(network: SpikingNetwork) -> list[int]:
    return sorted(len(spec.threshold) for name, spec in network.neurons.items() if name.startswith("act"))


@pytest.mark.parametrize(
    ("first", "second", "inputs", "sizes", "more"),
    [
        (lambda x: x[:, ::2], lambda x: x[:, 1::2], (3, 3), [3, 3], 0),
        (lambda x: x[:, :4], lambda x: x[:, 2:], (4, 4), [2, 2, 2], 0),
        (lambda x: x, lambda x: x[:, [5, 4]], (6, 2), [2, 4], 0),
        # Two channels that nothing reads stay with others, whose synapse has weights of 0 for them.
        (lambda x: x[:, 1:3], lambda x: x[:, 3:5], (2, 2), [2, 4], 2 * 5 * 9),
        (lambda x: x, lambda x: x, (6, 6), [6], 0),
    ],
    ids=["odd and even", "overlapping", "some of all", "some of none", "all"],
)
def test_each_weight_is_one_of_the_modules(first, second, inputs, sizes, more):
    network = prove_relu(Cut(first, second, *inputs), (2, 6, 6))
    assert parts(network) == sizes
    module = 2 * 6 * 9 + inputs[0] * 3 + inputs[1] * 5 * 9 + 8 * 3
    assert weights(network) == module + more


def test_thresholds_by_channel_go_with_their_channels():
    torch.manual_seed(0)
    model, x = Cut(lambda x: x[:, ::2], lambda x: x[:, 1::2], 3, 3).eval(), torch.rand(4, 2, 6, 6) - 0.3
    bounds = torch.tensor([0.05, 0.2, 0.1, 0.3, 0.15, 0.25])
    thresholds: dict[str, Any] = {"act": bounds.numpy(), "left_act": np.float32(50.0), "right_act": np.float32(50.0)}
    network = capture(model, x, thresholds=thresholds)
    with torch.no_grad():
        clipped = torch.minimum(F.relu(model.one(x)), bounds[:, None, None])
        left, right = F.relu(model.left(clipped[:, ::2])), F.relu(model.right(clipped[:, 1::2]))
        expected = model.fc(torch.cat([left.mean((2, 3)), right.mean((2, 3))], 1)).numpy()
    assert (clipped == bounds[:, None, None]).any()
    np.testing.assert_allclose(ann_logits(network, x, device="cpu"), expected, rtol=1e-5, atol=1e-5)


def test_all_parts_of_an_unbounded_relu_are_known_as_such():
    model, x = Cut(lambda x: x[:, ::2], lambda x: x[:, 1::2], 3, 3).eval(), torch.rand(1, 2, 6, 6)
    made = captured(model, x, check_options(None, dict.fromkeys(("act", "left_act", "right_act"), 1.0), "exact"))
    assert set(made.unbounded) == set(made.network.layers)


def test_a_population_that_a_pooling_reads_stays_whole():
    network = prove_relu(Cut(lambda x: F.avg_pool2d(x[:, ::2], 2), lambda x: x[:, 1::2], 3, 3), (2, 6, 6))
    assert parts(network) == [6]
