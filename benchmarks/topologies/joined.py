"""Networks that join channels: dense ones, Inception, SqueezeNet, ShuffleNets, a U-Net."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from topologies.blocks import Joined, Summed, classifier, unit

__all__ = ["JOINED"]

Entry = tuple[tuple[int, ...], Callable[[], nn.Module]]


def before(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Batch norm and activation before the convolution."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(inputs), nn.ReLU(), conv]


def dense(growth: int, blocks: tuple[int, ...], *, narrow: bool) -> nn.Module:
    """Each layer reads all before it; a narrow one through 1 x 1 first, and with half the channels between blocks."""
    width = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False)]
    for i, count in enumerate(blocks):
        for _ in range(count):
            inner = (
                [*before(width, 4 * growth, 1), *before(4 * growth, growth, 3)] if narrow else before(width, growth, 3)
            )
            layers.append(Joined(nn.Identity(), nn.Sequential(*inner)))
            width += growth
        if i + 1 < len(blocks):
            outputs = width // 2 if narrow else width
            layers += [*before(width, outputs, 1), nn.AvgPool2d(2)]
            width = outputs
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), *classifier(width))


def inception(inputs: int) -> nn.Module:
    """To 32 channels, by 1 x 1, 3 x 3, two 3 x 3, and a max pooling."""
    third = nn.Sequential(*unit(inputs, 4, 1), *unit(4, 8), *unit(8, 8))
    pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), *unit(inputs, 8, 1))
    return Joined(unit(inputs, 8, 1), nn.Sequential(*unit(inputs, 6, 1), *unit(6, 8)), third, pooled)


def googlenet() -> nn.Module:
    middle = [inception(16), inception(32), nn.MaxPool2d(3, 2, 1), inception(32), inception(32)]
    return nn.Sequential(*unit(3, 16), *middle, *classifier(32))


def factorised(inputs: int) -> nn.Module:
    """To 32 channels, with rows and columns apart, and an average pooling."""
    long = nn.Sequential(*unit(inputs, 8, 1), *unit(8, 8, (1, 7)), *unit(8, 8, (7, 1)))
    split = nn.Sequential(*unit(inputs, 8, 1), Joined(unit(8, 4, (1, 3)), unit(8, 4, (3, 1))))
    return Joined(unit(inputs, 8, 1), long, split, nn.Sequential(nn.AvgPool2d(3, 1, 1), *unit(inputs, 8, 1)))


def inception_v3() -> nn.Module:
    reduction = Joined(unit(32, 16, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*unit(3, 16, 3, 2), factorised(16), reduction, factorised(48), *classifier(32))


def fire(inputs: int, squeezed: int, outputs: int) -> nn.Module:
    squeeze = [nn.Conv2d(inputs, squeezed, 1), nn.ReLU()]
    one, three = nn.Conv2d(squeezed, outputs // 2, 1), nn.Conv2d(squeezed, outputs // 2, 3, padding=1)
    return nn.Sequential(*squeeze, Joined(nn.Sequential(one, nn.ReLU()), nn.Sequential(three, nn.ReLU())))


def squeezenet() -> nn.Module:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers = [nn.Conv2d(3, 16, 3, 2), nn.ReLU(), pool, fire(16, 4, 16), fire(16, 4, 16), pool, fire(16, 8, 32)]
    head = [nn.Dropout(), nn.Conv2d(32, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head)


class Shuffle(nn.Module):
    """Channels of `groups` groups in turn."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        samples, channels, height, width = x.shape
        grouped = x.view(samples, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(samples, channels, height, width)


def shuffled(width: int) -> nn.Module:
    few = width // 4
    inner = [*unit(width, few, 1, groups=2), Shuffle(2), *unit(few, few, groups=few, act=None)]
    return Summed(nn.Sequential(*inner, *unit(few, width, 1, groups=2, act=None)), nn.Identity())


def shufflenet_v1() -> nn.Module:
    first = [*unit(3, 16, 3, 2), shuffled(16), shuffled(16)]
    return nn.Sequential(*first, *unit(16, 32, 3, 2), shuffled(32), *classifier(32))


class Half(nn.Module):
    """Half of the channels as they are beside a branch on the others, and both shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        middle = unit(half, half, groups=half, act=None)
        self.branch, self.shuffle = nn.Sequential(*unit(half, half, 1), *middle, *unit(half, half, 1)), Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, given = x.chunk(2, dim=1)
        outputs: Tensor = self.shuffle(torch.cat([kept, self.branch(given)], 1))
        return outputs


def halved(inputs: int, outputs: int) -> nn.Module:
    half = outputs // 2
    beside = nn.Sequential(*unit(inputs, inputs, 3, 2, groups=inputs, act=None), *unit(inputs, half, 1))
    inner = [*unit(inputs, half, 1), *unit(half, half, 3, 2, groups=half, act=None), *unit(half, half, 1)]
    return nn.Sequential(Joined(beside, nn.Sequential(*inner)), Shuffle(2))


def shufflenet_v2() -> nn.Module:
    return nn.Sequential(*unit(3, 8), halved(8, 16), Half(16), halved(16, 32), Half(32), *classifier(32))


class DualPath(nn.Module):
    """A sum over the first channels and a join of the others."""

    def __init__(self, inputs: int, kept: int, more: int) -> None:
        super().__init__()
        self.kept = kept
        self.branch = nn.Sequential(*unit(inputs, 16, 1), *unit(16, 16, groups=4), *unit(16, kept + more, 1, act=None))

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        total = x[:, : self.kept] + y[:, : self.kept]
        return functional.relu(torch.cat([total, x[:, self.kept :], y[:, self.kept :]], 1))


def dual_path() -> nn.Module:
    return nn.Sequential(*unit(3, 24), DualPath(24, 16, 4), DualPath(28, 16, 4), DualPath(32, 16, 4), *classifier(36))


class UNet(nn.Module):
    """Down, up by nearest neighbours, and joined with what was there before: a class for each place."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = unit(3, 8), unit(8, 16), unit(16, 16)
        self.up, self.last = unit(32, 8), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        deep = functional.interpolate(self.middle(functional.max_pool2d(two, 2)), scale_factor=2.0)
        wide = functional.interpolate(self.up(torch.cat([two, deep], 1)), scale_factor=2.0)
        outputs: Tensor = self.last(torch.cat([one, wide], 1))
        return outputs


class Attention(nn.Module):
    """Patches that look at each other, as a vision transformer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        outputs: Tensor = self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))
        return outputs


_IMAGE, _SMALL = (3, 32, 32), (3, 16, 16)

JOINED: dict[str, Entry] = {
    "DenseNet, 3 x 6 layers": (_IMAGE, lambda: dense(6, (6, 6, 6), narrow=False)),
    "DenseNet-BC, 3 x 8 layers": (_IMAGE, lambda: dense(6, (8, 8, 8), narrow=True)),
    "GoogLeNet": (_IMAGE, googlenet),
    "Inception-v3": (_IMAGE, inception_v3),
    "SqueezeNet": (_IMAGE, squeezenet),
    "ShuffleNetV1": (_IMAGE, shufflenet_v1),
    "ShuffleNetV2": (_IMAGE, shufflenet_v2),
    "DPN": (_IMAGE, dual_path),
    "U-Net, nearest upsampling": (_SMALL, UNet),
    "vision transformer": (_IMAGE, Attention),
}
