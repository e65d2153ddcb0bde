"""Max pooling is refused, or becomes average pooling with a warning."""

import nir
import numpy as np
import pytest
import torch
from capturing_proof import compare, prove_relu, randomise
from torch import nn
from torch.nn import functional as F

from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture, check_model
from cos_export.errors import CaptureError
from cos_export.qcfs import QCFS


def network_of(pool, activation=None, size=4):
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 4, 3, padding=1), activation or QCFS(4)]
    return randomise(nn.Sequential(*first, pool, nn.Flatten(), nn.Linear(4 * size * size, 3)).eval())


def test_it_is_refused_and_the_way_out_is_named():
    with pytest.raises(CaptureError, match=r'2: max_pool2d: the maximum[\s\S]*max_pool="average" does so'):
        capture(network_of(nn.MaxPool2d(2)), torch.rand(1, 2, 8, 8))


class Functional(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 2)


@pytest.mark.parametrize(
    ("pool", "average", "size"),
    [
        (nn.MaxPool2d(2), nn.AvgPool2d(2), 4),
        (nn.MaxPool2d(3, 2), nn.AvgPool2d(3, 2), 3),
        (nn.MaxPool2d((2, 2), (2, 2)), nn.AvgPool2d(2), 4),
        (Functional(), nn.AvgPool2d(2), 4),
    ],
)
def test_it_becomes_the_average_over_the_same_windows(pool, average, size):
    model, twin, x = network_of(pool, size=size), network_of(average, size=size), torch.rand(4, 2, 8, 8) * 2 - 0.5
    network = capture(model, x, max_pool="average")
    compare(network, twin, x)
    assert isinstance(network.graph.nodes["layer_2"], nir.SumPool2d)


def test_over_one_axis():
    def build(pool):
        torch.manual_seed(0)
        layers = [nn.Conv1d(2, 4, 3, padding=1), QCFS(4), pool, nn.Flatten(), nn.Linear(24, 3)]
        return randomise(nn.Sequential(*layers).eval())

    x = torch.rand(4, 2, 12) * 2 - 0.5
    compare(capture(build(nn.MaxPool1d(2)), x, max_pool="average"), build(nn.AvgPool1d(2)), x)


def test_the_finding_warns():
    result = check_model(network_of(nn.MaxPool2d(2)), torch.rand(1, 2, 8, 8), max_pool="average")
    assert result.passed
    (finding,) = result.warnings
    assert (finding.module, finding.op) == ("2", "max_pool2d")
    assert "fine-tune" in finding.warning
    assert "warning" in str(finding)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(2, dilation=2), nn.MaxPool2d(3, 2, ceil_mode=True)]
)
def test_windows_that_no_average_has(pool):
    (finding,) = check_model(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), QCFS(4), pool, nn.Flatten(), nn.LazyLinear(3)),
        torch.rand(1, 2, 8, 8),
        max_pool="average",
    ).blockers
    assert finding.op == "max_pool2d"
    assert "no average over the same windows" in finding.blocker
    assert "AvgPool2d in its place" in finding.fix


def test_thresholds_see_the_average():
    model = network_of(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.ReLU()), nn.ReLU())
    twin = network_of(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 4, 1), nn.ReLU()), nn.ReLU())
    twin.load_state_dict(model.state_dict())
    x = torch.rand(4, 2, 8, 8)
    options = {"method": "maximum", "device": "cpu"}
    actual, expected = relu_thresholds(model, x, max_pool="average", **options), relu_thresholds(twin, x, **options)
    assert list(actual) == list(expected) == ["1", "2.2"]
    for key, threshold in expected.items():
        np.testing.assert_allclose(actual[key], threshold, rtol=1e-6)
    assert set(prove_relu(model, max_pool="average").neurons) == {"layer_1", "layer_2_2"}
