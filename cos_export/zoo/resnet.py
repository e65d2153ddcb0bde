"""Residual networks for CIFAR (He et al., CVPR 2016, section 4.2) with QCFS activations.

Modules are named as in the published QCFS and COS checkpoints, so that those load.
"""

from __future__ import annotations

from torch import Tensor, nn

from cos_export.qcfs import QCFS
from cos_export.training import Recipe

__all__ = ["RESNET20_RECIPE", "CifarResNet", "resnet20"]

RESNET20_RECIPE = Recipe(
    epochs=16,
    learning_rate=0.15,
    batch_size=128,
    seed=0,
    weight_decay=5e-4,
    label_smoothing=0.05,
    shift=4,
    flip=True,
)
"""What ResNet-20's weights were trained with."""

_THRESHOLD = 2.0
# Batch norm hands each activation values of about unit variance: two standard deviations are one threshold.


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, levels: int) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            QCFS(levels, _THRESHOLD),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = QCFS(levels, _THRESHOLD)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.residual_function(x) + self.shortcut(x))
        return activated


class CifarResNet(nn.Module):
    """A residual network for 3 x 32 x 32 images: 3 stages of 16, 32 and 64 channels.

    Args:
        blocks: Blocks in each stage; 3 make ResNet-20.
        classes: Of the readout.
        levels: L of every activation.
    """

    def __init__(self, blocks: int, classes: int = 10, levels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), QCFS(levels, _THRESHOLD)
        )
        self.conv2_x = _stage(16, 16, 1, blocks, levels)
        self.conv3_x = _stage(16, 32, 2, blocks, levels)
        self.conv4_x = _stage(32, 64, 2, blocks, levels)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (samples, classes) of images (samples, 3, 32, 32)."""
        x = self.conv4_x(self.conv3_x(self.conv2_x(self.conv1(images))))
        logits: Tensor = self.fc(self.avg_pool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int, blocks: int, levels: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride, levels)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1, levels) for _ in range(blocks - 1)))


def resnet20(levels: int) -> CifarResNet:
    """ResNet-20 for CIFAR-10: 19 convolutions and a linear layer, 270,000 parameters."""
    return CifarResNet(3, levels=levels)
