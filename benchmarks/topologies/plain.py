"""Networks that are one chain of layers: LeNet, VGG, AlexNet, all-convolutional ones, perceptrons and signals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cos_export import QCFS
from topologies.blocks import Layer, classifier, unit

__all__ = ["PLAIN"]

Entry = tuple[tuple[int, ...], Callable[[], nn.Module]]

_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def lenet(pool: Layer, act: Layer) -> nn.Module:
    features = [nn.Conv2d(1, 6, 5, padding=2), act(), pool(), nn.Conv2d(6, 16, 5), act(), pool(), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(400, 120), act(), nn.Linear(120, 84), act(), nn.Linear(84, 10))


class Example(nn.Module):
    """The first network of many tutorials: functions in forward, dropout, and a log-softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.dropout, self.fc1, self.fc2 = nn.Dropout(0.25), nn.Linear(2304, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        x = torch.flatten(self.dropout(functional.max_pool2d(x, 2)), 1)
        return functional.log_softmax(self.fc2(functional.relu(self.fc1(x))), dim=1)


def vgg(depth: int, pool: Layer, act: Layer = nn.ReLU, *, norm: bool = True) -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for count, width in zip(_STAGES[depth], (8, 16, 24, 32, 32), strict=True):
        for _ in range(count):
            layers += unit(inputs, width, act=act) if norm else [nn.Conv2d(inputs, width, 3, padding=1), act()]
            inputs = width
        layers.append(pool())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 64), act(), nn.Dropout(), nn.Linear(64, 10))


def alexnet() -> nn.Module:
    features = [nn.Conv2d(3, 16, 11, 2, 5), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU()]
    features += [nn.MaxPool2d(3, 2), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 32, 3, padding=1)]
    head = [nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Dropout(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*features, *head)


def network_in_network() -> nn.Module:
    first = [*unit(3, 16, 5), *unit(16, 16, 1), *unit(16, 16, 1), nn.MaxPool2d(3, 2, 1)]
    second = [*unit(16, 24, 5), *unit(24, 24, 1), *unit(24, 24, 1), nn.AvgPool2d(3, 2, 1)]
    return nn.Sequential(*first, *second, *unit(24, 24), *unit(24, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def all_convolutional(act: Layer) -> nn.Module:
    layers = [*unit(3, 16, act=act), *unit(16, 16, 3, 2, act=act), *unit(16, 32, act=act), *unit(32, 32, 3, 2, act=act)]
    return nn.Sequential(*layers, *unit(32, 32, 1, act=act), *classifier(32))


def discriminator() -> nn.Module:
    """Strided convolutions of 4 x 4 with leaky ReLUs, and one logit for real or not."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(32, 1, 4), nn.Flatten(), nn.Sigmoid())


def perceptron(act: Layer) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((784, 64), (64, 48)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), act(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(48, 10))


def m5() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in ((1, 16, 80, 4), (16, 16, 3, 1), (16, 32, 3, 1), (32, 32, 3, 1)):
        layers += [nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10))


def keyword_spotting() -> nn.Module:
    """Depthwise separable convolutions over 40 x 10 coefficients."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, (10, 4), 2, (5, 1)), nn.BatchNorm2d(16), nn.ReLU()]
    for _ in range(3):
        layers += [*unit(16, 16, groups=16), *unit(16, 16, 1)]
    return nn.Sequential(*layers, *classifier(16, 12))


class Autoencoder(nn.Module):
    """Convolutions down, transposed convolutions up, an image at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(*unit(1, 8, 3, 2), *unit(8, 16, 3, 2))
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.up(self.down(x))
        return outputs


def super_resolution() -> nn.Module:
    """Twice the height and width, by moving channels to places."""
    layers = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2))


_MAX, _AVERAGE = (lambda: nn.MaxPool2d(2)), (lambda: nn.AvgPool2d(2))
_IMAGE, _GREY = (3, 32, 32), (1, 28, 28)

PLAIN: dict[str, Entry] = {
    "LeNet-5, max pooling": (_GREY, lambda: lenet(_MAX, nn.ReLU)),
    "LeNet-5, average pooling, QCFS": (_GREY, lambda: lenet(_AVERAGE, lambda: QCFS(4))),
    "MNIST example, log-softmax": (_GREY, Example),
    "VGG-11, max pooling": (_IMAGE, lambda: vgg(11, _MAX, norm=False)),
    "VGG-13, average pooling, QCFS": (_IMAGE, lambda: vgg(13, _AVERAGE, lambda: QCFS(4))),
    "VGG-16, max pooling": (_IMAGE, lambda: vgg(16, _MAX)),
    "VGG-19, average pooling": (_IMAGE, lambda: vgg(19, _AVERAGE)),
    "AlexNet": ((3, 64, 64), alexnet),
    "Network in Network": (_IMAGE, network_in_network),
    "all-convolutional, ReLU6": (_IMAGE, lambda: all_convolutional(nn.ReLU6)),
    "all-convolutional, PReLU": (_IMAGE, lambda: all_convolutional(nn.PReLU)),
    "discriminator, LeakyReLU, one logit": (_IMAGE, discriminator),
    "perceptron, batch norm, Hardtanh": (_GREY, lambda: perceptron(nn.Hardtanh)),
    "M5, signals": ((1, 4000), m5),
    "keyword spotting, 40 x 10": ((1, 40, 10), keyword_spotting),
    "autoencoder, transposed convolutions": (_GREY, Autoencoder),
    "super-resolution, pixel shuffle": ((1, 16, 16), super_resolution),
}
