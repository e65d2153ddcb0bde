"""Channels that are joined, cut or re-ordered, signed values that are not spikes, and what they become."""

import nir
import numpy as np
import pytest
import torch
from capturing_proof import compare, kinds, prove_relu, randomise
from narrowing import present
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import capture, inspect_module
from cos_export.qcfs import QCFS
from cos_export.simulation import simulate


class Net(nn.Module):
    """Two convolutions with thresholds of their own, what is under test as a function of both, and a head."""

    def __init__(self, between, shape=(2, 8, 8), **modules):
        super().__init__()
        self.one, self.two = nn.Conv2d(shape[0], 4, 3, padding=1), nn.Conv2d(shape[0], 2, 3, padding=1)
        self.first: nn.Module = nn.ReLU()
        self.second: nn.Module = nn.ReLU()
        for name, module in modules.items():
            setattr(self, name, module)
        self.between = between
        self.eval()
        with torch.no_grad():
            features = self.body(torch.zeros(1, *shape)).numel()
        self.head = nn.Linear(features, 3)

    def body(self, x):
        return self.between(self, self.first(self.one(x)), self.second(self.two(x)))

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def cat(*values):
    return torch.cat(values, 1)


JOINS = {
    "convolution": (lambda m, a, b: F.relu(m.conv(cat(a, b))), {"conv": nn.Conv2d(6, 4, 3)}),
    "convolution, norm": (
        lambda m, a, b: F.relu(m.norm(m.conv(cat(a, b)))),
        {"conv": nn.Conv2d(6, 4, 3, bias=False), "norm": nn.BatchNorm2d(4)},
    ),
    "groups": (lambda m, a, b: F.relu(m.conv(cat(a, b))), {"conv": nn.Conv2d(6, 6, 3, groups=3)}),
    "depthwise": (lambda m, a, b: F.relu(m.conv(cat(a, b))), {"conv": nn.Conv2d(6, 6, 3, groups=6)}),
    "norm, activation": (lambda m, a, b: F.relu(m.norm(cat(a, b))), {"norm": nn.BatchNorm2d(6)}),
    "activation": (lambda m, a, b: F.relu(cat(a, b)), {}),
    "of synapses": (
        lambda m, a, b: F.relu(cat(m.c1(a), m.c2(b))),
        {"c1": nn.Conv2d(4, 3, 1), "c2": nn.Conv2d(2, 5, 3, padding=1)},
    ),
    "flatten": (lambda m, a, b: cat(a, b), {}),
    "of flattened": (lambda m, a, b: cat(a.flatten(1), b.flatten(1)), {}),
    "pooling": (lambda m, a, b: F.avg_pool2d(cat(a, b), 2), {}),
    "global pooling": (lambda m, a, b: cat(a, b).mean((2, 3)), {}),
    "nested": (lambda m, a, b: F.relu(m.conv(cat(a, cat(b, a), b))), {"conv": nn.Conv2d(12, 4, 1)}),
    "with itself": (lambda m, a, b: F.relu(m.conv(cat(a, a))), {"conv": nn.Conv2d(8, 4, 1)}),
    "added": (lambda m, a, b: F.relu(m.conv(cat(a, b)) + cat(b, a)), {"conv": nn.Conv2d(6, 6, 1)}),
    "sum of joins, convolution": (lambda m, a, b: F.relu(m.conv(cat(a, b) + cat(b, a))), {"conv": nn.Conv2d(6, 4, 1)}),
    "factor": (lambda m, a, b: F.relu(m.conv(cat(2 * a, -b) / 3)), {"conv": nn.Conv2d(6, 4, 1)}),
    "negative axis, hstack": (
        lambda m, a, b: F.relu(m.conv(torch.cat((a, torch.hstack((b, a))), -3))),
        {"conv": nn.Conv2d(10, 4, 1)},
    ),
}


@pytest.mark.parametrize(("between", "modules"), JOINS.values(), ids=JOINS)
def test_concatenation(between, modules):
    prove_relu(Net(between, **modules), per_channel=True)


def test_one_threshold_for_each_layer():
    def between(m, a, b):
        return F.relu(m.conv(cat(a, b)[:, 1:] + cat(b, a)[:, 1:]))

    prove_relu(Net(between, conv=nn.Conv2d(5, 6, 3)))


