"""Affine maps by constants, numbers or one for each channel: before, between and after layers."""

import nir
import numpy as np
import pytest
import torch
from capturing_proof import compare, kinds, prove_relu
from narrowing import present
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import inspect_module


class Net(nn.Module):
    """Something on images, a padded convolution, something on its output, a ReLU, something on spikes, a head."""

    def __init__(self, images=None, current=None, spikes=None, shape=(2, 6, 6)):
        super().__init__()
        axes = len(shape) - 1
        self.conv = (nn.Conv1d if axes == 1 else nn.Conv2d)(shape[0], 4, 3, padding=1)
        self.again = (nn.Conv1d if axes == 1 else nn.Conv2d)(4, 4, 3, padding=1)
        per_channel = (-1, *[1] * axes)
        self.register_buffer("mean", torch.tensor([0.3, -0.2])[: shape[0]].view(per_channel))
        self.register_buffer("std", torch.tensor([0.5, 2.0])[: shape[0]].view(per_channel))
        self.gamma = nn.Parameter(torch.tensor([0.5, -2.0, 1.5, 0.1]).view(per_channel))
        self.images, self.current, self.spikes = (f or (lambda m, x: x) for f in (images, current, spikes))
        self.fc = nn.Linear(4 * int(np.prod(shape[1:])), 3)

    def forward(self, x):
        a = F.relu(self.current(self, self.conv(self.images(self, x))))
        return self.fc(F.relu(self.again(self.spikes(self, a))).flatten(1))


PLACES = ("images", "current", "spikes")

MAPS = {
    "normalisation": ("images", lambda m, x: (x - m.mean) / m.std),
    "normalisation with a batch axis": ("images", lambda m, x: x.sub(m.mean[None]).div(m.std[None])),
    "normalisation in place": ("images", lambda m, x: x.clone().sub_(m.mean).div_(m.std)),
    "to both signs": ("images", lambda m, x: 2 * x - 1),
    "a number": ("spikes", lambda m, x: x + 0.25),
    "from a number": ("spikes", lambda m, x: 1 - x),
    "a tensor": ("spikes", lambda m, x: x * torch.tensor(0.5) + torch.tensor([0.1]).squeeze()),
    "factors by channel": ("spikes", lambda m, x: x * m.gamma),
    "factors and offsets by channel": ("spikes", lambda m, x: m.gamma * x + m.gamma),
    "divisors by channel": ("spikes", lambda m, x: x / m.gamma),
    "layer scale": ("current", lambda m, z: m.gamma * z),
    "a factor": ("current", lambda m, z: z * 0.5),
    "an offset": ("current", lambda m, z: z + m.gamma),
    "subtracted from": ("current", lambda m, z: m.gamma - z),
    "a residual with layer scale": ("spikes", lambda m, x: x + m.gamma * m.again(x)),
    "weights computed in forward": ("current", lambda m, z: z * (m.gamma.abs() + 1e-3).sqrt()),
    "one image for all": ("spikes", lambda m, x: x + torch.ones(1, 4, 6, 6) * 0.3),
}


@pytest.mark.parametrize(("place", "mapped"), MAPS.values(), ids=MAPS)
def test_constants(place, mapped):
    prove_relu(Net(**{place: mapped}), (2, 6, 6))


@pytest.mark.parametrize("place", ["images", "spikes"])
def test_signals(place):
    maps = {"images": lambda m, x: (x - m.mean) / m.std, "spikes": lambda m, x: x * m.gamma - m.gamma}
    prove_relu(Net(**{place: maps[place]}, shape=(2, 12)), (2, 12))


def test_features():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)
            self.gain, self.offset = nn.Parameter(torch.rand(5) + 0.5), nn.Parameter(torch.rand(5))

        def forward(self, x):
            x = F.relu(self.one((x - 0.2) / 0.7)) * self.gain + self.offset
            return self.three(F.relu(self.two(x) * 0.5))

    prove_relu(Features(), (6,))


def test_what_follows_a_layer_that_nothing_else_reads_costs_nothing():
    network = prove_relu(Net(current=lambda m, z: m.gamma * (0.5 * z + 1) - m.gamma), (2, 6, 6))
    assert kinds(network) == ["Input", "Conv2d", "IF", "Conv2d", "IF", "Flatten", "Affine", "Output"]


def test_a_normalisation_is_one_synapse():
    network = prove_relu(Net(images=lambda m, x: (x - m.mean) / m.std), (2, 6, 6))
    assert kinds(network)[:3] == ["Input", "Conv2d", "Conv2d"]
    first = network.graph.nodes[network.order[1]]
    np.testing.assert_array_equal(first.weight[:, :, 0, 0], [[2, 0], [0, 0.5]])
    np.testing.assert_allclose(first.bias, [-0.6, 0.1], rtol=1e-6)


def test_many_channels_are_scaled_one_by_one():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(2, 80, 1), nn.BatchNorm2d(80), nn.Linear(80, 3)

        def forward(self, x):
            x = F.relu(self.conv(x))
            x = F.relu(x + self.norm(x))
            return self.fc(x.mean((2, 3)))

    network = prove_relu(Wide(), (2, 4, 4))
    wide = {name: node for name, node in network.graph.nodes.items() if isinstance(node, nir.Conv2d)}
    assert {name: node.weight.shape for name, node in wide.items() if node.groups > 1} == {
        "relu_scaled": (80, 1, 1, 1),
        "norm": (80, 1, 1, 1),
    }


REFUSED = {
    "an image that is added": (lambda m, x: x + torch.arange(144.0).view(4, 6, 6), "add", "place to place"),
    "columns": (lambda m, x: x - torch.arange(6.0), "sub", "place to place"),
    "a gate": (lambda m, x: x * x.mean((2, 3), keepdim=True), "mul", "gate"),
    "division by zero": (lambda m, x: x / torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1), "div", "zero"),
    "division by a signal": (lambda m, x: x / (x + 1), "div", "depends on the input"),
    "not finite": (lambda m, x: x * float("inf"), "mul", "inf"),
    "more axes": (lambda m, x: x + torch.zeros(3, 1, 1, 1), "add", "shape"),
}


@pytest.mark.parametrize(("mapped", "op", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(mapped, op, reason):
    thresholds = {"relu": 1.0, "relu@1": 1.0}
    findings = inspect_module(Net(spikes=mapped), torch.rand(1, 2, 6, 6), thresholds=thresholds)
    blockers = [f for f in findings if f.blocker]
    assert [f.op for f in blockers][:1] == [op]
    assert reason in present(blockers[0].blocker)
    assert blockers[0].fix


def test_a_constant_of_every_pixel_stays_a_constant():
    # A constant image of one value is one number for each channel.
    model = Net(spikes=lambda m, x: x - torch.full((4, 6, 6), 0.5))
    network = prove_relu(model, (2, 6, 6))
    compare(network, model, torch.rand(3, 2, 6, 6))
