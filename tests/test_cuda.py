"""What a CUDA device computes, against the CPU: skipped without one.

`COS_EXPORT_TEST_DEVICE=cpu` runs all but what needs two devices on the CPU, to see that the tests themselves run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from narrowing import of_type
from torch import nn

from calibration import COS, SRP, Static, calibrate
from calibration.tuning.parameters import Tuned
from calibration.tuning.repeated_update import WARM, RepeatedUpdate
from cos_export.bundle import Bundle
from cos_export.capturing import capture
from cos_export.datasets import Dataset, Normalisation, load_dataset
from cos_export.device_images import DeviceImages
from cos_export.errors import Notice
from cos_export.exporting import export
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.schedule import SCHEDULES, Schedule
from cos_export.quantisation import quantise
from cos_export.simulation import simulate
from cos_export.training import Recipe, train
from cos_export.zoo.model_source import build_model, load_model
from targets.pytorch import PyTorchTarget
from targets.verification import verify

DEVICE = os.environ.get("COS_EXPORT_TEST_DEVICE", "cuda:0")
T = 4

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def images() -> FloatArray:
    return load_dataset("digits", "train").images[:128]


@pytest.fixture(scope="module")
def network(images: FloatArray) -> SpikingNetwork:
    return capture(of_type(load_model("digits", None).source, nn.Module), images[:1])


@pytest.fixture
def reduced_precision() -> Iterator[None]:
    """TensorFloat-32 where a user has allowed it, as training scripts do: simulations may not use it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def exported(network: SpikingNetwork, images: FloatArray, folder: Path) -> Bundle:
    return export(network, folder / "bundle", steps=T, golden=images[:32], device="cpu")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_integers_are_the_same_to_the_bit(network: SpikingNetwork, images: FloatArray, schedule: Schedule) -> None:
    integers = quantise(replace(network, schedule=schedule), images, steps=T)
    there = simulate(integers, images, T, device=DEVICE)
    here = simulate(integers, images, T, device="cpu")
    np.testing.assert_array_equal(there.logits, here.logits)
    for name, spikes in here.spikes.items():
        np.testing.assert_array_equal(there.spikes[name], spikes)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rounding_explains_every_difference(
    network: SpikingNetwork, images: FloatArray, schedule: Schedule, tmp_path: Path, reduced_precision: None
) -> None:
    bundle = exported(replace(network, schedule=schedule), images, tmp_path)
    result = verify(bundle, targets=[PyTorchTarget(DEVICE)])
    assert result.passed, result["pytorch"]
    assert result["pytorch"].local_violations == 0


@pytest.mark.parametrize("method", [COS(4), SRP(4)], ids=["cos", "srp"])
def test_per_sample_methods(network: SpikingNetwork, images: FloatArray, method: COS | SRP) -> None:
    there = simulate(network, images, T, calibration=method, device=DEVICE)
    again = simulate(network, images, T, calibration=method, device=DEVICE)
    here = simulate(network, images, T, calibration=method, device="cpu")
    np.testing.assert_array_equal(there.logits, again.logits)
    for name, spikes in here.spikes.items():
        np.testing.assert_array_equal(there.spikes[name], again.spikes[name])
        # A neuron within rounding of its threshold may decide otherwise, and what it feeds with it.
        assert np.mean(there.spikes[name] != spikes) < 0.005, name


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", ["mean-matching", "bias", "ftbc"])
def test_methods_by_means(network: SpikingNetwork, images: FloatArray, method: str, schedule: Schedule) -> None:
    if (method, schedule) == ("ftbc", "layerwise"):
        pytest.skip("ftbc has nothing to do under the layer-wise schedule.")
    there, here = (
        calibrate(network, images, method, T, device=device, schedule=schedule) for device in (DEVICE, "cpu")
    )
    decided = [simulate(one, images, T, device="cpu").logits[-1].argmax(1) for one in (there, here)]
    assert np.mean(decided[0] == decided[1]) > 0.97
    for name, spec in here.neurons.items():
        apart = np.abs(there.neurons[name].v_init - spec.v_init) / spec.threshold
        assert np.median(apart) < 0.05, name


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tuning_brings_what_it_brings_on_the_cpu(
    network: SpikingNetwork, images: FloatArray, schedule: Schedule
) -> None:
    method = Static(("potential", "threshold", "weight"), updates=20, samples=32, rounds=2, precision="float32")
    there, again, here = (
        calibrate(network, images, method, T, device=device, schedule=schedule) for device in (DEVICE, DEVICE, "cpu")
    )
    expected = simulate(here, images, T, device="cpu").logits[-1]
    actual = simulate(there, images, T, device="cpu").logits[-1]
    assert np.mean(actual.argmax(1) == expected.argmax(1)) > 0.97
    assert np.abs(actual - expected).mean() < 0.05 * np.abs(expected).mean()
    for name, spec in there.neurons.items():
        np.testing.assert_allclose(again.neurons[name].v_init, spec.v_init, atol=0.05 * float(spec.threshold.max()))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tune", [("potential",), ("potential", "threshold", "weight")], ids=len)
