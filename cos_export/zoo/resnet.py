"""Residual networks (He et al., CVPR 2016) with QCFS activations, or with ReLUs as published.

Modules are named as in the published COS and SRP checkpoints, so that those load, and QCFS's by `key_names`:
`conv1.{0,1,2}`, `conv{2,3,...}_x.{block}.residual_function.{0..4}`, `.shortcut.{0,1}`, `.relu`, and `fc`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cos_export.training import Recipe
from cos_export.zoo.activations import activation

__all__ = ["RESNET20_RECIPE", "ResNet", "resnet18", "resnet20", "resnet34"]

RESNET20_RECIPE = Recipe(
    epochs=36,
    learning_rate=0.1,
    batch_size=64,
    weight_decay=5e-4,
    shift=4,
    flip=True,
    precision="mixed",
)
"""What ResNet-20's weights were trained with."""


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, levels: int | None) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(levels),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = activation(levels)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.residual_function(x) + self.shortcut(x))
        return activated


class ResNet(nn.Module):
    """A residual network: a first convolution, stages of blocks, an average over what is left, and a linear layer.

    Every stage but the first halves height and width in its first block.

    Args:
        blocks: Blocks in each stage.
        widths: Channels of each stage; the first convolution has the first of them.
        classes: Of the readout.
        levels: L of every activation, or None for ReLUs.
        large: Whether images are large, as ImageNet's 224 x 224: the first convolution is 7 x 7 with stride 2, and
            an average pooling of 3 x 3 with stride 2 follows it, where He et al. have a maximum.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        classes: int = 10,
        levels: int | None = 4,
        *,
        large: bool = False,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, widths[0], kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(widths[0]),
            activation(levels),
        )
        self.pool = nn.AvgPool2d(3, 2, padding=1) if large else nn.Identity()
        inputs, self._stages = widths[0], len(blocks)
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            self.add_module(f"conv{i + 2}_x", _stage(inputs, width, 1 if i == 0 else 2, count, levels))
            inputs = width
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (samples, classes) of images (samples, 3, height, width)."""
        x = self.pool(self.conv1(images))
        for i in range(self._stages):
            x = self.get_submodule(f"conv{i + 2}_x")(x)
        logits: Tensor = self.fc(self.avg_pool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int, blocks: int, levels: int | None) -> nn.Sequential:
    first = _Block(inputs, outputs, stride, levels)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1, levels) for _ in range(blocks - 1)))


def resnet20(levels: int | None = 4, classes: int = 10) -> ResNet:
    """ResNet-20 for CIFAR: 19 convolutions and a linear layer, 270,000 parameters."""
    return ResNet((3, 3, 3), (16, 32, 64), classes, levels)


def resnet18(levels: int | None = 4, classes: int = 10, *, large: bool = False) -> ResNet:
    """ResNet-18: 17 convolutions and a linear layer, 11 million parameters."""
    return ResNet((2, 2, 2, 2), (64, 128, 256, 512), classes, levels, large=large)


def resnet34(levels: int | None = 4, classes: int = 10, *, large: bool = False) -> ResNet:
    """ResNet-34: 33 convolutions and a linear layer, 21 million parameters."""
    return ResNet((3, 4, 6, 3), (64, 128, 256, 512), classes, levels, large=large)
