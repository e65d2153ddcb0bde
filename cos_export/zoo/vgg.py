"""VGG networks (Simonyan and Zisserman, ICLR 2015) with batch norm.

They have average pooling and QCFS activations, or maximum pooling and ReLUs.

Modules are named as in the published QCFS and COS checkpoints, so that those load: `layer{1..5}.{i}`, each
convolution followed by batch norm, activation and dropout, with the pooling last; and `classifier.{i}`, in which the
flattening comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cos_export.training import Recipe
from cos_export.zoo.activations import activation

__all__ = ["VGG", "VGG9_RECIPE", "vgg9", "vgg16"]

VGG9_RECIPE = Recipe(
    epochs=18,
    learning_rate=0.1,
    batch_size=64,
    weight_decay=5e-4,
    shift=4,
    flip=True,
    precision="mixed",
)
"""For a CPU: few epochs, one cycle."""


class VGG(nn.Module):
    """Stages of 3 x 3 convolutions, each with a pooling of 2 x 2 at its end, and linear layers.

    Args:
        stages: The channels of each stage's convolutions.
        hidden: The widths of the linear layers before the readout.
        side: Height and width of the images; 2 to the power of the number of stages must divide it.
        classes: Of the readout.
        levels: L of every activation, or None for ReLUs.
        bias: Whether convolutions have one, which batch norm makes redundant; the published networks do.
        max_pool: Whether the pooling takes the maximum, as Simonyan and Zisserman have it, or else the average.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        hidden: Sequence[int],
        side: int,
        classes: int = 10,
        levels: int | None = 4,
        *,
        bias: bool = True,
        max_pool: bool = False,
    ) -> None:
        super().__init__()
        inputs, self._stages = 3, len(stages)
        for i, widths in enumerate(stages):
            self.add_module(
                f"layer{i + 1}", _stage(inputs, widths, levels, bias, nn.MaxPool2d(2) if max_pool else nn.AvgPool2d(2))
            )
            inputs = widths[-1]
        features = inputs * (side >> len(stages)) ** 2
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            # Dropout keeps the indices of the published networks, which were trained without any.
            layers += [nn.Linear(features, width), activation(levels), nn.Dropout(0.0)]
            features = width
        self.classifier = nn.Sequential(*layers, nn.Linear(features, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (samples, classes) of images (samples, 3, side, side)."""
        x = images
        for i in range(self._stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        logits: Tensor = self.classifier(x)
        return logits


def _stage(inputs: int, widths: Sequence[int], levels: int | None, bias: bool, pool: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width)]
        layers += [activation(levels), nn.Dropout(0.0)]
        inputs = width
    return nn.Sequential(*layers, pool)


def vgg16(levels: int | None = 4, classes: int = 10, *, side: int = 32) -> VGG:
    """VGG-16: 13 convolutions and 3 linear layers; 34 million parameters for CIFAR, 138 million for ImageNet."""
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    return VGG(stages, (4096, 4096), side, classes, levels)


def vgg9(levels: int | None = 4, classes: int = 10, *, max_pool: bool = False) -> VGG:
    """A narrow VGG for CIFAR: 8 convolutions and a linear layer, 1.03 million parameters, 37 million products.

    One convolution only runs at 32 x 32, where a channel costs the most.
    """
    stages = ((32,), (64, 64), (96, 96), (192, 192, 192))
    return VGG(stages, (), 32, classes, levels, bias=False, max_pool=max_pool)
