"""Two processes on accuracies, a search and the command `run`: what one process comes to, started as a user would."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from small_networks import two_layers

import cli
from calibration import COS, SRP
from calibration.choices import Auto, Choices
from calibration.data_parts import DataParts
from calibration.search import deployments, search
from cos_export.accuracy import measure_accuracy
from cos_export.datasets import Dataset
from cos_export.errors import NetworkError
from cos_export.exporting import export
from cos_export.processes import first_failure, gathered, process_group, rank, same_everywhere, share

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


def primitives() -> dict[str, Any]:
    """What is made of two processes that do not have the same."""
    import torch

    with process_group(torch.device("cpu")):
        own = share(5, 2)
        mine = torch.arange(5.0)[own] + 0.25
        with pytest.raises(NetworkError, match="beyond what float32 holds"):
            # Of 128 images one of the second process makes a sum that float32 does not hold.
            images = noise(128)
            images.images[100] = 3e38
            measure_accuracy(two_layers(seed=3), images, (2,), device="cpu")
        return {
            "share": [own.start, own.stop],
            "gathered": gathered(mine, own, 5).tolist(),
            "same": [same_everywhere(("a", 1)), same_everywhere(rank())],
            "failure": [first_failure(None), first_failure(f"no {rank()}" if rank() else None)],
        }


def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    network, images = two_layers(seed=3), noise(150)
    export(network, tmp_path / "bundle", 3, golden=images.first(8))
    np.savez(tmp_path / "images.npz", images=images.images, labels=images.labels)
    ran = ("run", str(tmp_path / "bundle"), "--data", str(tmp_path / "images.npz"), "--json")
    paths = os.pathsep.join(str(Path(__file__).parents[i] / folder) for i, folder in ((0, "helpers"), (1, ".")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*TORCHRUN, __file__, str(tmp_path), *ran], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{number}.json").read_text()) for number in (0, 1))
    assert first["figures"] == second["figures"] == json.loads(json.dumps(figures()))
    assert (first["run"], second["run"]) == ([0, command(*ran)[1]], [0, ""])
    assert [one["primitives"].pop("share") for one in (first, second)] == [[0, 4], [4, 5]]
    assert first["primitives"] == second["primitives"]
    assert first["primitives"] == {
        "gathered": [0.25, 1.25, 2.25, 3.25, 4.25],
        "same": [True, False],
        "failure": [None, "no 1"],
    }


if __name__ == "__main__":
    results = {"figures": figures(), "primitives": primitives(), "run": command(*sys.argv[2:])}
    Path(sys.argv[1], f"rank{os.environ['RANK']}.json").write_text(json.dumps(results), "utf-8")
