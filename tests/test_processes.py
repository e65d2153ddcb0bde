"""Two processes on accuracies, a search, trainings and commands: what one process comes to, started as a user would.

All is done in one pair of processes, for each takes seconds to start.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from narrowing import in_memory, present
from small_networks import two_layers
from torch import Tensor, nn

import cli
from calibration import COS, SRP, MeanMatching, calibrate
from calibration.choices import Auto, Choices
from calibration.data_parts import DataParts
from calibration.methods.method import CalibrationRun
from calibration.search import deployments, search
from cos_export.accuracy import measure_accuracy
from cos_export.datasets import Dataset, load_dataset
from cos_export.errors import InputError, NetworkError
from cos_export.exporting import export
from cos_export.launcher import number_of_process
from cos_export.network import SpikingNetwork
from cos_export.processes import first_failure, gathered, process_group, rank, same_everywhere, share
from cos_export.qcfs import QCFS
from cos_export.training import Recipe, train
from cos_export.training.sharing import check_alike

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def noise(samples: int) -> Dataset:
    rng = np.random.default_rng(samples)
    images = rng.normal(size=(samples, 2, 5, 5)).astype(np.float32)
    return Dataset(images, rng.integers(0, 4, samples), "noise", "none")


def figures() -> dict[str, Any]:
    """Accuracies and costs: 150 images are three batches, of which the processes have two and one; 40 are one batch."""
    network, images = two_layers(seed=3), noise(150)
    layerwise = replace(network, schedule="layerwise")
    rows = {
        "synchronous": measure_accuracy(network, images, (1, 2, 4), device="cpu"),
        "layerwise": measure_accuracy(layerwise, images, (1, 3), device="cpu"),
        "cos": measure_accuracy(network, images, (1, 2), calibration=COS(3), device="cpu"),
        "srp": measure_accuracy(network, images, (2,), calibration=SRP(2), device="cpu"),
        "one batch": measure_accuracy(network, noise(40), (2,), device="cpu"),
    }
    candidates, _ = deployments(["half", "cos"], [1, 2], ["synchronous", "layerwise"], [2])
    measured, ann = search(
        network, DataParts(noise(64), noise(70), noise(130)), Choices(Auto(), 1, device="cpu"), candidates
    )
    return {
        **{name: row.to_dict() for name, row in rows.items()},
        "measured": [one.model_dump() for one in measured],
        "ann": ann,
    }


RECIPE = Recipe(epochs=3, learning_rate=0.05, batch_size=31, shift=1, flip=True, label_smoothing=0.05)
"""Of 31 samples one process has 16 and the other 15."""


class Network(nn.Module):
    """All that is to be done for the whole batch, in float64, in which sums in another order hardly differ."""

    def __init__(self, noise: nn.Module | None = None, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolutions = (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), QCFS(4, 2.0), nn.Dropout2d(0.2))
        dense = (nn.Linear(100, 16), nn.BatchNorm1d(16, momentum=None), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
        self.layers = nn.Sequential(*convolutions, nn.Flatten(), *dense).double()
        self.unused = nn.Parameter(torch.ones(3))
        self.noise = noise or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(self.noise(images.double()))
        return logits


class Jitter(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images) if self.training else images


class Memory(nn.Module):
    """Keeps the mean of what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images.mean().detach()
        return images


