"""Max pooling becomes neurons over differences, the average over the same windows, or is refused."""

from typing import Any

import nir
import numpy as np
import pytest
import torch
from capturing_proof import compare, prove_relu, randomise
from narrowing import present
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError
from cos_export.qcfs import QCFS


def network_of(*layers, shape=(2, 8, 8)):
    torch.manual_seed(0)
    convolution = nn.Conv2d if len(shape) == 3 else nn.Conv1d
    model = nn.Sequential(convolution(2, 4, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(3)).eval()
    model(torch.rand(1, *shape))
    randomise(model)
    for module in model.modules():
        if isinstance(module, QCFS):
            # High enough that the maximum over a window is not the threshold everywhere.
            module.threshold.data.mul_(6)
    return model


def images(shape=(2, 8, 8)):
    return torch.rand(5, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 0.5


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# Each with the neurons that it takes, counted by hand: rows of 8 first, then columns.
POOLS = {
    "2": (nn.MaxPool2d(2), 8 * 4 + 16),
    "2, stride 1": (nn.MaxPool2d(2, 1), 8 * 7 + 7 * 7),
    "3, stride 2": (nn.MaxPool2d(3, 2), 8 * 3 * 2 + 9 * 2),
    "3, stride 2, padding 1": (nn.MaxPool2d(3, 2, 1), 8 * 4 * 2 + 16 * 2),
    "3, stride 1, padding 1": (nn.MaxPool2d(3, 1, 1), None),
    "3, stride 2, ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), 8 * 4 * 2 + 16 * 2),
    "3 x 1": (nn.MaxPool2d((3, 1), (2, 1)), 3 * 8 * 2),
    "1 x 1, stride 2": (nn.MaxPool2d(1, 2), 0),
    "dilation 3, padding 1, ceil": (nn.MaxPool2d(2, 2, 1, dilation=3, ceil_mode=True), None),
    "adaptive": (nn.AdaptiveMaxPool2d((2, 4)), None),
    "global": (nn.AdaptiveMaxPool2d(1), 7 * 8 + 7),
    "amax over one axis": (Function(lambda x: x.amax(-1, keepdim=True)), 7 * 8),
    "max over one axis": (Function(lambda x: x.max(2).values), 7 * 8),
    "amin": (Function(lambda x: F.max_pool2d(x, 4).amin((2, 3), keepdim=True)), 8 * 6 + 4 * 3 + 3),
    "minimum by signs": (Function(lambda x: -F.max_pool2d(-x, 2)), 8 * 4 + 16),
    "with unread indices": (Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]), 8 * 4 + 16),
    "twice": (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)), 48 + 8 + 4),
    "of channels in another order": (nn.Sequential(nn.ChannelShuffle(2), nn.MaxPool2d(2)), 48),
}


@pytest.mark.parametrize(("pool", "neurons"), POOLS.values(), ids=POOLS)
def test_it_equals_the_module(pool, neurons):
    model, x = network_of(QCFS(4), pool), images()
    network = capture(model, x)
    compare(network, model, x)
    extra = network.neuron_count - 4 * 8 * 8
    assert neurons is None or extra == 4 * neurons
    assert all((spec.v_init == spec.threshold / 2).all() for spec in network.neurons.values())


@pytest.mark.parametrize("pool", [nn.MaxPool1d(4), nn.MaxPool1d(3, 2, 1), nn.AdaptiveMaxPool1d(1), nn.MaxPool1d(2, 1)])
def test_over_one_axis(pool):
    model, x = network_of(QCFS(4), pool, shape=(2, 12)), images((2, 12))
    compare(capture(model, x), model, x)


@pytest.mark.parametrize("between", [[], [nn.Dropout()], [nn.Dropout2d(), nn.Flatten()]], ids=["", "drop", "flatten"])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(2)])
def test_an_activation_behind_it_is_the_same_network(pool, between):
    before, behind = network_of(nn.ReLU6(), pool, *between), network_of(pool, *between, nn.ReLU6(inplace=True))
    x = images()
    one, other = capture(before, x), capture(behind, x)
    compare(other, behind, x)
    assert (
        one.neuron_count == other.neuron_count == 4 * (64 + (8 * 4 + 16 if isinstance(pool, nn.MaxPool2d) else 4 * 15))
    )


@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_an_activation_with_a_negative_side_is_pooled_side_by_side(slope):
    """The largest of relu(z) and the least of relu(-z), of which one is 0."""
    for layers in ([nn.LeakyReLU(slope), nn.MaxPool2d(2)], [nn.MaxPool2d(2), nn.LeakyReLU(slope)]):
        network = prove_relu(network_of(*layers), per_channel=True)
        assert network.neuron_count == (2 if slope else 1) * 4 * (64 + 48)
    model, x = network_of(nn.Hardtanh(), nn.MaxPool2d(2)), images() - 0.5
    compare(capture(model, x), model, x)


