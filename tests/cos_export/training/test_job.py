"""A training by names of files: its figures are those of the weights it writes, and what cannot be is said first."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from narrowing import present
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from cos_export import zoo
from cos_export.datasets import load_dataset
from cos_export.errors import InputError
from cos_export.training import accuracy
from cos_export.training.job import TrainingJob, run_training
from cos_export.zoo.model_source import build_model

MODEL = """
from torch import nn
from cos_export.qcfs import QCFS

def quantised():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), QCFS(4, 1.0), nn.Dropout(0.2), nn.Flatten(), nn.Linear(140, 3)
    )

def rectified():
    model = quantised()
    model[2] = nn.ReLU()
    return model
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bytes of odd shape, 5 x 7, three classes that a small network learns in part."""
    generator = np.random.default_rng(0)
    prototypes = generator.integers(0, 256, (3, 1, 5, 7))
    for name, count in (("train", 70), ("test", 41)):
        labels = np.arange(count) % 3
        noisy = prototypes[labels] + generator.normal(0, 120, (count, 1, 5, 7))
        np.savez(tmp_path / f"{name}.npz", images=np.clip(noisy, 0, 255).astype(np.uint8), labels=labels)
    np.savez(tmp_path / "beyond.npz", images=np.zeros((6, 1, 5, 7), np.uint8), labels=np.arange(6))
    np.savez(tmp_path / "wider.npz", images=np.zeros((6, 1, 5, 8), np.uint8), labels=np.zeros(6, int))
    (tmp_path / "job_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "job_model", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cos_export.training.job.save_learning_curve", lambda *_: None)  # it takes as long as the rest
    return tmp_path


JOB = TrainingJob(
    "job_model:quantised",
    Path("net.safetensors"),
    "train.npz",
    "test.npz",
    changes={"epochs": 3, "batch_size": 16, "flip": True, "shift": 1, "learning_rate": 0.05},
    mean=[0.5],
    std=[0.25],
    device="cpu",
)


def by_hand(weights: Path, file: Path) -> float:
    """The accuracy by the equations: batch norm of running statistics, floor, clip, no dropout; all in float64."""
    state = {key: value.double() for key, value in load_file(weights).items()}
    with np.load(file) as held:
        pixels, labels = torch.from_numpy(held["images"]).double(), torch.from_numpy(held["labels"])
    z = nn.functional.conv2d((pixels / 255 - 0.5) / 0.25, state["0.weight"], state["0.bias"], padding=1)
    mean, variance, scale, shift = (
        state[f"1.{name}"].reshape(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    z = (z - mean) / torch.sqrt(variance + 1e-5) * scale + shift
    threshold = next(value for key, value in state.items() if key.startswith("2."))
    a = threshold * torch.clamp(torch.floor(z * 4 / threshold + 0.5) / 4, 0, 1)
    logits = a.flatten(1) @ state["5.weight"].T + state["5.bias"]
    return float((logits.argmax(1) == labels).double().mean())


@pytest.mark.parametrize("swapped", [False, True])
def test_the_figures_are_those_of_the_weights_that_are_saved(folder: Path, swapped: bool) -> None:
    job = replace(JOB, model="job_model:rectified" if swapped else JOB.model, swapped=swapped)
    result, _ = run_training(job)
    assert 0.4 < present(result.test_accuracy) < 1.0, "a figure that weights of another epoch would hardly have"
    assert result.test_accuracy == by_hand(job.out, folder / "test.npz")
    assert result.train_accuracy == by_hand(job.out, folder / "train.npz")


def test_weights_of_swapped_activations_are_trained_on_and_loaded_again(folder: Path) -> None:
    """The header of the second file must say what was swapped before the first: no other network takes its weights."""
    first = replace(JOB, model="job_model:rectified", swapped=True, levels=4, out=folder / "first.safetensors")
    run_training(first)
    on = replace(first, swapped=False, levels=None, weights=first.out, out=folder / "on.safetensors")
    result, _ = run_training(on)
    assert result.test_accuracy == by_hand(on.out, folder / "test.npz")
    module = build_model("job_model:rectified")
    zoo.load_weights(module, on.out)
    assert accuracy(module, load_dataset("test.npz", mean=[0.5], std=[0.25]), device="cpu") == result.test_accuracy


def test_a_state_of_other_weights_is_not_gone_on_from(folder: Path) -> None:
    """A file of the same name may hold others."""
    first = folder / "first.safetensors"
    for seed, out in ((1, first), (2, folder / "second.safetensors")):
        run_training(replace(JOB, out=out, changes={**JOB.changes, "epochs": 1, "seed": seed}))

    def interrupted(stage: str, done: int, total: int, /) -> None:
        if (stage, done) == ("training", 2):
            raise KeyboardInterrupt

    job = replace(JOB, weights=first)
    with pytest.raises(KeyboardInterrupt):
        run_training(job, progress=interrupted)
    mine = first.read_bytes()
    shutil.copy(folder / "second.safetensors", first)
    with pytest.raises(InputError, match=r"another start(?s:.*)weights: "):
        run_training(job)
    first.write_bytes(mine)
    continued, _ = run_training(job)
    weights = load_file(job.out)
    whole, _ = run_training(replace(job, out=folder / "whole.safetensors"))
    assert continued.history == whole.history
    assert all(torch.equal(value, weights[key]) for key, value in load_file(folder / "whole.safetensors").items())


@pytest.mark.parametrize(
    ("test", "message"),
    [("beyond.npz", "3 classes, and beyond.npz has labels up to 5"), ("wider.npz", "fails on")],
)
def test_test_data_that_do_not_fit_are_refused_before_the_training(folder: Path, test: str, message: str) -> None:
    told: list[str] = []
    with pytest.raises(InputError, match=message):
        run_training(replace(JOB, test_data=test), progress=lambda stage, *_: told.append(stage))
    assert not any(stage.startswith(("training", "epoch")) for stage in told)
    assert not list(folder.glob("net*"))


def test_test_data_of_other_classes_are_refused(folder: Path) -> None:
    """A folder that lacks a class numbers those after it otherwise: right answers would count as wrong ones."""
    for part, names in (("all", ("ant", "bee", "cat")), ("some", ("ant", "cat"))):
        for name in names:
            (folder / part / name).mkdir(parents=True)
            for number in range(6):
                Image.fromarray(np.zeros((5, 7), np.uint8)).save(folder / part / name / f"{number}.png")
    with pytest.raises(InputError, match="classes of some are ant, cat, and those of all are ant, bee, cat"):
        run_training(replace(JOB, data="all", test_data="some"))
