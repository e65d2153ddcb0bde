"""Signals, features, folders of mixed sizes, unlabelled files and torch data sets, in every command that takes data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run

pytest.importorskip("PIL")

MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from cos_export import QCFS

def signals():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), QCFS(4, 1.0), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(32, 3))

def features():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 16), QCFS(4, 1.0), nn.Linear(16, 3))

def images():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), QCFS(4, 1.0), nn.Flatten(), nn.Linear(96, 3))

def data():
    torch.manual_seed(1)
    return TensorDataset(torch.rand(40, 7), torch.arange(40) % 3)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a module, data of each kind, and a folder of images of mixed sizes."""
    from PIL import Image

    here = tmp_path_factory.mktemp("doors")
    (here / "mine.py").write_text(MODULE)
    drawn = np.random.default_rng(0)
    labels = np.arange(40) % 3
    np.savez(here / "signals.npz", signals=drawn.uniform(0, 1, (40, 2, 16)).astype(np.float32), labels=labels)
    np.savez(here / "features.npz", features=drawn.uniform(0, 1, (40, 7)).astype(np.float32))
    for i in range(24):
        place = here / "pictures" / "abc"[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (6 + i % 4, 9 - i % 3), dtype=np.uint8)).save(place / f"{i:02}.png")
    return here


CASES = {
    "signals": ["mine:signals", "--data", "signals.npz"],
    "features": ["mine:features", "--data", "features.npz"],
    "pictures": ["mine:images", "--data", "pictures", "--size", "6,8"],
    "torch": ["mine:features", "--data", "mine:data"],
}
SHAPES = {"signals": [2, 16], "features": [7], "pictures": [1, 6, 8], "torch": [7]}


@pytest.mark.parametrize("case", CASES)
def test_from_data_to_spikes(folder: Path, case: str) -> None:
    model, *data = CASES[case]
    shape = ",".join(map(str, SHAPES[case]))
    checked = run("check", model, "--input-shape", shape, "--json", cwd=folder)
    assert checked.returncode == 0, checked.stderr
    out = f"out_{case}"
    made = run(
        "convert-and-export", model, *data, "--steps", "2", "--method", "half", "--out", out, "--json", cwd=folder
    )
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert document["parity"]["targets"]["onnxruntime"]["local_violations"] == 0
    unlabelled = case == "features"
    # The artificial network decides as itself.
    assert not unlabelled or document["metrics"]["ann_accuracy"] == 1.0
    assert (document["metrics"]["labels"] == "of the data") != unlabelled
    assert ("features.npz has no labels" in made.stderr) == unlabelled
    with np.load(folder / out / "golden.npz") as golden:
        assert golden["images"].shape[1:] == tuple(SHAPES[case])
        assert ("labels" in golden.files) != unlabelled
    ran = run("run", out, *data, "--json", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert ("no labels" in ran.stderr) == unlabelled
    analysed = run("analyze", out, *data, "--json", cwd=folder)
    assert analysed.returncode == 0, analysed.stderr


def test_offsets_search_and_training(folder: Path) -> None:
    counted = run("offsets", *CASES["features"], "--steps", "2", "--rho", "2", "--out", "o.png", "--json", cwd=folder)
    assert counted.returncode == 0, counted.stderr
    searching = ["--steps", "2", "--methods", "half", "--max-drop", "100", "--out", "found", "--json"]
    done = run("search", *CASES["features"], *searching, cwd=folder)
    assert done.returncode == 0, done.stderr
    train = ["--epochs", "1", "--batch-size", "8", "--out", "w.safetensors", "--json"]
    for case in ("signals", "pictures", "torch"):
        trained = run("train", *CASES[case], *train, cwd=folder)
        assert trained.returncode == 0, trained.stderr
    refused = run("train", *CASES["features"], *train, cwd=folder)
    assert refused.returncode == 2 and "features.npz has no labels, and they are needed here" in refused.stdout


def test_what_does_not_suit(folder: Path) -> None:
    convert = ["--steps", "2", "--method", "half", "--out", "none", "--json"]
    for size in ("6", "6,8,1", "0,8", "a,b"):
        done = run("convert-and-export", "mine:images", "--data", "pictures", "--size", size, *convert, cwd=folder)
        assert done.returncode == 2 and "--size takes" in done.stdout
    done = run("convert-and-export", *CASES["signals"], "--size", "6,8", *convert, cwd=folder)
    assert done.returncode == 2 and "Only folders of images are resized" in done.stdout
    done = run("convert-and-export", "mine:images", "--data", "pictures", *convert, cwd=folder)
    assert done.returncode == 2 and "--size" in done.stdout
    grey = np.zeros((4, 6, 8), np.float32)
    np.savez(folder / "grey.npz", images=grey, labels=np.arange(4) % 3)
    done = run("convert-and-export", "mine:features", "--data", "grey.npz", *convert, cwd=folder)
    assert done.returncode == 2 and "images[:, None]" in done.stdout
    assert not (folder / "none").exists()
