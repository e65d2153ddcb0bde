"""Random networks of all that capture takes: the network computes what the module does, whatever meets what."""

import numpy as np
import pytest
import torch
from capturing_proof import compare, randomise
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import capture
from cos_export.qcfs import QCFS

SHAPE = (2, 6, 6)


class Random(nn.Module):
    """Each step takes one or two of the values so far, all (channels, 6, 6), and adds one."""

    def __init__(self, seed, steps=12):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.plan, self.made = [], nn.ModuleList()
        channels = [SHAPE[0]]
        for _ in range(steps):
            # Late values are read more often than early ones, as in real networks.
            a, b = (int(len(channels) - 1 - min(self.rng.geometric(0.5) - 1, len(channels) - 1)) for _ in range(2))
            kind, step, given = self._step(channels[a], channels[b], a, b)
            if step is not None:
                self.made.append(step)
            self.plan.append((kind, a, b, given))
            with torch.no_grad():
                channels.append(self._values(torch.zeros(2, *SHAPE))[-1].shape[1])
        self.head = nn.Linear(channels[-1] + channels[-2] + channels[-3], 3)
        self.act = nn.ReLU6()

    def _step(self, wide, other, a, b):
        kinds = [
            "conv",
            "conv",
            "conv",
            "act",
            "act",
            "norm",
            "cat",
            "add",
            "slice",
            "shuffle",
            "chunk",
            "scale",
            "pool",
        ]
        kind = str(self.rng.choice(kinds))
        if wide + other > 12 and kind == "cat":
            kind = "conv"
        if kind == "conv":
            groups = [g for g in (1, 1, 1, 2, 3, wide) if wide % g == 0]
            g = int(self.rng.choice(groups))
            out = g * int(self.rng.integers(1, max(2, 8 // g) + 1))
            return kind, nn.Conv2d(wide, out, 3, padding=1, groups=g, bias=bool(self.rng.integers(2))), None
        if kind == "act":
            made = (nn.ReLU6(), nn.ReLU(), QCFS(4), nn.ReLU(inplace=False))[int(self.rng.integers(4))]
            return kind, made, None
        if kind == "norm":
            return kind, nn.BatchNorm2d(wide), None
        if kind == "add" and wide != other:
            return "cat" if wide + other <= 12 else "scale", None, 0.5
        if kind in ("slice", "chunk") and wide < 2:
            return "scale", None, -0.7
        if kind == "shuffle":
            divisors = [g for g in range(1, wide + 1) if wide % g == 0]
            return kind, None, int(self.rng.choice(divisors))
        return kind, None, int(self.rng.integers(1, wide)) if kind == "slice" else 1.3

    def _values(self, x):
        values, made = [x], iter(self.made)
        for kind, a, b, given in self.plan:
            left, right = values[a], values[b]
            if kind in ("conv", "act", "norm"):
                values.append(next(made)(left))
            elif kind == "cat":
                values.append(torch.cat((left, right), 1))
            elif kind == "add":
                values.append(left + right)
            elif kind == "slice":
                values.append(left[:, given:])
            elif kind == "chunk":
                values.append(torch.cat(left.chunk(2, 1)[::-1], 1))
            elif kind == "shuffle":
                n, c, h, w = left.shape
                values.append(left.view(n, given, c // given, h, w).transpose(1, 2).reshape(n, c, h, w))
            elif kind == "scale":
                values.append(left * given)
            else:
                values.append(F.avg_pool2d(left, 3, 1, 1))
        return values

    def forward(self, x):
        return self.head(self.act(torch.cat(self._values(x)[-3:], 1)).mean((2, 3)))


def unbounded_relus(model, x):
    """The unbounded ReLUs and their channels."""
    unbounded = []
    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: unbounded.append((name, i[0].shape[1])))
        for name, module in model.named_modules()
        if type(module) is nn.ReLU
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return unbounded


@pytest.mark.parametrize("seed", range(4))
def test_random_networks(seed):
    torch.manual_seed(seed)
    model = randomise(Random(seed).eval(), seed)
    x = torch.rand(6, *SHAPE) * 4 - 1
    # Beyond every activation: a ReLU that a random network never wakes needs a threshold all the same.
    given = {
        key: np.float32(1e3) * (1 + np.arange(channels) if seed % 2 else 1)
        for key, channels in unbounded_relus(model, x)
    }
    network = capture(model, x, thresholds=given)
    compare(network, model, x, tolerance=2e-4)