class FirstAxis(nn.Module):
    """Dropout of which nobody can tell what is whose."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(images.transpose(0, 1), 0.5, self.training).transpose(0, 1)


def trained(resume: Path | None = None, interrupted: int = 0) -> dict[str, Any]:
    """What a training comes to, to be compared; or what it leaves after it was interrupted."""
    model = Network()

    def interrupting(network: nn.Module, when: str) -> None:
        check_alike(network, when)
        if interrupted and when == f"after epoch {interrupted + 1}":
            raise KeyboardInterrupt

    with mock.patch("cos_export.training.loop.check_alike", interrupting):
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                train(model, noise(70), RECIPE, device="cpu", resume=resume)
            return {}
        result = train(model, noise(70), RECIPE, test=noise(33), device="cpu", resume=resume)
    return {
        "history": [[epoch.loss, epoch.accuracy] for epoch in result.history],
        "accuracy": [result.train_accuracy, result.test_accuracy],
        "weights": {name: tensor.tolist() for name, tensor in model.state_dict().items()},
    }


def refusals() -> list[str]:
    """What cannot be shared says so in every process, and leaves them able to go on."""
    said = []
    cases: list[tuple[Network, dict[str, Any]]] = [
        (Network(Jitter()), {}),
        (Network(FirstAxis()), {}),
        (Network(Memory()), {}),
        (Network(seed=number_of_process()), {}),
        (Network(), {"batch_size": 1}),
    ]
    for model, changes in cases:
        with pytest.raises(InputError) as refused:
            train(model, noise(70), replace(RECIPE, **changes), device="cpu")
        said.append(str(refused.value))
    return said


def command(*arguments: str) -> tuple[int, str]:
    """A command in this process: its exit code and what it prints."""
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        mock.patch.object(sys, "argv", ["cos-export", *arguments]),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.getvalue()


@dataclass(frozen=True)
class Alone(MeanMatching):
    """A method that the second process cannot go on with, while the first waits for it to sum up a round."""

    def calibrate(self, network: SpikingNetwork, run: CalibrationRun) -> SpikingNetwork:
        if rank():
            raise NetworkError("The second process alone has found this.")
        return super().calibrate(network, run)


def primitives() -> dict[str, Any]:
    """What is made of two processes that do not have the same."""
    with process_group(torch.device("cpu")):
        own = share(5, 2)
        mine = torch.arange(5.0)[own] + 0.25
        with pytest.raises(NetworkError, match="beyond what float32 holds"):
            # Of 128 images one of the second process makes a sum that float32 does not hold.
            images = noise(128)
            in_memory(images.images)[100] = 3e38
            measure_accuracy(two_layers(seed=3), images, (2,), device="cpu")
        with pytest.raises(NetworkError, match="The second process alone"):
            calibrate(two_layers(seed=3), noise(128).images, Alone(), 1, device="cpu")
        return {
            "share": [own.start, own.stop],
            "gathered": gathered(mine, own, 5).tolist(),
            "same": [same_everywhere(("a", 1)), same_everywhere(rank())],
            "failure": [first_failure(None), first_failure(f"no {rank()}" if rank() else None)],
        }


def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    network, images, few = two_layers(seed=3), noise(150), load_dataset("digits", "train").first(90)
    export(network, tmp_path / "bundle", 3, golden=images.first(8))
    for name, data in (("images", images), ("digits", few)):
        np.savez(tmp_path / f"{name}.npz", images=in_memory(data.images), labels=present(data.labels))
    trained(tmp_path / "resumed.safetensors", interrupted=1)
    (tmp_path / "out").mkdir()
    ran = ["run", str(tmp_path / "bundle"), "--data", str(tmp_path / "images.npz"), "--json"]
    fitted = ["train", "digits", "--data", str(tmp_path / "digits.npz"), "--epochs", "1", "--batch-size", "30"]
    fitted += ["--out", str(tmp_path / "out" / "two.safetensors")]
    calibrated = ["calibrate", "digits", "--data", "digits", "--steps", "1", "--method", "mean-matching", "--json"]
    calibrated += ["--samples", "128", "--golden", "4", "--device", "cpu", "--out", str(tmp_path / "bundles" / "out")]
    (tmp_path / "bundles").mkdir()
    paths = os.pathsep.join(str(Path(__file__).parents[i] / folder) for i, folder in ((0, "helpers"), (1, ".")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    launched = [*TORCHRUN, __file__, str(tmp_path), json.dumps([ran, fitted, calibrated])]
    done = subprocess.run(launched, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{number}.json").read_text()) for number in (0, 1))
    assert first["figures"] == second["figures"] == json.loads(json.dumps(figures()))
    assert first["commands"][0] == [0, command(*ran)[1]] and second["commands"] == [[0, ""]] * 3
    assert first["commands"][1][0] == 0 and "two.safetensors" in first["commands"][1][1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["two.png", "two.safetensors"]
    code, document = first["commands"][2][0], json.loads(first["commands"][2][1])
    assert code == 0 and document["method"] == "mean-matching" and document["metrics"]["calibration_samples"] == 128
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["out"]
    assert [one["primitives"].pop("share") for one in (first, second)] == [[0, 4], [4, 5]]
    assert first["primitives"] == second["primitives"]
    assert first["primitives"] == {
        "gathered": [0.25, 1.25, 2.25, 3.25, 4.25],
        "same": [True, False],
        "failure": [None, "no 1"],
    }
    expected = ["other than those of dropout", "tensor of shape (2, 16, 5, 5)", "noise.seen of Network differ"]
    expected += ["before the training", "2 processes share each batch"]
    assert [part in message for part, message in zip(expected, first["refusals"], strict=True)] == [True] * 5
    check_trainings(first, second, trained(), trained(tmp_path / "left.safetensors"))


def check_trainings(
    first: dict[str, Any], second: dict[str, Any], alone: dict[str, Any], continued: dict[str, Any]
) -> None:
    """Two processes, two that go on after one, and one that goes on after two come to what one does."""
    for key in ("whole", "resumed"):
        assert first[key]["weights"] == second[key]["weights"], "all processes have the same network"
    for other in (first["whole"], first["resumed"], continued):
        assert other["accuracy"] == alone["accuracy"]
        np.testing.assert_allclose(other["history"], alone["history"], rtol=1e-6)  # The loss is added up in float32.
        assert set(other["weights"]) == set(alone["weights"])
        for name, weights in alone["weights"].items():
            np.testing.assert_allclose(other["weights"][name], weights, rtol=1e-12, atol=1e-12, err_msg=name)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    results = {
        "figures": figures(),
        "primitives": primitives(),
        "refusals": refusals(),
        "whole": trained(),
        "resumed": trained(place / "resumed.safetensors"),
        "left": trained(place / "left.safetensors", interrupted=2),
        "commands": [command(*arguments) for arguments in json.loads(sys.argv[2])],
    }
    (place / f"rank{os.environ['RANK']}.json").write_text(json.dumps(results), "utf-8")