def test_a_convolution_of_a_join_is_one_convolution_for_each_part_with_the_bias_once():
    conv = nn.Conv2d(6, 4, 3)
    model = Net(lambda m, a, b: F.relu(m.conv(cat(a, b))), conv=conv)
    network = prove_relu(model)
    parts = [network.graph.nodes[name] for name in ("conv", "conv_1")]
    assert [part.weight.shape for part in parts] == [(4, 4, 3, 3), (4, 2, 3, 3)]
    np.testing.assert_array_equal(parts[0].bias, present(conv.bias).detach().numpy())
    assert not parts[1].bias.any()
    assert network.predecessors["conv_1"] == ("second",)
    finding = next(f for f in inspect_module(model, torch.rand(1, 2, 8, 8)) if f.module == "conv")
    assert "'conv' and 1 more, one for each part" in finding.becomes


def test_batch_norm_is_folded_into_all_parts():
    modules = {"conv": nn.Conv2d(6, 4, 3, bias=False), "norm": nn.BatchNorm2d(4)}
    network = prove_relu(Net(lambda m, a, b: F.relu(m.norm(m.conv(cat(a, b)))), **modules))
    assert not any("norm" in name for name in network.graph.nodes)


def test_quantised_activations_are_joined_too():
    torch.manual_seed(0)
    model = Net(lambda m, a, b: m.act(m.conv(cat(a, b))), conv=nn.Conv2d(6, 4, 3), act=QCFS(4))
    model.first, model.second = QCFS(4), QCFS(8)
    randomise(model)
    x = torch.rand(4, 2, 8, 8) * 2 - 0.5
    compare(capture(model, x), model, x)


def test_a_join_as_output():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x):
            x = F.relu(self.a(x))
            return cat(self.b(x), F.relu(self.c(x)), x)

    network = prove_relu(Joined(), (6,), per_channel=True)
    assert network.output_shape == (9,)
    assert len(network.predecessors["output"]) == 3


# --- cut and re-ordered -------------------------------------------------------------------------------


def shuffle(x, groups):
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(batch, -1, height, width)


def halves(m, a, b):
    left, right = a.chunk(2, 1)
    return cat(right, F.relu(m.conv(left)), b)


CUTS = {
    "slice": (lambda m, a, b: F.relu(m.conv(a[:, 1:3])), {"conv": nn.Conv2d(2, 4, 3)}),
    "slice with a step": (lambda m, a, b: F.relu(m.conv(a[:, ::2])), {"conv": nn.Conv2d(2, 4, 3)}),
    "from the end": (lambda m, a, b: F.relu(a[:, -1:]), {}),
    "slice of a join": (lambda m, a, b: F.relu(m.conv(cat(a, b)[:, 3:])), {"conv": nn.Conv2d(3, 4, 3)}),
    "chunk": (halves, {"conv": nn.Conv2d(2, 2, 1)}),
    "split": (lambda m, a, b: F.relu(sum(torch.split(a, 2, 1)) + b), {}),
    "split by sizes": (lambda m, a, b: cat(*reversed(torch.split(a, [1, 3], 1))), {}),
    "features": (lambda m, a, b: F.relu(m.fc(a.flatten(1)[:, 7:30])), {"fc": nn.Linear(23, 4)}),
    "shuffle, convolution": (lambda m, a, b: F.relu(m.conv(shuffle(cat(a, b), 3))), {"conv": nn.Conv2d(6, 4, 3)}),
    "shuffle, depthwise": (lambda m, a, b: F.relu(m.conv(shuffle(a, 2))), {"conv": nn.Conv2d(4, 4, 3, groups=4)}),
    "shuffle, activation": (lambda m, a, b: F.relu(shuffle(a, 2)), {}),
    "shuffle, flatten": (lambda m, a, b: shuffle(a, 2), {}),
    "shuffle, pool": (lambda m, a, b: F.avg_pool2d(shuffle(a, 2), 2), {}),
    "permute": (
        lambda m, a, b: m.conv(a.unflatten(1, (2, 2)).permute(0, 2, 1, 3, 4).flatten(1, 2)),
        {"conv": nn.Conv2d(4, 4, 3)},
    ),
    "module": (
        lambda m, a, b: F.relu(m.conv(m.shuffle(a))),
        {"conv": nn.Conv2d(4, 4, 3), "shuffle": nn.ChannelShuffle(2)},
    ),
}


