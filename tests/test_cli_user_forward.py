"""Conversion of networks whose forward does more than compute: what it writes and what it hides."""

import json
from pathlib import Path

import numpy as np
from command_line import run
from narrowing import in_memory, present

from cos_export.datasets import load_dataset

WRITES = """
from cos_export import zoo
from torch import nn

class Writes(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = zoo.build("digits", levels=4)
        zoo.load_weights(self.net, zoo.weights_path("digits"))

    def forward(self, x):
        x /= 16
        return self.net(16 * x)
"""

HIDES = """
import torch
from torch import nn

class Hides(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return self.net(x if torch.compiler.is_exporting() else x / 16)
"""


def test_a_forward_that_writes_into_its_input(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WRITES, "utf-8")
    test = load_dataset("digits", "test").first(60)
    np.savez(tmp_path / "data.npz", images=in_memory(test.images), labels=present(test.labels))
    done = run(
        *("convert-and-export", "mine:Writes", "--data", "data.npz", "--steps", "4", "--samples", "20", "--json"),
        *("--golden", "8", "--out", "bundle"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["ann_accuracy"] == metrics["captured_ann_accuracy"] > 0.95
    assert all(row["accuracy"]["8"] > 0.9 for row in metrics["methods"])
    golden = np.load(tmp_path / "bundle" / "golden.npz", allow_pickle=False)
    # Which of them are chosen is not this test's business: each is one of the data set's, bit by bit.
    for image in golden["images"]:
        assert (test.images == image).all((1, 2, 3)).any()


def test_a_capture_that_is_not_the_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HIDES, "utf-8")
    done = run(
        *("convert-and-export", "mine:Hides", "--data", "digits", "--steps", "4", "--method", "half"),
        *("--out", "bundle"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "does not compute what the module does" in done.stderr
    assert not list(tmp_path.glob("bundle*"))