def test_a_batch_norm_between_them_goes_before_both():
    class Order(nn.Module):
        def __init__(self, pool_first):
            super().__init__()
            self.conv, self.norm, self.pool_first = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), pool_first

        def forward(self, x):
            x = self.conv(x)
            return F.relu(self.norm(F.max_pool2d(x, 2))) if self.pool_first else F.max_pool2d(F.relu(self.norm(x)), 2)

    first, behind = (network_of(QCFS(4), Order(pool_first)) for pool_first in (True, False))
    assert prove_relu(first).neuron_count == prove_relu(behind).neuron_count
    first[2].norm.weight.data[2] = -0.5
    result = check_model(first, images(), assume_thresholds=True)
    assert ["directly before or after" in present(finding.blocker) for finding in result.blockers] == [True]


def test_the_lenet_of_the_mnist_example():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.conv2_drop = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, 5), nn.Dropout2d()
            self.fc1, self.fc2 = nn.Linear(96, 12), nn.Linear(12, 3)

        def forward(self, x):
            x = F.relu(F.max_pool2d(self.conv1(x), 2))
            x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
            x = x.view(-1, 96)
            x = F.relu(self.fc1(x))
            x = F.dropout(x, training=self.training)
            return self.fc2(x)

    assert len(prove_relu(Net(), (1, 28, 28), per_channel=True).layers) == 3 + 2 * 2


