"""What the integers of a layer weigh, from the neurons before it to its current, beside the weights of float32.

Each source sends 1 from one place after the other, and what that changes of each current is read off, in float64 and
with arithmetic of this file alone. One synapse of 8 bits in the scale of its largest weight is off by 1/127 of that at
most; so may any chain of them be, as far as 24 bits allow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import nir
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.errors import ResolutionWarning
from cos_export.network import SpikingNetwork
from cos_export.quantisation import check_ranges, quantise
from cos_export.simulation import ann_logits

STEPS, BOUND = 4, 1 / 127


class Normalised(nn.Module):
    """(x - mean) / std in forward, before a padded convolution."""

    mean: Tensor
    std: Tensor

    def __init__(self, std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        first = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
        self.net = nn.Sequential(*first, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net((x - self.mean) / self.std)
        return result


class Preactivated(nn.Module):
    """A stream of signed sums that begins with a convolution of the image, read through batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False)) for _ in range(3)
        )
        self.head = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        result: Tensor = self.head(x)
        return result


def large_thresholds() -> nn.Module:
    """Bounds that are thousands of times the weights of a pixel."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Hardtanh(0, 8), nn.Conv2d(8, 8, 3, padding=1), nn.Hardtanh(0, 8)]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))


def bottleneck() -> nn.Sequential:
    """Two convolutions in a row."""
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*first, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10))


def scaled() -> nn.Module:
    """A batch norm that cannot go into the padded convolution before or behind it, with gains that differ."""
    norm = nn.BatchNorm2d(3)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.data = torch.tensor([0.5, 0.4, 0.6])
    norm.running_var.data = torch.tensor([0.01, 0.1, 1.0])
    return nn.Sequential(norm, *bottleneck())


MODELS: dict[str, Callable[[], nn.Module]] = {
    "normalised inside": lambda: Normalised((0.247, 0.243, 0.261)),
    "normalised inside, apart": lambda: Normalised((0.02, 0.3, 1.0)),
    "preactivated": Preactivated,
    "large thresholds": large_thresholds,
    "bottleneck": bottleneck,
    "leaky": lambda: nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.1)),
        *(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10)),
    ),
    "batch norm of the image": scaled,
}


def warmed(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]()
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    if name == "preactivated":
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            model.train()(torch.rand(16, 3, 8, 8))
    return model.eval()


def linear(node: Any, x: Tensor) -> Tensor:
    """What a node makes of x, in float64."""

    def field(name: str) -> Tensor:
        return torch.as_tensor(np.asarray(getattr(node, name)), dtype=torch.float64)

    if isinstance(node, nir.Conv2d):
        same = node.padding == "same"
        padding = [int(k) // 2 for k in node.weight.shape[2:]] if same else np.broadcast_to(node.padding, 2).tolist()
        stride = np.broadcast_to(node.stride, 2).tolist()
        return functional.conv2d(x, field("weight"), field("bias"), stride, padding, 1, int(node.groups))
    if isinstance(node, nir.Affine):
        return functional.linear(x, field("weight"), field("bias"))
    if isinstance(node, nir.Linear):
        return functional.linear(x, field("weight"))
    if isinstance(node, nir.SumPool2d):
        kernel = np.broadcast_to(node.kernel_size, 2).tolist()
        return functional.avg_pool2d(x, kernel, np.broadcast_to(node.stride, 2).tolist(), divisor_override=1)
    assert isinstance(node, nir.Flatten | nir.Output), type(node)
    return x.flatten(1) if isinstance(node, nir.Flatten) else x


def currents(network: SpikingNetwork, sent: dict[str, Tensor]) -> dict[str, Tensor]:
    """What arrives at each layer, and at the Output, if the layers and the Input send what is given."""
    wires, found = dict(sent), {}
    for name in network.order:
        if name != network.input_name:
            arriving = torch.stack([wires[source] for source in network.predecessors[name]]).sum(0)
            if name in network.neurons or name == network.output_name:
                found[name] = arriving
            if name not in wires:
                wires[name] = linear(network.graph.nodes[name], arriving)
    return found


def weights(network: SpikingNetwork) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """The effective weights from each source to each current: (entries of the source, ...)."""
    coding = network.quantisation
    sources = [network.input_name, *sorted(network.neurons)]
    for source in sources:
        size = int(np.prod(network.shapes[source]))
        none = {name: torch.zeros(size, *network.shapes[name], dtype=torch.float64) for name in sources}
        one = torch.eye(size, dtype=torch.float64).reshape(size, *network.shapes[source])
        silent, heard = currents(network, none), currents(network, none | {source: one})
        unit = 1.0 if coding is None or source != network.input_name else 1 / coding.input_scale
        for name, value in heard.items():
            scale: Any = 1.0
            if coding is not None:
                spec = network.neurons.get(name)
                scale = coding.readout_scale if spec is None or spec.scale is None else spec.scale.reshape(-1, 1, 1)
            yield source, name, unit * (value - silent[name]).numpy() * scale


@pytest.mark.parametrize("name", MODELS)
def test_effective_weights_have_the_precision_of_8_bits(name: str) -> None:
    model = warmed(name)
    images = np.random.default_rng(0).random((16, 3, 8, 8), np.float32)
    network = capture(model, images[:1], thresholds=relu_thresholds(model, images, steps=STEPS, device="cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResolutionWarning)
        integers = quantise(network, images, steps=STEPS, device="cpu")
    check_ranges(integers, STEPS)
    expected: dict[str, list[NDArray[Any]]] = {}
    actual: dict[str, list[NDArray[Any]]] = {}
    for found, by_layer in ((network, expected), (integers, actual)):
        for _, layer, weight in weights(found):
            by_layer.setdefault(layer, []).append(weight)
    for layer, parts in expected.items():
        largest = max(np.abs(weight).max() for weight in parts)
        off = np.concatenate([(a - b)[b != 0] for a, b in zip(actual[layer], parts, strict=True)])
        assert np.sqrt(np.mean(off**2)) < BOUND * largest, layer
    # And the logits of the artificial network with them.
    logits, whole = ann_logits(network, images, device="cpu"), ann_logits(integers, images, device="cpu")
    assert np.sqrt(np.mean((whole - logits) ** 2)) < 0.03 * logits.std()


def test_what_24_bits_do_not_hold_is_said_with_the_layer_and_by_how_much() -> None:
    """15,000 steps leave the potentials of the layer behind two synapses a few integers each."""
    model = warmed("bottleneck")
    images = np.random.default_rng(0).random((16, 3, 8, 8), np.float32)
    network = capture(model, images[:1], thresholds=relu_thresholds(model, images, steps=STEPS, device="cpu"))
    with pytest.warns(ResolutionWarning, match=r"Layer 'layer_4': its current in integers is off by \d+ % .*'layer_2'"):
        quantise(network, images, steps=15_000, device="cpu")