@pytest.mark.parametrize(("between", "modules"), CUTS.values(), ids=CUTS)
def test_parts_and_permutations_of_channels(between, modules):
    prove_relu(Net(between, **modules), per_channel=True)


def test_a_shuffle_costs_nothing_before_a_convolution():
    network = prove_relu(Net(lambda m, a, b: F.relu(m.conv(shuffle(a, 2))), conv=nn.Conv2d(4, 4, 3)))
    assert not any("placed" in name for name in network.graph.nodes)


def test_a_shuffle_is_a_permutation_where_no_dense_synapse_follows():
    network = prove_relu(Net(lambda m, a, b: F.relu(m.conv(shuffle(a, 2))), conv=nn.Conv2d(4, 4, 3, groups=4)))
    permutation = network.graph.nodes["first_placed"].weight[:, :, 0, 0]
    theta = network.neurons["first"].threshold.flat[0]
    np.testing.assert_array_equal(permutation, np.eye(4, dtype=np.float32)[[0, 2, 1, 3]] * theta)


REFUSED = {
    "join along height": (lambda m, a, b: torch.cat((a, a), 2), "cat"),
    "join with a constant": (lambda m, a, b: cat(a, torch.zeros(a.shape)), "cat"),
    "split along width": (lambda m, a, b: a.split(4, 3)[0], "split"),
    "an activation between the reshapes": (
        lambda m, a, b: F.avg_pool2d(F.relu(a.view(a.shape[0], 2, 2, 8, 8)).flatten(1, 2), 2),
        "relu",
    ),
}


@pytest.mark.parametrize(("between", "op"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_of_it(between, op):
    thresholds = {"first": 1.0, "second": 1.0}
    findings = inspect_module(Net(between), torch.rand(1, 2, 8, 8), thresholds=thresholds)
    blockers = [f for f in findings if f.blocker]
    assert [f.op for f in blockers][:1] == [op]
    assert blockers[0].fix
    assert present(blockers[0].line).startswith(__file__)


def test_overwriting_a_part_in_place_is_noticed():
    def between(m, a, b):
        left, _ = a.chunk(2, 1)
        left += b
        return a

    thresholds = {"first": 1.0, "second": 1.0}
    findings = inspect_module(Net(between), torch.rand(1, 2, 8, 8), thresholds=thresholds)
    assert [f.op for f in findings if f.blocker] == ["add_"]


# --- signed values: linear bottlenecks ----------------------------------------------------------------


class InvertedResidual(nn.Module):
    """MobileNetV2's: expand, filter each channel, project without an activation, add."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.layers(x)


def test_a_linear_bottleneck_is_a_sum_of_synapses_that_the_next_synapse_reads():
    blocks = nn.Sequential(InvertedResidual(4, 8), InvertedResidual(4, 8))
    network = prove_relu(Net(lambda m, a, b: m.blocks(a), blocks=blocks), per_channel=True)
    # The stream is the first layer's spikes and two projections, added on the wire, never a neuron of its own.
    assert set(network.predecessors["blocks_1_layers_0"]) == {"first_scaled", "blocks_0_layers_6"}
    assert len(network.layers) == 2 + 4
    flat = [name for name in network.order if isinstance(network.graph.nodes[name], nir.Flatten)]
    assert any("blocks_1_layers_6" in network.predecessors[name] for name in flat)


def test_the_signed_stream_keeps_its_sign_in_spikes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU6(), nn.Linear(16, 8), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 3))
    x = torch.randn(4, 6)
    network = capture(model, x)
    assert kinds(network) == ["Input", "Affine", "IF", "Affine", "Affine", "IF", "Affine", "Output"]
    trace = simulate(network, x, 2048, device="cpu", record_spikes=False)
    np.testing.assert_allclose(trace.logits[-1], model(x).detach().numpy(), atol=2e-2)