def test_parts_of_a_join_are_pooled_apart():
    class Join(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.relu = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()

        def forward(self, x):
            joined = torch.cat((self.relu(self.left(x)), self.relu(self.right(x))), 1)
            return torch.cat((F.max_pool2d(joined, 3, 1, 1), joined), 1)

    network = prove_relu(network_of(nn.ReLU(), Join()), per_channel=True)
    # Nothing is placed among other channels before it is compared.
    assert not any("placed" in name for name in network.graph.nodes)


class Shortcut(nn.Module):
    """What was pooled at every place, its terms and the layer itself, each on an identity path."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.relu2 = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU6(), nn.ReLU6()

    def forward(self, x):
        pooled = F.max_pool2d(x, 3, 1, 1)
        return self.relu2(self.relu(self.conv(pooled) + pooled) + x)


def test_what_was_pooled_goes_past_a_convolution_through_one_synapse():
    model, x = network_of(QCFS(4), Shortcut()), images()
    network = capture(model, x)
    compare(network, model, x)
    (carrier,) = [name for name in network.predecessors["layer_2_relu"] if "scaled" in name]
    assert len(network.predecessors[carrier]) == 5


class Both(nn.Module):
    def __init__(self, function, first=None, second=None):
        super().__init__()
        self.left, self.right, self.function = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), function
        self.first, self.second = first or nn.ReLU6(), second or nn.ReLU6()

    def forward(self, x):
        return self.function(self.first(self.left(x)), self.second(self.right(x)))


PAIRS = {
    "maximum": (torch.maximum, None),
    "max": (torch.max, None),
    "minimum": (torch.minimum, None),
    "min": (torch.min, None),
    "of other scales": (torch.maximum, nn.Hardtanh(0.0, 2.5)),
    "minimum of other scales": (torch.minimum, nn.Hardtanh(0.0, 2.5)),
    "and pooled": (lambda a, b: F.max_pool2d(torch.maximum(F.max_pool2d(a, 2), F.max_pool2d(b, 2)), 1), None),
}


@pytest.mark.parametrize(("function", "second"), PAIRS.values(), ids=PAIRS)
def test_of_two_values(function, second):
    model, x = network_of(QCFS(4), Both(function, None, second)), images()
    compare(capture(model, x), model, x)


def test_thresholds_of_relus_and_the_comparison_without_them():
    """A difference of ReLUs without a bound has none either."""
    model = network_of(nn.ReLU(), nn.MaxPool2d(2))
    network = prove_relu(model, per_channel=True)
    assert set(network.neurons) == {"layer_1", "layer_2_excess", "layer_2_excess_1"}
    assert all((network.neurons[name].threshold == 1).all() for name in network.layers[1:])


REFUSED = {
    "an image": (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.ReLU6()), "not spikes"),
    "a sum": (
        nn.Sequential(
            nn.Conv2d(2, 2, 1),
            nn.ReLU6(),
            Function(lambda x: F.relu6(x + F.relu6(x - F.avg_pool2d(x, 1))) + x),
            nn.MaxPool2d(2),
        ),
        "sum of spikes of several layers",
    ),
    "what falls": (nn.Sequential(nn.Conv2d(2, 2, 1), Function(torch.abs), nn.MaxPool2d(2)), "sum of spikes"),
    "channels": (nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(), Function(lambda x: x.amax(1, keepdim=True))), "spatial"),
    "uneven windows": (nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(), nn.AdaptiveMaxPool2d(3)), "not of one size"),
    "a padded minimum": (
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(), Function(lambda x: -F.max_pool2d(-x, 3, 1, 1))),
        "padding counts as 0",
    ),
    "indices": (
        nn.Sequential(
            nn.Conv2d(2, 2, 1),
            nn.ReLU6(),
            Function(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), (2, 2))),
        ),
        "where the maximum was found is read",
    ),
    "a broadcast": (
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(), Function(lambda x: torch.maximum(x, F.max_pool2d(x, 8)))),
        "broadcasting",
    ),
    "three axes": (nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(), nn.MaxPool3d(2)), "no neurons stand for this maximum"),
}


@pytest.mark.parametrize(("model", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_says_why(model, reason):
    model = nn.Sequential(model, nn.Flatten(), nn.LazyLinear(3))
    result = check_model(model, torch.rand(1, 2, 8, 8), assume_thresholds=True)
    assert any(reason in present(finding.blocker) and finding.fix for finding in result.blockers), result.blockers
    assert not any("report this model" in present(finding.fix) for finding in result.blockers)


def test_what_cannot_be_converted_before_it_is_not_blamed_on_it():
    result = check_model(network_of(nn.Sigmoid(), nn.MaxPool2d(2), nn.ReLU6()), torch.rand(1, 2, 8, 8))
    assert [finding.op for finding in result.blockers] == ["sigmoid"]


def test_it_is_refused_on_request():
    with pytest.raises(CaptureError, match=r'2: max_pool2d: max pooling is to be refused \(max_pool="refuse"'):
        capture(network_of(QCFS(4), nn.MaxPool2d(2)), torch.rand(1, 2, 8, 8), max_pool="refuse")


# --- the average in its place -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "average"),
    [
        (nn.MaxPool2d(2), nn.AvgPool2d(2)),
        (nn.MaxPool2d(3, 2), nn.AvgPool2d(3, 2)),
        (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=9)),
        (nn.MaxPool2d((2, 2), (2, 2)), nn.AvgPool2d(2)),
        (Function(lambda x: F.max_pool2d(x, 2)), nn.AvgPool2d(2)),
        (nn.AdaptiveMaxPool2d((2, 4)), nn.AdaptiveAvgPool2d((2, 4))),
        (nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(1)),
        (Function(lambda x: x.amax((2, 3))), nn.AdaptiveAvgPool2d(1)),
        (Function(lambda x: x.max(2, keepdim=True).values), nn.AdaptiveAvgPool2d((1, None))),
    ],
)
def test_it_becomes_the_average_over_the_same_windows(pool, average):
    model, twin, x = network_of(QCFS(4), pool), network_of(QCFS(4), average), images()
    network = capture(model, x, max_pool="average")
    compare(network, twin, x)
    assert isinstance(
        network.graph.nodes["layer_2"], nir.Conv2d if getattr(pool, "ceil_mode", False) else nir.SumPool2d
    )


def test_the_average_over_one_axis():
    model, twin = (network_of(QCFS(4), kind(3, 2, 1), shape=(2, 12)) for kind in (nn.MaxPool1d, nn.AvgPool1d))
    x = images((2, 12))
    compare(capture(model, x, max_pool="average"), twin, x)


def test_the_average_warns():
    result = check_model(network_of(QCFS(4), nn.MaxPool2d(2)), torch.rand(1, 2, 8, 8), max_pool="average")
    assert result.passed
    (finding,) = result.warnings
    assert (finding.module, finding.op) == ("2", "max_pool2d")
    assert "fine-tune" in present(finding.warning)
    assert "warning" in str(finding)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2, dilation=2), Function(lambda x: torch.maximum(x, x))])
def test_windows_that_no_average_has(pool):
    model = network_of(QCFS(4), pool)
    (finding,) = check_model(model, torch.rand(1, 2, 8, 8), max_pool="average").blockers
    assert "no average over the same windows" in present(finding.blocker)
    assert 'max_pool="exact"' in present(finding.fix)


def test_thresholds_see_the_average():
    layers = [nn.Conv2d(4, 4, 1), nn.ReLU()]
    model = network_of(nn.ReLU(), nn.Sequential(nn.MaxPool2d(2), *layers))
    twin = network_of(nn.ReLU(), nn.Sequential(nn.AvgPool2d(2), *layers))
    twin.load_state_dict(model.state_dict())
    x = torch.rand(4, 2, 8, 8)
    options: dict[str, Any] = {"method": "maximum", "device": "cpu"}
    actual, expected = relu_thresholds(model, x, max_pool="average", **options), relu_thresholds(twin, x, **options)
    assert list(actual) == list(expected) == ["1", "2.2"]
    for key, threshold in expected.items():
        np.testing.assert_allclose(actual[key], threshold, rtol=1e-6)
    assert set(prove_relu(model, max_pool="average").neurons) == {"layer_1", "layer_2_2"}
