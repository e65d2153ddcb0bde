"""The main job on the digits network, on every target: the spikes that PyTorch fired are the spikes that all fire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from narrowing import present

import cos_export as ce
from cos_export import zoo
from cos_export.parity import check_local, compare
from cos_export.training import accuracy
from targets import get

LIVE_TARGETS = ("pytorch", "onnxruntime", "lava")


@pytest.fixture(scope="module")
def network() -> ce.SpikingNetwork:
    module = zoo.build("digits")
    zoo.load_weights(module, zoo.weights_path("digits"))
    test = ce.load_dataset("digits", "test")
    assert accuracy(module, test) >= 0.98
    network = ce.capture(module, test.images[:1])
    answers = ce.ann_logits(network, test.images).argmax(1)
    assert (answers == test.labels).mean() >= 0.98
    return network


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_static(network: ce.SpikingNetwork, tmp_path: Path, steps: int) -> None:
    train, test = ce.load_dataset("digits", "train").first(300), ce.load_dataset("digits", "test")
    calibrated = ce.calibrate(network, train.images, method="mean-matching", steps=steps)
    ce.export(calibrated, tmp_path / "out", golden=test.images[:24], labels=present(test.labels)[:24])
    result = ce.verify(tmp_path / "out", targets=LIVE_TARGETS)
    assert result.passed and set(result) == set(LIVE_TARGETS)
    for target in result.values():
        assert target.local_violations == 0
        assert target.comparison.compared == 24 * steps * calibrated.neuron_count
    assert result["pytorch"].mismatches == 0


@pytest.mark.parametrize("calibration", [ce.COS(rho=4), ce.SRP(tau=4)])
def test_per_sample(network: ce.SpikingNetwork, tmp_path: Path, calibration: ce.COS | ce.SRP) -> None:
    images = ce.load_dataset("digits", "test").images[:16]
    bundle = ce.export(network, tmp_path / "out", 4, golden=images, calibration=calibration)
    result = ce.verify(bundle, targets=LIVE_TARGETS)
    assert result.passed
    assert all(target.local_violations == 0 for target in result.values())


def test_both_lava_back_ends(network: ce.SpikingNetwork, tmp_path: Path) -> None:
    """The faithful one, made of Lava's own synapses, and the batched one fire alike but for rounding."""
    images = ce.load_dataset("digits", "test").images[:4]
    bundle = ce.export(network, tmp_path / "out", 4, golden=images)
    reference = bundle.golden.trace
    for backend in ("faithful", "batched"):
        trace = get("lava", backend=backend).run(bundle, images, 4)
        assert check_local(network, images, trace).violations == 0
        np.testing.assert_allclose(trace.logits[0], reference.logits[0], atol=0.5)
        assert compare(network, images, reference, trace).decisions_changed == 0
