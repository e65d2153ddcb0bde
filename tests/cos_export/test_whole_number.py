"""Where a whole number is meant, nothing else is taken, and nothing is cut."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cos_export as ce
from cos_export import zoo
from cos_export.datasets import load_dataset
from cos_export.errors import InputError
from cos_export.onnx_file import write_onnx
from cos_export.training import Recipe, swap_activations
from cos_export.whole_number import whole_number
from targets.lava import LavaTarget
from targets.onnxruntime import OnnxRuntimeTarget

MODEL = nn.Sequential(nn.Linear(6, 4), ce.QCFS(4, 1.0), nn.Linear(4, 2))
IMAGES = np.linspace(0, 1, 30, dtype=np.float32).reshape(5, 6)
NETWORK = ce.capture(MODEL, IMAGES)


def relu_model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))


ENTRIES = {
    "simulate steps": lambda n: ce.simulate(NETWORK, IMAGES, n, device="cpu"),
    "simulate batch_size": lambda n: ce.simulate(NETWORK, IMAGES, 2, batch_size=n, device="cpu"),
    "ann_logits batch_size": lambda n: ce.ann_logits(NETWORK, IMAGES, batch_size=n, device="cpu"),
    "calibrate steps": lambda n: ce.calibrate(NETWORK, IMAGES, "mean-matching", n, device="cpu"),
    "calibrate batch_size": lambda n: ce.calibrate(NETWORK, IMAGES, "half", 2, batch_size=n, device="cpu"),
    "COS rho": lambda n: ce.COS(rho=n),
    "COS iterations": lambda n: ce.COS(iterations=n),
    "SRP tau": lambda n: ce.SRP(tau=n),
    "FTBC seed": lambda n: ce.FTBC(seed=n),
    "offset_spikes rho": lambda n: ce.offset_spikes(NETWORK, IMAGES, 2, n, device="cpu"),
    "offset_spikes steps": lambda n: ce.offset_spikes(NETWORK, IMAGES, n, device="cpu"),
    "relu_thresholds steps": lambda n: ce.relu_thresholds(relu_model(), IMAGES, steps=n, device="cpu"),
    "relu_thresholds batch_size": lambda n: ce.relu_thresholds(relu_model(), IMAGES, batch_size=n, device="cpu"),
    "capture levels": lambda n: ce.capture(MODEL, IMAGES, levels=n),
    "check_model levels": lambda n: ce.check_model(MODEL, IMAGES, levels=n),
    "QCFS levels": lambda n: ce.QCFS(n),
    "swap_activations levels": lambda n: swap_activations(relu_model(), torch.from_numpy(IMAGES), n),
    "quantise samples": lambda n: ce.quantise(NETWORK, IMAGES, samples=n, device="cpu"),
    "quantise steps": lambda n: ce.quantise(NETWORK, IMAGES, steps=n, device="cpu"),
    "zoo levels": lambda n: zoo.build("digits", levels=n),
    "zoo classes": lambda n: zoo.build("digits", classes=n),
    "zoo seed": lambda n: zoo.build("digits", seed=n),
    "Dataset.first": lambda n: load_dataset("digits", "test").first(n),
    "epochs": lambda n: Recipe(epochs=n, learning_rate=0.1, batch_size=8),
    "batch_size": lambda n: Recipe(epochs=1, learning_rate=0.1, batch_size=n),
    "seed": lambda n: Recipe(epochs=1, learning_rate=0.1, batch_size=8, seed=n),
    "OnnxRuntimeTarget batch_size": lambda n: OnnxRuntimeTarget(batch_size=n),
    "OnnxRuntimeTarget threads": lambda n: OnnxRuntimeTarget(threads=n),
    "LavaTarget batch_size": lambda n: LavaTarget(batch_size=n),
    "LavaTarget cores": lambda n: LavaTarget(cores=n),
    "shift": lambda n: Recipe(epochs=1, learning_rate=0.1, batch_size=8, shift=n),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_whole_numbers_only(entry, tmp_path):
    call = ENTRIES[entry]
    for wrong in (2.5, 4.0, np.float64(4), np.float32(2.5), True, np.True_, "4"):
        with pytest.raises(InputError):
            call(wrong)
    call(4)
    call(np.int64(4))
    call(np.uint8(4))


@pytest.mark.parametrize("entry", ENTRIES)
def test_numbers_beyond_use_are_refused_at_once(entry):
    with pytest.raises(InputError, match=r"at most|<=|from \d+ to|samples: \d+ cannot be taken"):
        ENTRIES[entry](10**30)


@pytest.mark.parametrize("wrong", [2.5, 2.0, True, 0])
def test_steps_of_files(wrong, tmp_path):
    with pytest.raises(InputError, match="number of steps"):
        write_onnx(NETWORK, tmp_path / "a.onnx", wrong)
    with pytest.raises(InputError, match="number of steps"):
        ce.export(NETWORK, tmp_path / "out", wrong, golden=IMAGES)
    assert not list(tmp_path.iterdir())


def test_what_is_returned_is_pythons_own():
    assert type(whole_number("n", np.int64(3), 1)) is int
    with pytest.raises(InputError, match="n must be at least 1, and is 0"):
        whole_number("n", 0, 1)
    with pytest.raises(InputError, match=r"n must be a whole number, and is 2\.5"):
        whole_number("n", 2.5, 1)
    one: Any = np.int64(1)
    assert type(Recipe(epochs=one, learning_rate=0.1, batch_size=8).to_dict()["epochs"]) is int
