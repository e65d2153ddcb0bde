"""What later happens to a user's arrays and modules changes nothing that was made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import cos_export as ce
from cos_export.datasets import StoredImages, byte_images
from cos_export.network import FloatArray, SpikingNetwork

IMAGES = np.random.default_rng(0).random((6, 2, 5, 5), dtype=np.float32)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        ce.QCFS(4, 1.0),
        nn.Conv2d(3, 3, 3, bias=False),
        ce.QCFS(4, 1.0),
        nn.Flatten(),
        nn.Linear(27, 4),
    ).eval()


def overwrite(array: NDArray[Any]) -> None:
    array[...] = 1


def logits(network: SpikingNetwork, **options: Any) -> FloatArray:
    return ce.simulate(network, IMAGES, 3, device="cpu", **options).logits


def test_a_module_that_is_trained_on_leaves_its_network_alone() -> None:
    source = module()
    network = ce.capture(source, IMAGES[:1])
    before = logits(network)
    with torch.no_grad():
        for tensor in (*source.parameters(), *source.buffers()):
            tensor.fill_(1)
    np.testing.assert_array_equal(logits(network), before)


@pytest.mark.parametrize("method", ["half", "mean-matching", "ftbc"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_images_that_are_overwritten_leave_what_was_calibrated_alone(method: str, as_tensor: bool) -> None:
    images = IMAGES.copy()
    given: Any = torch.from_numpy(images) if as_tensor else images
    network = ce.calibrate(ce.capture(module(), IMAGES[:1]), given, method, 3, device="cpu")
    before = logits(network)
    overwrite(images)
    np.testing.assert_array_equal(logits(network), before)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
def test_a_trace_that_is_overwritten_leaves_network_and_images_alone(schedule: str) -> None:
    images = IMAGES.copy()
    network = ce.calibrate(ce.capture(module(), images[:1]), images, "half", 3, schedule=schedule, device="cpu")  # type: ignore[arg-type]
    before = logits(network)
    methods: list[Any] = [None] if schedule == "layerwise" else [None, ce.COS(rho=3), ce.SRP(tau=2)]
    for calibration in methods:
        trace = ce.simulate(network, images, 3, calibration=calibration, record_potentials=True, device="cpu")
        states = {} if trace.states is None else {**trace.states.v_init, **trace.states.silent}
        for array in (trace.logits, *trace.spikes.values(), *trace.potentials.values(), *states.values()):
            overwrite(array)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(logits(network), before)


def test_a_bundle_is_what_was_exported_whatever_comes_later(tmp_path: Path) -> None:
    images, labels = IMAGES.copy(), np.arange(6) % 4
    network = ce.calibrate(ce.capture(module(), images[:1]), images, "half", 3, device="cpu")
    bundle = ce.export(network, tmp_path / "b", golden=images, labels=labels, device="cpu")
    before = logits(network)
    overwrite(images)
    overwrite(labels)
    for spec in network.neurons.values():
        overwrite(spec.v_init)
    overwrite(network.graph.nodes[network.predecessors[network.output_name][0]].weight)
    assert not np.array_equal(logits(network), before)
    np.testing.assert_array_equal(bundle.golden.images, IMAGES)
    np.testing.assert_array_equal(logits(bundle.network), before)
    assert bundle.golden.labels is not None and bundle.golden.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert ce.verify(bundle, ["pytorch"]).passed


def test_pixels_that_stay_bytes_are_the_users_and_their_hash_is_of_what_they_are_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hash that was kept let a calibration of other images go on from the state of the earlier ones."""
    monkeypatch.setattr(byte_images, "AS_BYTES", 0)
    pixels, labels = np.zeros((6, 2, 5, 5), np.uint8), np.arange(6)
    data = ce.Dataset(pixels, labels, "bytes", "as stored")  # type: ignore[arg-type]
    assert isinstance(data.images, StoredImages)
    before = data.images.fingerprint
    overwrite(pixels)
    overwrite(labels)
    assert data.images.fingerprint != before
    assert (data.images[:] == np.float32(1 / 255)).all()
    assert data.truth.tolist() == [0, 1, 2, 3, 4, 5]


def test_stored_images_have_no_array_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written into an array of them must not be taken for written into the images."""
    monkeypatch.setattr(byte_images, "AS_BYTES", 0)
    images = ce.Dataset(np.ones((6, 2, 5, 5), np.uint8), None, "bytes", "as stored").images
    assert isinstance(images, StoredImages)
    with pytest.raises(ValueError, match="no array to share"):
        images.__array__(copy=False)
    for copy in (None, True):
        array = images.__array__(np.dtype(np.float64), copy=copy)
        assert array.dtype == np.float64 and array.shape == images.shape
        overwrite(array)
    assert (np.asarray(images) == np.float32(1 / 255)).all()
