"""Small networks whose synapses follow each other without an activation, or whose channels are shuffled.

Each is of the kind of a published one, with fewer blocks: MobileNetV2 (Sandler et al., CVPR 2018) at half its width,
ShuffleNetV2 (Ma et al., ECCV 2018) and the pre-activation ResNet (He et al., ECCV 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "warmed"]


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def bounded() -> nn.Module:
    """ReLU6 with a bound that sums of untrained weights reach, so that its neurons fire."""
    return nn.Hardtanh(0.0, 1.5)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project without an activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden, self.skips = inputs * expansion, stride == 1 and inputs == outputs
        expand = [*_convolution(inputs, hidden, 1), bounded()] if expansion != 1 else []
        filtered = [*_convolution(hidden, hidden, 3, stride, hidden), bounded()]
        self.body = nn.Sequential(*expand, *filtered, *_convolution(hidden, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x) if self.skips else self.body(x)
        return result


def mobilenet() -> nn.Module:
    """Expansion, width at x0.5, repeats and strides as published, but for the number of stages."""
    inputs, blocks = 16, []
    for expansion, outputs, count, stride in ((1, 8, 1, 1), (6, 16, 2, 2), (6, 32, 2, 2)):
        for number in range(count):
            blocks.append(InvertedResidual(inputs, outputs, stride if number == 0 else 1, expansion))
            inputs = outputs
    head = [*_convolution(inputs, 64, 1), bounded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*_convolution(3, 16), bounded(), *blocks, *head)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, or are filtered as well where the map shrinks; then all are shuffled."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, self.stride = outputs // 2, stride
        source = inputs if stride > 1 else half
        self.main = nn.Sequential(
            *(*_convolution(source, half, 1), nn.ReLU()),
            *_convolution(half, half, 3, stride, half),
            *(*_convolution(half, half, 1), nn.ReLU()),
        )
        beside = [*_convolution(inputs, inputs, 3, stride, inputs), *_convolution(inputs, half, 1), nn.ReLU()]
        self.beside = nn.Sequential(*beside) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kept, taken = x.chunk(2, 1) if self.stride == 1 else (x, x)
        joined = torch.cat((self.beside(kept), self.main(taken)), 1)
        batch, channels, height, width = joined.shape
        return (
            joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        )


def shufflenet() -> nn.Module:
    """Two stages of one shrinking unit and one plain one."""
    units = [ShuffleUnit(12, 24, 2), ShuffleUnit(24, 24, 1), ShuffleUnit(24, 48, 2), ShuffleUnit(48, 48, 1)]
    head = [*_convolution(48, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*_convolution(3, 12), nn.ReLU(), *units, *head)


class PreActivation(nn.Module):
    """Norm and activation before each convolution, so that the sum of blocks meets no activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.first(x))
        passed = x if self.shortcut is None else self.shortcut(h)
        result: Tensor = passed + self.conv2(self.relu2(self.second(self.conv1(h))))
        return result


def preactivation_resnet() -> nn.Module:
    """Two stages of two blocks."""
    blocks = [PreActivation(8, 8, 1), PreActivation(8, 8, 1), PreActivation(8, 16, 2), PreActivation(16, 16, 1)]
    head = [nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), *blocks, *head)


NETWORKS = {"MobileNetV2": mobilenet, "ShuffleNetV2": shufflenet, "pre-activation ResNet": preactivation_resnet}


def warmed(name: str, size: int = 8) -> nn.Module:
    """The network in eval mode, its batch norms in the state that some batches of noise leave them in."""
    torch.manual_seed(1)
    model = NETWORKS[name]().train()
    with torch.no_grad():
        for _ in range(12):
            model(torch.rand(16, 3, size, size) * 2 - 0.5)
    return model.eval()
