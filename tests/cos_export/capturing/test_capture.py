"""A captured network computes what its module computes."""

import copy

import nir
import numpy as np
import pytest
import torch
from narrowing import of_type, present
from torch import nn
from torch.nn import functional as F

from cos_export.capturing import capture, inspect_module
from cos_export.qcfs import QCFS
from cos_export.simulation import ann_logits

IMAGE = (2, 8, 8)


def randomise(model, seed=0):
    """Random weights, batch-norm statistics and thresholds, so that no factor can be forgotten unseen."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            present(module.running_mean).copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            present(module.running_var).copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            if module.affine:
                module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
        if isinstance(module, nn.Conv2d | nn.Linear) and not hasattr(module, "parametrizations"):
            module.weight.data.mul_(2)
        if isinstance(module, QCFS):
            module.threshold.data.copy_(torch.rand((), generator=generator) * 0.5 + 0.2)
    return model


def prove(model, shape=IMAGE, seed=0):
    """Captures `model`, compares both on random inputs, and returns the network."""
    torch.manual_seed(seed)
    randomise(model, seed)
    x = torch.rand(5, *shape) * 2 - 0.5
    network = capture(model, x)
    was = model.training
    with torch.no_grad():
        expected = model.eval()(x).numpy()
    model.train(was)
    actual = ann_logits(network, x, device="cpu")
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the test network is dead"
    nir.NIRGraph(network.graph.nodes, network.graph.edges, type_check=True)
    for name in network.graph.nodes:
        assert name.isidentifier()
    return network


def kinds(network):
    return [type(network.graph.nodes[name]).__name__ for name in network.order]


def head(features, classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))


class Net(nn.Module):
    """A stem, what is under test as a function of it, and a head made to measure."""

    def __init__(self, between, channels=4, shape=IMAGE, **modules):
        super().__init__()
        self.stem, self.act = nn.Conv2d(shape[0], channels, 3, padding=1), QCFS(4)
        for name, module in modules.items():
            setattr(self, name, module)
        self.between = between
        self.eval()
        with torch.no_grad():
            out = between(self, self.act(self.stem(torch.zeros(1, *shape))))
        self.out_act = QCFS(4)
        self.head = nn.Linear(out[0].numel(), 3)

    def forward(self, x):
        x = self.between(self, self.act(self.stem(x)))
        return self.head(x.flatten(1))


CONVOLUTIONS = {
    "plain": {},
    "stride": {"stride": 2},
    "uneven stride": {"stride": (2, 1), "padding": (0, 1)},
    "padding": {"padding": 2},
    "same": {"padding": "same"},
    "valid": {"padding": "valid"},
    "same, even kernel": {"kernel_size": 2, "padding": "same"},
    "same, dilated": {"padding": "same", "dilation": 2},
    "dilation": {"dilation": 2},
    "no bias": {"bias": False},
    "1x1": {"kernel_size": 1},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_2d(options):
    conv = nn.Conv2d(4, 4, **{"kernel_size": 3, **options})
    prove(Net(lambda m, x: m.a(m.conv(x)), conv=conv, a=QCFS(4)))


@pytest.mark.parametrize(
    "options",
    [{"groups": 2}, {"groups": 4}, {"kernel_size": (3, 1)}, {"kernel_size": (1, 5), "padding": "same"}],
    ids=["groups", "depthwise", "tall kernel", "wide kernel"],
)
def test_convolution_2d_that_nir_infers_wrong(options):
    conv = nn.Conv2d(4, 4, **{"kernel_size": 3, **options})
    prove(Net(lambda m, x: m.a(m.conv(x)), conv=conv, a=QCFS(4)))


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"dilation": 2}, {"groups": 2}, {"bias": False}],
    ids=str,
)
def test_convolution_1d(options):
    conv = nn.Conv1d(4, 4, 3, **options)
    length = conv(torch.zeros(1, 4, 12)).shape[-1]
    first = [nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), QCFS(4)]
    prove(nn.Sequential(*first, conv, nn.BatchNorm1d(4), QCFS(4), head(4 * length)), (2, 12))


def test_a_multilayer_perceptron():
    network = prove(nn.Sequential(nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12), QCFS(4), nn.Linear(12, 3)), (6,))
    assert kinds(network) == ["Input", "Affine", "IF", "Affine", "Output"]


def test_neurons_start_at_half_their_threshold():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), QCFS(5, threshold=0.7), nn.Flatten(), nn.Linear(8, 2))
    spec = capture(model, torch.rand(1, 1, 4, 4)).neurons["layer_1"]
    assert spec.shape == (2, 2, 2)
    assert spec.threshold.dtype == spec.v_init.dtype == np.float32
    assert (spec.threshold == np.float32(0.7)).all()
    assert (spec.v_init == np.float32(0.7) / 2).all()
    assert spec.levels == 5
    assert spec.condition == ">="
    assert spec.reset == "subtract"


def test_nodes_are_plain_nir():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), QCFS(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2))
    graph = capture(model, torch.rand(1, 1, 6, 6)).graph
    conv, neuron, pool, flat, _ = (graph.nodes[f"layer_{i}"] for i in range(5))
    assert conv.input_shape == (6, 6)
    assert conv.weight.dtype == np.float32
    assert (conv.stride, conv.padding, conv.dilation) == ((1, 1), (0, 0), (1, 1))
    assert neuron.r.shape == neuron.v_reset.shape == (2, 4, 4)
    assert isinstance(pool, nir.SumPool2d)
    assert (flat.start_dim, flat.end_dim) == (-3, -1)


def test_the_threshold_and_the_pool_divisor_are_in_the_next_weights():
    last = nn.Linear(8, 2)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), QCFS(4, threshold=2.0), nn.AvgPool2d(2), nn.Flatten(), last)
    graph = capture(model, torch.rand(1, 1, 6, 6)).graph
    np.testing.assert_array_equal(graph.nodes["layer_4"].weight, last.weight.detach().numpy() * np.float32(0.5))
    np.testing.assert_array_equal(graph.nodes["layer_4"].bias, last.bias.detach().numpy())


# --- batch norm ---------------------------------------------------------------------------------------


def test_batch_norm_is_folded_where_it_alone_reads_the_convolution():
    network = prove(
        Net(
            lambda m, x: m.a(m.drop(m.bn(m.same(m.conv(x))))),
            conv=nn.Conv2d(4, 4, 3),
            same=nn.Identity(),
            bn=nn.BatchNorm2d(4, affine=False),
            drop=nn.Dropout(0.5),
            a=QCFS(4),
        )
    )
    assert "bn" not in network.graph.nodes


def test_two_batch_norms_in_a_row_are_both_folded():
    network = prove(
        Net(
            lambda m, x: m.a(m.bn2(m.bn1(m.conv(x)))),
            conv=nn.Conv2d(4, 4, 3),
            bn1=nn.BatchNorm2d(4),
            bn2=nn.BatchNorm2d(4),
            a=QCFS(4),
        )
    )
    assert not {"bn1", "bn2"} & set(network.graph.nodes)


def test_batch_norm_is_a_synapse_of_its_own_where_another_reads_the_convolution():
    def between(m, x):
        y = m.conv(x)
        return m.a1(m.bn(y)) + m.a2(y)

    network = prove(Net(between, conv=nn.Conv2d(4, 4, 3), bn=nn.BatchNorm2d(4), a1=QCFS(4), a2=QCFS(2)))
    assert network.graph.nodes["bn"].weight.shape == (4, 4, 1, 1)


def test_batch_norm_on_the_input():
    network = prove(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1), QCFS(4), head(256)))
    assert network.predecessors["layer_0"] == ("input",)


@pytest.mark.parametrize("size", [3, 6])
def test_batch_norm_on_features_without_a_linear_layer(size):
    prove(nn.Sequential(nn.BatchNorm1d(6), QCFS(4), nn.BatchNorm1d(6), nn.Linear(6, size), QCFS(2)), (6,))


def test_batch_norm_after_an_activation_and_after_pooling():
    prove(
        Net(
            lambda m, x: m.a(m.conv(m.bn2(m.pool(m.bn1(x))))),
            bn1=nn.BatchNorm2d(4),
            pool=nn.AvgPool2d(2),
            bn2=nn.BatchNorm2d(4),
            conv=nn.Conv2d(4, 4, 3, padding=1),
            a=QCFS(4),
        )
    )


# --- residuals ----------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.act1, self.act2 = QCFS(4), QCFS(4)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return self.act2(out)


@pytest.mark.parametrize(
    ("forward", "synapses"),
    [(lambda m, z: m.a(-z), 1), (lambda m, z: m.a(2 * z) + m.a2(3 * z), 2), (lambda m, z: m.a(z / 2 + m.a2(-z)), 2)],
)
def test_a_synapse_of_which_all_readers_take_copies_is_left_out(forward, synapses):
    layers = {"conv": nn.Conv2d(4, 4, 3), "a": QCFS(4), "a2": QCFS(4)}
    network = prove(Net(lambda m, x: forward(m, m.conv(x)), **layers))
    read = {source for source, _ in network.graph.edges}
    assert read == set(network.order) - {network.output_name}
    assert sum(network.predecessors[name] == ("act",) for name in network.order) == synapses


def test_residual_blocks_by_identity_and_by_projection():
    network = prove(Net(lambda m, x: m.b2(m.b1(x)), b1=Block(4, 4), b2=Block(4, 6, 2)))
    identity = network.graph.nodes["act_scaled"]
    assert isinstance(identity, nir.Conv2d)
    np.testing.assert_array_equal(
        identity.weight[:, :, 0, 0], np.eye(4, dtype=np.float32) * network.neurons["act"].threshold[0, 0, 0]
    )
    assert set(network.predecessors["b1_act2"]) == {"b1_conv2", "act_scaled"}
    assert set(network.predecessors["b2_act2"]) == {"b2_conv2", "b2_shortcut_0"}


def test_a_sum_without_an_activation_feeds_the_next_convolution():
    def between(m, x):
        return m.a(m.conv3(m.conv1(x) + m.a2(m.conv2(x)) + x))

    convs = {f"conv{i}": nn.Conv2d(4, 4, 3, padding=1) for i in (1, 2, 3)}
    prove(Net(between, **convs, a=QCFS(4), a2=QCFS(3)))


def test_a_sum_is_pooled_and_flattened_with_each_scale_pending():
    prove(Net(lambda m, x: m.pool(m.conv(x) + x), conv=nn.Conv2d(4, 4, 3, padding=1), pool=nn.AvgPool2d(2)))


def test_pre_activation_stream_read_twice():
    def between(m, x):
        y = x + m.conv1(m.a1(m.bn1(x)))
        return y + m.conv2(m.a2(m.bn2(y)))

    prove(
        Net(
            between,
            conv1=nn.Conv2d(4, 4, 3, padding=1),
            conv2=nn.Conv2d(4, 4, 3, padding=1),
            bn1=nn.BatchNorm2d(4),
            bn2=nn.BatchNorm2d(4),
            a1=QCFS(4),
            a2=QCFS(4),
        )
    )


@pytest.mark.parametrize("act", [QCFS(4), nn.Identity()], ids=["activated", "bare"])
def test_a_value_added_to_itself(act):
    network = prove(Net(lambda m, x: m.a(m.conv(x) + x + x + x), conv=nn.Conv2d(4, 4, 3, padding=1), a=act))
    assert len(set(network.graph.edges)) == len(network.graph.edges)


def test_a_synapse_added_to_itself():
    def between(m, x):
        y = m.conv(x)
        return m.a(y + y)

    prove(Net(between, conv=nn.Conv2d(4, 4, 3), a=QCFS(4)))


def test_factors_and_differences():
    prove(Net(lambda m, x: m.a(2 * m.conv(x) / 3 - x * 0.25 - (-x)), conv=nn.Conv2d(4, 4, 1), a=QCFS(4)))


def test_add_with_alpha():
    prove(Net(lambda m, x: m.a(torch.add(m.conv(x), x, alpha=0.5)), conv=nn.Conv2d(4, 4, 1), a=QCFS(4)))


@pytest.mark.parametrize("last", [QCFS(4), nn.Identity()])
def test_the_output_may_be_a_sum_or_spikes(last):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.l1, self.last = nn.Linear(6, 4), QCFS(4), nn.Linear(4, 4), last

        def forward(self, x):
            x = self.a(self.first(x))
            return self.last(self.l1(x) + x)

    prove(Sum(), (6,))


# --- pooling ------------------------------------------------------------------------------------------

POOLS = {
    "2": (nn.AvgPool2d(2), 8),
    "overlapping": (nn.AvgPool2d(3, 2), 8),
    "padded": (nn.AvgPool2d(3, 2, padding=1), 8),
    "padded, not counted, without padding": (nn.AvgPool2d(2, count_include_pad=False), 8),
    "oblong": (nn.AvgPool2d((2, 4), (2, 4)), 8),
    "ceil_mode that changes nothing": (nn.AvgPool2d(2, ceil_mode=True), 8),
    "divisor_override": (nn.AvgPool2d(2, divisor_override=3), 8),
    "adaptive": (nn.AdaptiveAvgPool2d((2, 4)), 8),
    "adaptive, one axis kept": (nn.AdaptiveAvgPool2d((None, 1)), 8),
    "adaptive, same size": (nn.AdaptiveAvgPool2d(8), 8),
    "global": (nn.AdaptiveAvgPool2d(1), 8),
}


@pytest.mark.parametrize(("pool", "size"), POOLS.values(), ids=POOLS)
def test_average_pooling(pool, size):
    network = prove(Net(lambda m, x: m.pool(x), pool=pool, shape=(2, size, size)))
    assert not any(isinstance(node, nir.AvgPool2d) for node in network.graph.nodes.values())


def test_pooling_right_before_an_activation():
    prove(Net(lambda m, x: m.a(m.pool(m.conv(x))), conv=nn.Conv2d(4, 4, 3, padding=1), pool=nn.AvgPool2d(2), a=QCFS(4)))


MEANS = {
    "positive axes": lambda m, x: x.mean((2, 3)),
    "negative axes": lambda m, x: x.mean(dim=(-1, -2)),
    "kept": lambda m, x: x.mean((2, 3), keepdim=True),
    "one axis kept": lambda m, x: x.mean(3, keepdim=True),
    "one axis": lambda m, x: x.mean(2),
    "twice": lambda m, x: x.mean(3).mean(2),
    "squeezed": lambda m, x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
    "functional": lambda m, x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1),
}


@pytest.mark.parametrize("between", MEANS.values(), ids=MEANS)
def test_means_over_space(between):
    prove(Net(between))


@pytest.mark.parametrize("pool", [nn.AvgPool1d(2), nn.AvgPool1d(3, 2, padding=1), nn.AdaptiveAvgPool1d(1)])
def test_average_pooling_over_one_axis(pool):
    with torch.no_grad():
        size = pool(torch.zeros(1, 4, 12)).numel()
    prove(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), QCFS(4), pool, head(size)), (2, 12))


def test_mean_over_length():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.head = nn.Conv1d(2, 4, 3), QCFS(4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.a(self.conv(x)).mean(-1))

    prove(Mean(), (2, 9))


# --- shapes, names, what vanishes ---------------------------------------------------------------------

FLATTENS = {
    "module": lambda m, x: nn.Flatten()(x),
    "view": lambda m, x: x.view(x.size(0), -1),
    "view, batch left open": lambda m, x: x.view(-1, 256),
    "reshape": lambda m, x: x.reshape(len(x), -1),
    "flatten": lambda m, x: torch.flatten(x, 1),
    "negative": lambda m, x: x.flatten(-3),
    "in two": lambda m, x: x.flatten(2).flatten(1),
    "channels apart": lambda m, x: x.flatten(1, 2).flatten(1),
    "contiguous": lambda m, x: x.contiguous().view(x.shape[0], -1),
}


@pytest.mark.parametrize("between", FLATTENS.values(), ids=FLATTENS)
def test_spellings_of_flatten(between):
    network = prove(Net(between))
    assert "Flatten" in kinds(network)


def test_what_changes_nothing_vanishes():
    network = prove(
        Net(
            lambda m, x: F.dropout(m.drop2d(m.drop(m.same(x.clone().contiguous()))), training=m.training),
            drop=nn.Dropout(0.5, inplace=True),
            drop2d=nn.Dropout2d(0.5),
            same=nn.Identity(),
        )
    )
    assert kinds(network) == ["Input", "Conv2d", "IF", "Flatten", "Affine", "Output"]


def test_one_module_in_two_places_becomes_two_layers():
    network = prove(Net(lambda m, x: m.a(m.conv(m.a(m.conv(x)))), conv=nn.Conv2d(4, 4, 3, padding=1), a=QCFS(4)))
    assert {"a", "a_1", "conv", "conv_1"} <= set(network.graph.nodes)


def test_names_are_identifiers_and_no_keywords():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.output = nn.Linear(6, 6), nn.Linear(6, 3)
            self.add_module("if", QCFS(4))
            self.add_module("layer-1", nn.ModuleList([nn.Linear(6, 6), QCFS(4)]))

        def forward(self, x):
            x = getattr(self, "if")(self.input(x))
            linear, act = getattr(self, "layer-1")
            return self.output(act(linear(x)))

    network = prove(Named(), (6,))
    assert set(network.graph.nodes) == {*("input", "input_1", "if_", "layer_1_0", "layer_1_1", "output_1", "output")}


def test_nested_modules_and_computed_weights():
    linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(256, 8))
    inner = nn.Sequential(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), QCFS(4)), nn.Flatten())
    prove(nn.Sequential(inner, nn.Sequential(linear, nn.BatchNorm1d(8), QCFS(8)), nn.Linear(8, 3)))


def test_a_fixed_buffer_as_a_factor():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.a, self.last = nn.Linear(6, 4), QCFS(4), nn.Linear(4, 2)
            self.register_buffer("gain", torch.tensor(1.5), persistent=False)

        def forward(self, x):
            return self.last(self.a(self.linear(x) * self.gain))

    prove(Scaled(), (6,))


@pytest.mark.parametrize("seed", range(3))
def test_random_residual_networks(seed):
    generator = torch.Generator().manual_seed(seed)
    stride = int(torch.randint(1, 3, (), generator=generator))
    blocks = {"b1": Block(4, 4), "b2": Block(4, 5, stride), "b3": Block(5, 5)}
    prove(Net(lambda m, x: m.b3(m.b2(m.b1(x))).mean((2, 3)), **blocks), seed=seed)


# --- the user's module ----------------------------------------------------------------------------------


def test_the_module_is_left_as_it_was():
    model = Net(lambda m, x: m.b(m.drop(x)), b=Block(4, 6, 2), drop=nn.Dropout(0.5))
    model.train()
    of_type(model.b, Block).bn1.eval()
    before = copy.deepcopy(model.state_dict())
    flags = {name: module.training for name, module in model.named_modules()}
    x = torch.rand(2, *IMAGE)
    capture(model, x)
    inspect_module(model, x)
    assert {name: module.training for name, module in model.named_modules()} == flags
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("batch", [1, 3])
def test_the_example_may_have_any_batch_size_and_be_an_array(batch):
    model = nn.Sequential(nn.Linear(6, 4), QCFS(4), nn.Linear(4, 2))
    assert capture(model, np.random.rand(batch, 6)).input_shape == (6,)


def test_findings_of_a_module_that_can_be_captured():
    model = Net(lambda m, x: m.a(m.bn(m.conv(x))), conv=nn.Conv2d(4, 4, 3), bn=nn.BatchNorm2d(4), a=QCFS(4))
    findings = inspect_module(model, torch.rand(1, *IMAGE))
    assert [(f.module, f.op) for f in findings] == [
        ("stem", "conv2d"),
        ("act", "qcfs"),
        ("conv", "conv2d"),
        ("bn", "batch_norm"),
        ("a", "qcfs"),
        ("", "flatten"),
        ("head", "linear"),
    ]
    assert all(f.blocker is None and f.becomes for f in findings)
    assert findings[3].becomes == "folded into 'conv'"
    assert __file__ in present(findings[3].line)
