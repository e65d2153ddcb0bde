"""What the topologies are put together from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Joined", "Summed", "classifier", "unit", "with_statistics"]

Layer = Callable[[], nn.Module]


def unit(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    act: Layer | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, batch norm, and an activation if there is to be one."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (rows // 2, columns // 2)
    conv = nn.Conv2d(inputs, outputs, (rows, columns), stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act()] if act else []))


class Summed(nn.Module):
    """The sum of what several branches make of one input, with an activation if there is to be one."""

    def __init__(self, *branches: nn.Module, act: Layer | None = nn.ReLU) -> None:
        super().__init__()
        self.branches, self.act = nn.ModuleList(branches), act() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """act(sum of the branches)."""
        first, *others = (branch(x) for branch in self.branches)
        for other in others:
            first = first + other
        outputs: Tensor = self.act(first)
        return outputs


class Joined(nn.Module):
    """What several branches make of one input, their channels joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """The branches' channels, in their order."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def classifier(features: int, classes: int = 10) -> list[nn.Module]:
    """A global average and a linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def with_statistics(build: Callable[[], nn.Module], shape: Sequence[int]) -> nn.Module:
    """A network with random weights whose batch norms have seen noise, so that every layer is active."""
    torch.manual_seed(0)
    model = build()
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.rand(8, *shape))
    return model.eval()