def test_updates_that_are_replayed_are_those_launched_one_by_one(
    network: SpikingNetwork,
    images: FloatArray,
    schedule: Schedule,
    tune: tuple[Tuned, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = Static(tune, updates=40, samples=32, rounds=2, flip=True, shift=1, learning_rate=0.02)
    replays: list[int] = []
    original = RepeatedUpdate.__call__

    def counted(self: RepeatedUpdate, *inputs: torch.Tensor) -> None:
        original(self, *inputs)
        replays.append(self._replay is not None)

    monkeypatch.setattr(RepeatedUpdate, "__call__", counted)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)  # That it could not be recorded.
        replayed = calibrate(network, images, method, T, device=DEVICE, schedule=schedule)
    if DEVICE.startswith("cuda"):
        assert sum(replays) == 40 - WARM
    monkeypatch.setattr(Static, "_recorder", lambda *_: None)
    plain = calibrate(network, images, method, T, device=DEVICE, schedule=schedule)
    for name, spec in plain.neurons.items():
        scale = float(spec.threshold.max())
        np.testing.assert_allclose(replayed.neurons[name].v_init, spec.v_init, atol=1e-3 * scale, err_msg=name)


def test_pixels_become_the_same_numbers_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_export.datasets.byte_images.AS_BYTES", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), np.uint8)
    images = (
        Dataset(pixels, None, "pixels", "").normalised(Normalisation.of([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])).images
    )
    order = np.random.default_rng(1).permutation(300)[:64]
    there = DeviceImages(images, DEVICE).take(torch.from_numpy(order).to(DEVICE), order)
    assert there.device.type == torch.device(DEVICE).type
    np.testing.assert_array_equal(there.cpu(), images[order])


def test_training(images: FloatArray) -> None:
    data = load_dataset("digits", "train")
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=64)
    there, here = (
        train(build_model("digits", seed=0), data, recipe, device=device).history[-1].loss for device in (DEVICE, "cpu")
    )
    np.testing.assert_allclose(there, here, rtol=0.1)


def test_onnxruntime_agrees(network: SpikingNetwork, images: FloatArray, tmp_path: Path) -> None:
    from targets.onnxruntime import OnnxRuntimeTarget

    provider = "CUDAExecutionProvider" if DEVICE.startswith("cuda") else "CPUExecutionProvider"
    target = OnnxRuntimeTarget([provider])
    if not target.available().ready:
        pytest.skip(target.available().reason)
    assert verify(exported(network, images, tmp_path), targets=[target]).passed


def test_one_process_of_torchrun(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "1",
        "-m",
        "cos_export",
    ]
    options = [
        "calibrate",
        "digits",
        "--data",
        "digits",
        "--samples",
        "64",
        "--method",
        "mean-matching",
        "--steps",
        "2",
    ]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*command, *options, "--device", DEVICE.split(":")[0], "--out", str(tmp_path / "calibrated")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
