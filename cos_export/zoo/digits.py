"""A small convolutional network for 8 x 8 grey images of digits."""

from __future__ import annotations

from torch import Tensor, nn

from cos_export.training import Recipe
from cos_export.zoo.activations import activation

__all__ = ["RECIPE", "DigitsNet"]

RECIPE = Recipe(
    epochs=40,
    learning_rate=0.1,
    batch_size=64,
    seed=0,
    weight_decay=1e-3,
    label_smoothing=0.05,
    shift=1,
)
"""What the weights that the package ships were trained with: `cos-export train digits --out digits.safetensors`."""


class _Unit(nn.Sequential):
    """Convolution and batch norm; the activation is left to who joins or pools the result."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))


class DigitsNet(nn.Module):
    """Six convolutions with batch norm, one of them the projection of a residual: about 104,000 parameters.

    (1, 8, 8) -> 32 -> 32 -> pool (32, 4, 4) -> residual 64 -> pool (64, 2, 2) -> 64 -> 10 classes.

    Args:
        levels: L of every activation, or None for ReLUs.
        classes: Of the readout.
    """

    def __init__(self, levels: int | None = 4, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.act1 = _Unit(1, 32, 3), activation(levels)
        self.conv2, self.act2 = _Unit(32, 32, 3), activation(levels)
        self.pool1 = nn.AvgPool2d(2)
        self.conv3, self.act3 = _Unit(32, 64, 3), activation(levels)
        self.conv4, self.act4 = _Unit(64, 64, 3), activation(levels)
        self.shortcut = _Unit(32, 64, 1)
        self.pool2 = nn.AvgPool2d(2)
        self.conv5, self.act5 = _Unit(64, 64, 3), activation(levels)
        self.head = nn.Linear(64 * 2 * 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (samples, classes) of images (samples, 1, 8, 8)."""
        x = self.act1(self.conv1(images))
        x = self.pool1(self.act2(self.conv2(x)))
        x = self.act4(self.conv4(self.act3(self.conv3(x))) + self.shortcut(x))
        x = self.act5(self.conv5(self.pool2(x)))
        logits: Tensor = self.head(x.flatten(1))
        return logits
