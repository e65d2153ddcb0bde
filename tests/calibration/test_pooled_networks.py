"""Calibration and quantisation of networks with max pooling: what compares spikes stays exact."""

import numpy as np
import pytest
import torch
from capturing_proof import randomise
from narrowing import present
from torch import nn

import cos_export as ce
from cos_export.errors import InputError
from cos_export.qcfs import QCFS

IMAGES = np.random.default_rng(0).random((48, 1, 6, 6), np.float32) * 2


def network_of():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, padding=1), QCFS(4), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), QCFS(4), nn.Flatten()]
    model = randomise(nn.Sequential(*layers, nn.Linear(4, 3)).eval())
    return ce.capture(model, IMAGES)


@pytest.mark.parametrize("method", ["half", "opi", "mean-matching", "bias"])
def test_where_no_error_is_left_every_method_leaves_differences_as_they_are(method):
    """Layer after layer at T = L the counts are those of the artificial network, and so are their means."""
    network = network_of()
    calibrated = ce.calibrate(network, IMAGES, method=method, steps=4, schedule="layerwise", device="cpu")
    actual = ce.simulate(calibrated, IMAGES, 4, device="cpu").logits[-1]
    np.testing.assert_allclose(actual, ce.ann_logits(network, IMAGES, device="cpu"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"per_channel": True}, {"power_of_two": True}, {"even_weights": True}],
    ids=lambda options: next(iter(options), "plain"),
)
@pytest.mark.parametrize("steps", [4, 9])
def test_in_integers_of_any_kind_differences_are_exact(options, steps):
    network = ce.quantise(network_of(), IMAGES, steps=steps, device="cpu", **options)
    network = ce.calibrate(network, IMAGES, method="half", steps=steps, schedule="layerwise", device="cpu")
    spikes = ce.simulate(network, IMAGES, steps, device="cpu").spikes
    counts = {name: fired.astype(int).sum(0) for name, fired in spikes.items()}
    first = counts["layer_1"]
    rows = np.maximum(first[..., ::2], first[..., 1::2])
    np.testing.assert_array_equal(counts["layer_2_excess"], rows - first[..., ::2])
    np.testing.assert_array_equal(counts["layer_2_excess_1"], np.maximum(rows[:, :, 1::2] - rows[:, :, ::2], 0))
    assert counts["layer_2_excess_1"].max() > 1


def test_what_is_calibrated_per_sample_or_by_step_runs():
    network = network_of()
    calibrated = ce.calibrate(network, IMAGES, method="ftbc", steps=4, device="cpu")
    assert present(calibrated.neurons["layer_2_excess"].bias).shape == (4, 3)
    for method in (ce.COS(rho=4), ce.SRP(tau=4)):
        trace = ce.simulate(network, IMAGES, 4, device="cpu", calibration=method)
        assert np.isfinite(trace.logits).all()


def test_rmp_says_why_it_does_not():
    with pytest.raises(InputError, match="max pooling gives is a sum of layers"):
        ce.calibrate(network_of(), IMAGES, method="rmp", steps=4, device="cpu")
