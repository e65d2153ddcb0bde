"""Networks with sums: residual ones of all kinds, MobileNets, and what gates them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cos_export import QCFS
from topologies.blocks import Layer, Summed, classifier, unit

__all__ = ["RESIDUAL"]

Entry = tuple[tuple[int, ...], Callable[[], nn.Module]]
Block = Callable[[int, int, int], nn.Module]
"""From input channels, output channels and stride."""


class Padded(nn.Module):
    """Option A of He et al.: every second place, and channels of zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.more = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))


def shortcut(inputs: int, outputs: int, stride: int, *, padded: bool = False) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return Padded(inputs, outputs) if padded else unit(inputs, outputs, 1, stride, act=None)


def basic(act: Layer = nn.ReLU, *, padded: bool = False) -> Block:
    def build(inputs: int, outputs: int, stride: int) -> nn.Module:
        branch = nn.Sequential(*unit(inputs, outputs, 3, stride, act=act), *unit(outputs, outputs, act=None))
        return Summed(branch, shortcut(inputs, outputs, stride, padded=padded), act=act)

    return build


def bottleneck(groups: int = 1) -> Block:
    def build(inputs: int, outputs: int, stride: int) -> nn.Module:
        middle = outputs // 2
        inner = [*unit(inputs, middle, 1), *unit(middle, middle, 3, stride, groups=groups)]
        branch = nn.Sequential(*inner, *unit(middle, outputs, 1, act=None))
        return Summed(branch, shortcut(inputs, outputs, stride))

    return build


def preactivated(inputs: int, outputs: int, stride: int) -> nn.Module:
    first = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)]
    second = [nn.BatchNorm2d(outputs), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)]
    plain = stride == 1 and inputs == outputs
    beside = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return Summed(nn.Sequential(*first, *second), beside, act=None)


def inverted(act: Layer = nn.ReLU6) -> Block:
    """Wide in the middle, and linear at its end."""

    def build(inputs: int, outputs: int, stride: int) -> nn.Module:
        wide = 3 * inputs
        inner = [*unit(inputs, wide, 1, act=act), *unit(wide, wide, 3, stride, groups=wide, act=act)]
        branch = nn.Sequential(*inner, *unit(wide, outputs, 1, act=None))
        return Summed(branch, nn.Identity(), act=None) if stride == 1 and inputs == outputs else branch

    return build


class Gate(nn.Module):
    """Squeeze and excitation: channels times what is computed of all of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1), nn.Sigmoid()]
        self.gate = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = x * self.gate(x)
        return outputs


def gated(inputs: int, outputs: int, stride: int) -> nn.Module:
    branch = nn.Sequential(*unit(inputs, outputs, 3, stride), *unit(outputs, outputs, act=None), Gate(outputs))
    return Summed(branch, shortcut(inputs, outputs, stride))


def separable(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(*unit(inputs, inputs, 3, stride, groups=inputs), *unit(inputs, outputs, 1))


class Scaled(nn.Module):
    """A branch whose channels are each times a number of their own, as ConvNeXt has it, without its norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*unit(width, width, 5, groups=width), nn.Conv2d(width, width, 1))
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.gamma[:, None, None] * self.branch(x))


def stages(
    block: Block, stem: list[nn.Module], widths: tuple[int, ...], blocks: int, end: list[nn.Module]
) -> nn.Module:
    """Blocks in stages, of which all but the first halve height and width."""
    layers, inputs = stem, widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            layers.append(block(inputs, width, 2 if i and not j else 1))
            inputs = width
    return nn.Sequential(*layers, *end, *classifier(inputs))


def residual(block: Block, blocks: int = 2, act: Layer = nn.ReLU) -> nn.Module:
    return stages(block, [*unit(3, 8, act=act)], (8, 16, 32), blocks, [])


def large(block: Block, blocks: int) -> nn.Module:
    """With the stem for large images: 7 x 7 with stride 2, and a max pooling with stride 2."""
    return stages(block, [*unit(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1)], (8, 16, 32, 32), blocks, [])


def preactivation() -> nn.Module:
    stem: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1, bias=False)]
    return stages(preactivated, stem, (8, 16, 32), 2, [nn.BatchNorm2d(32), nn.ReLU()])


class Perceptron(nn.Module):
    """Linear layers with sums between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 48), nn.Linear(48, 10)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 48)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        for block in self.blocks:
            x = functional.relu(x + block(x))
        outputs: Tensor = self.last(x)
        return outputs


class Temporal(nn.Module):
    """A residual network over a signal, with dilated convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 16, 3, padding=1)
        self.blocks = nn.ModuleList(self._block(2**i) for i in range(3))
        self.last = nn.Linear(16, 5)

    @staticmethod
    def _block(dilation: int) -> nn.Module:
        conv = nn.Conv1d(16, 16, 3, padding=dilation, dilation=dilation)
        return nn.Sequential(conv, nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        for block in self.blocks:
            x = functional.relu(x + block(x))
        outputs: Tensor = self.last(x.mean(2))
        return outputs


_IMAGE, _LARGE = (3, 32, 32), (3, 64, 64)

RESIDUAL: dict[str, Entry] = {
    "ResNet-18, large stem": (_LARGE, lambda: large(basic(), 2)),
    "ResNet-50, large stem": (_LARGE, lambda: large(bottleneck(), 3)),
    "ResNet-20, option A": (_IMAGE, lambda: residual(basic(padded=True), 3)),
    "ResNet-20, QCFS": (_IMAGE, lambda: residual(basic(lambda: QCFS(4)), 3, lambda: QCFS(4))),
    "PreAct ResNet": (_IMAGE, preactivation),
    "ResNeXt": (_IMAGE, lambda: residual(bottleneck(4), 2)),
    "SENet": (_IMAGE, lambda: residual(gated, 2)),
    "MobileNetV1": (_IMAGE, lambda: residual(separable, 2)),
    "MobileNetV2": (_IMAGE, lambda: residual(inverted(), 2, nn.ReLU6)),
    "MobileNetV2, SiLU": (_IMAGE, lambda: residual(inverted(nn.SiLU), 2, nn.SiLU)),
    "layer scale": (_IMAGE, lambda: residual(lambda i, o, s: nn.Sequential(*unit(i, o, 3, s), Scaled(o)), 1)),
    "residual perceptron, features": ((64,), Perceptron),
    "temporal convolutions, signals": ((2, 64), Temporal),
}
