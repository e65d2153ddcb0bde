"""Crops, paddings, strides, permutations, sums and repetitions: each network computes what the module does."""

import nir
import numpy as np
import pytest
import torch
from capturing_proof import prove_relu
from hypothesis import given, settings
from hypothesis import strategies as st
from narrowing import present
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import check_model, inspect_module
from cos_export.capturing.rewriting.window_operator import window
from cos_export.capturing.sliding import sliding


class Net(nn.Module):
    """A convolution, a ReLU, what is under test, a head."""

    def __init__(self, between, shape=(2, 6, 7), **modules):
        super().__init__()
        self.conv = (nn.Conv1d if len(shape) == 2 else nn.Conv2d)(shape[0], 4, 3, padding=1)
        for name, module in modules.items():
            setattr(self, name, module)
        self.between = between
        self.eval()
        with torch.no_grad():
            self.head = nn.Linear(self.body(torch.zeros(1, *shape)).numel(), 3)

    def body(self, x):
        return self.between(self, F.relu(self.conv(x)))

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def conv(inputs=4, outputs=3, **options):
    return {"c": nn.Conv2d(inputs, outputs, 3, **options)}


MOVES = {
    "crop": (lambda m, x: m.c(x[:, :, 1:5, 2:]), conv()),
    "crop after the convolution": (lambda m, x: F.relu(m.c(x)[:, :, 1:, :-1]), conv()),
    "stride": (lambda m, x: m.c(x[:, :, ::2, ::2]), conv(padding=1)),
    "stride from an odd place": (lambda m, x: F.relu(x[:, :, 1::2, 1::3]), {}),
    "negative bounds": (lambda m, x: F.relu(x[:, 1:-1, -4:-1]), {}),
    "narrow": (lambda m, x: F.relu(x.narrow(2, 1, 3).narrow(1, 0, 2)), {}),
    "padding before a convolution": (lambda m, x: m.c(F.pad(x, (1, 1, 2, 2))), conv()),
    "padding of one side": (lambda m, x: m.c(nn.ZeroPad2d((0, 1, 0, 1))(x)), conv(stride=2)),
    "cropping by padding": (lambda m, x: F.relu(F.pad(x, (-1, 2, 1, -2))), {}),
    "padding with nothing": (lambda m, x: F.relu(F.pad(x, (0, 0, 0, 0))[:, :, :].narrow(1, 0, 4) - 0.2), {}),
    "padding of channels": (lambda m, x: F.relu(F.pad(x, (0, 0, 0, 0, 1, 2))), {}),
    "shortcut of strides and padded channels": (
        lambda m, x: F.relu(m.c(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))),
        conv(4, 8, stride=2, padding=1),
    ),
    "focus": (lambda m, x: m.c(torch.cat([x[..., i::2, j:-1:2] for i in (0, 1) for j in (0, 1)], 1)), conv(16)),
    "one row": (lambda m, x: F.relu(m.c(x)[:, :, 1]), conv()),
    "pooled places": (lambda m, x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0], {}),
    "chosen channels": (lambda m, x: m.c(x[:, [2, 0, 3, 3]]), conv()),
    "chosen by a tensor": (lambda m, x: m.c(x.index_select(1, torch.tensor([3, 1]))), conv(2)),
    "channels last": (lambda m, x: x.permute(0, 2, 3, 1).flatten(1), {}),
    "width first": (lambda m, x: x.transpose(2, 3).contiguous().flatten(1), {}),
    "there and back": (lambda m, x: m.c(x.permute(0, 3, 1, 2).permute(0, 2, 3, 1)), conv()),
    "linear along channels": (
        lambda m, x: F.relu(m.f(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        {"f": nn.Linear(4, 5)},
    ),
    "stack and sum": (lambda m, x: F.relu(torch.stack([x, m.c(x), 2 * x], 0).sum(0)), conv(4, 4, padding=1)),
    "stack and mean": (lambda m, x: F.relu(torch.stack([x, m.c(x)], dim=2).mean(2)), conv(4, 4, padding=1)),
    "stack as channels": (lambda m, x: m.c(torch.stack([x, -x], 2).flatten(1, 2)), conv(8)),
    "groups of channels added": (lambda m, x: F.relu(x.unflatten(1, (2, 2)).sum(2)), {}),
    "groups of channels averaged": (lambda m, x: F.relu(x.unflatten(1, (2, 2)).mean(1)), {}),
    "all channels added": (lambda m, x: F.relu(x.sum(1, keepdim=True)), {}),
    "many channels averaged": (lambda m, x: F.relu(torch.cat([x, x, x], 1).mean(1, keepdim=True)), {}),
    "sum over space": (lambda m, x: F.relu(x.sum((2, 3)) - 1), {}),
    "sum of each row": (lambda m, x: F.relu(x.sum(-1, keepdim=True)), {}),
    "product with a matrix": (lambda m, x: F.relu(x.flatten(1) @ torch.linspace(-1, 1, 504).view(168, 3)), {}),
    "product and bias": (
        lambda m, x: F.relu(torch.addmm(torch.arange(3.0), x.flatten(1), torch.linspace(-1, 1, 504).view(168, 3))),
        {},
    ),
    "channels from space": (lambda m, x: m.c(F.pixel_unshuffle(x[..., :6], 2)), conv(16, padding=1)),
    "a mean added everywhere": (lambda m, x: F.relu(m.c(x + x.mean((2, 3), keepdim=True))), conv()),
    "a mean expanded": (lambda m, x: m.c(x.mean((2, 3), keepdim=True).expand_as(x)), conv()),
    "a pooled branch resized": (
        lambda m, x: m.c(torch.cat([x, F.interpolate(F.adaptive_avg_pool2d(x, 1), (6, 7), mode="bilinear")], 1)),
        conv(8),
    ),
    "transposed convolution": (lambda m, x: F.relu(m.t(x)), {"t": nn.ConvTranspose2d(4, 3, 3, padding=1)}),
    "transposed, groups and dilation": (
        lambda m, x: F.relu(m.t(x)),
        {"t": nn.ConvTranspose2d(4, 6, (3, 2), padding=(1, 0), groups=2, dilation=(1, 2), bias=False)},
    ),
    "transposed from one place": (
        lambda m, x: F.relu(m.t(x.mean((2, 3), keepdim=True))),
        {"t": nn.ConvTranspose2d(4, 3, 4, stride=2)},
    ),
}


@pytest.mark.parametrize(("between", "modules"), MOVES.values(), ids=MOVES)
def test_maps(between, modules):
    prove_relu(Net(between, **modules), (2, 6, 7), per_channel=True)


SIGNALS = {
    "crop": lambda m, x: F.relu(x[:, :, 2:-1]),
    "stride": lambda m, x: F.relu(x[:, 1:, ::3]),
    "padding": lambda m, x: F.relu(F.avg_pool1d(F.pad(x, (2, 0)), 3)),
    "pooling": lambda m, x: F.relu(F.avg_pool1d(x, 3, 2, 1) - 0.1),
    "sum": lambda m, x: F.relu(x.sum(2)),
    "permuted": lambda m, x: x.permute(0, 2, 1).flatten(1),
    "transposed": lambda m, x: F.relu(m.t(x)),
    "resized": lambda m, x: F.relu(x + F.interpolate(x.mean(2, keepdim=True), 9)),
}


@pytest.mark.parametrize("between", SIGNALS.values(), ids=SIGNALS)
def test_signals(between):
    prove_relu(Net(between, (2, 9), t=nn.ConvTranspose1d(4, 3, 3, padding=1)), (2, 9), per_channel=True)


SIZES = st.integers(1, 9)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.integers(-4, 9), st.integers(1, 4), SIZES)
def test_a_window_is_a_convolution(size, first, step, count):
    x = torch.arange(1.0, size + 1)
    expected = [x[i].item() if 0 <= i < size else 0.0 for i in range(first, first + step * count, step)]
    assert window(x[None], [first], [step], [count])[0].tolist() == expected
    one = sliding(size, (first,), step, count)
    weight = torch.zeros(1, 1, one.kernel)
    weight[0, 0, one.entry(first)] = 1
    assert F.conv1d(x[None, None], weight, stride=one.stride, padding=one.padding)[0, 0].tolist() == expected


