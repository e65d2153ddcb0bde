"""A network with two max pools on other targets: every spike and logit, float32 and int8, under both schedules."""

import numpy as np
import pytest
import torch
from capturing_proof import randomise
from torch import nn

import cos_export as ce
from cos_export.qcfs import QCFS
from targets.c import CTarget


class Net(nn.Module):
    """Windows that a SumPool2d picks from, windows that it does not, and a pool that two layers read."""

    def __init__(self):
        super().__init__()
        self.conv1, self.act1, self.pool1 = nn.Conv2d(1, 4, 3, padding=1), QCFS(4), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.act2, self.pool2 = nn.Conv2d(4, 4, 3, padding=1), QCFS(4), nn.MaxPool2d(2)
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        x = self.pool1(self.act1(self.conv1(x)))
        x = self.pool2(self.act2(self.conv2(x) + x))
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Net().eval()
    randomise(model)
    for activation in (model.act1, model.act2):
        activation.threshold.data.mul_(4)
    return model


IMAGES = np.random.default_rng(0).random((24, 1, 14, 14), np.float32)


@pytest.mark.parametrize(
    ("schedule", "numerics", "targets"),
    [
        ("layerwise", "float32", ["onnxruntime"]),
        ("layerwise", "int8", ["onnxruntime", "lava"]),
        ("synchronous", "float32", ["onnxruntime", "lava"]),
        ("synchronous", "int8", ["onnxruntime"]),
    ],
)
def test_every_target_fires_the_same_spikes(model, schedule, numerics, targets, tmp_path):
    network = ce.capture(model, IMAGES)
    if numerics == "int8":
        network = ce.quantise(network, IMAGES, steps=4, device="cpu")
    network = ce.calibrate(network, IMAGES, method="half", steps=4, schedule=schedule, device="cpu")
    bundle = ce.export(network, tmp_path / "out", steps=4, golden=IMAGES[:3])
    if numerics == "int8" and CTarget().available().ready:
        targets = [*targets, "c"]
    result = ce.verify(bundle, targets=targets)
    assert result.passed
    assert all(result[target].local_violations == 0 for target in targets)
    assert numerics == "float32" or all(result[target].mismatches == 0 for target in targets)


def test_layer_after_layer_it_is_the_artificial_network_to_the_last_spike(model):
    """The counts of every activation are those of the integers that PyTorch computes with float64."""
    network = ce.calibrate(
        ce.capture(model, IMAGES), IMAGES, method="half", steps=4, schedule="layerwise", device="cpu"
    )
    trace = ce.simulate(network, IMAGES, 4, device="cpu")
    with torch.no_grad():
        double = Net().eval()
        double.load_state_dict(model.state_dict())
        double = double.double()
        x = torch.from_numpy(IMAGES).double()
        first = double.act1(double.conv1(x))
        pooled = double.pool1(first)
        second = double.act2(double.conv2(pooled) + pooled)
        logits = double(x)
    for name, activation, actual in (("act1", double.act1, first), ("act2", double.act2, second)):
        counts = trace.spikes[name].astype(np.int64).sum(0)
        np.testing.assert_array_equal(counts, (actual * 4 / activation.threshold).round().long().numpy())
    np.testing.assert_allclose(trace.logits[-1], logits, rtol=1e-5, atol=1e-5)


def test_what_picks_entries_is_no_synapse_that_is_scaled_in_integers():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), QCFS(4), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(64, 3)).eval()
    network = ce.quantise(ce.capture(randomise(model), IMAGES[:, :, :12, :12]), IMAGES[:, :, :12, :12], device="cpu")
    picked = [node for name, node in network.graph.nodes.items() if "picked" in name]
    assert picked
    assert all(np.asarray(node.weight).max() == 1 for node in picked)
    # Nothing is put between a spike and what reads it, so the last synapse has all of its bits.
    assert not [name for name in network.graph.nodes if "_to_" in name]
    assert np.abs(network.graph.nodes["layer_4"].weight).max() >= 100


def test_five_pools_have_the_accuracy_of_the_artificial_network():
    torch.manual_seed(0)
    layers, inputs = [], 3
    for width, count in ((4, 2), (6, 2), (8, 3), (8, 3), (8, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), QCFS(4)]
            inputs = width
        layers.append(nn.MaxPool2d(2, 2))
    vgg16 = randomise(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 10), QCFS(4), nn.Linear(10, 5)).eval())
    images = np.random.default_rng(1).normal(size=(16, 3, 32, 32)).astype(np.float32)
    network = ce.capture(vgg16, images)
    network = ce.calibrate(network, images, method="half", steps=4, schedule="layerwise", device="cpu")
    # Thirteen convolutions, one linear layer, and two rounds of differences for each pool.
    assert len(network.layers) == 13 + 1 + 2 * 5
    with torch.no_grad():
        expected = vgg16(torch.from_numpy(images)).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(ce.simulate(network, images, 4, device="cpu").logits[-1], expected, rtol=1e-4, atol=1e-4)