def test_padding_before_a_convolution_costs_nothing():
    network = prove_relu(Net(lambda m, x: F.relu(m.c(F.pad(x, (1, 1, 2, 2)))), **conv(padding=1)), (2, 6, 7))
    node = network.graph.nodes["c"]
    assert tuple(node.padding) == (3, 2)
    assert sum(isinstance(n, nir.Conv2d) for n in network.graph.nodes.values()) == 2


def test_a_strided_shortcut_is_one_pooling_without_weights_and_one_placing():
    def between(m, x):
        return F.relu(m.c(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))

    network = prove_relu(Net(between, **conv(4, 8, stride=2, padding=1)), (2, 6, 7))
    poolings = [node for node in network.graph.nodes.values() if isinstance(node, nir.SumPool2d)]
    assert [(node.kernel_size.tolist(), node.stride.tolist()) for node in poolings] == [([1, 1], [2, 2])]
    (placed,) = [node.weight for name, node in network.graph.nodes.items() if name.endswith("_placed")]
    assert placed.shape == (8, 4, 1, 1)
    np.testing.assert_array_equal(np.argwhere(placed[:, :, 0, 0]), [[2, 0], [3, 1], [4, 2], [5, 3]])


REFUSED = {
    "reflection": (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "pad", "padding="),
    "padding with ones": (lambda m, x: F.pad(x, (1, 1), value=1.0), "pad", "padding="),
    "flip": (lambda m, x: x.flip(3), "flip", "flatten"),
    "nearest": (lambda m, x: F.interpolate(x, scale_factor=2), "upsample_nearest2d", "strides"),
    "bilinear": (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), "upsample_bilinear2d", "strides"),
    "spread": (lambda m, x: F.relu(m.t(x)), "conv_transpose2d", "stride 1"),
    "shuffle between layers": (lambda m, x: F.relu(F.pixel_shuffle(x, 2)), "pixel_shuffle", "end of the model"),
    "repeated rows": (lambda m, x: x + x.mean(2, keepdim=True), "add", "single places"),
    "chosen rows": (lambda m, x: x[:, :, [0, 2]], "index", "channels only"),
    "activation behind a permutation": (lambda m, x: F.relu(x.permute(0, 2, 3, 1)), "relu", "permute back"),
    "join behind a permutation": (lambda m, x: torch.cat([x.transpose(2, 3), x.transpose(2, 3)], 1), "cat", "one axis"),
    "linear along the width": (lambda m, x: m.f(x), "linear", "flatten"),
    "all channels": (lambda m, x: x.sum(1), "sum", "keepdim"),
    "space and channels": (lambda m, x: x.sum((1, 2)), "sum", "x.mean"),
    "stack along the height": (lambda m, x: torch.stack([x, x], 3), "stack", "torch.cat"),
    "attention": (lambda m, x: (x @ x.transpose(2, 3)).flatten(1), "matmul", "attention"),
}


@pytest.mark.parametrize(("between", "op", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(between, op, fix):
    model = Net(between, t=nn.ConvTranspose2d(4, 3, 2, stride=2), f=nn.Linear(7, 7))
    findings = check_model(model, torch.rand(1, 2, 6, 7), assume_thresholds=True).findings
    blockers = [f for f in findings if f.blocker]
    assert [f.op for f in blockers][:1] == [op]
    assert fix in present(blockers[0].fix)


def test_overwriting_what_was_cut_out_is_noticed():
    def between(m, x):
        part = x[:, :, ::2]
        part += 1
        return F.relu(x)

    findings = inspect_module(Net(between), torch.rand(1, 2, 6, 7), thresholds={"relu": 1.0, "relu@1": 1.0})
    assert [f.op for f in findings if f.blocker] == ["add_"]
