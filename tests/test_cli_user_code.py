"""The command line when a user's own code fails: one document, one line of that code, exit code 2."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import run

SOURCE = """
import os
from torch import nn

print("printed at import")


class Net(nn.Sequential):
    def __init__(self, fails):
        super().__init__(nn.Flatten(), nn.Linear(4, 3), nn.ReLU6(), nn.Linear(3, 2))
        self.fails = fails

    def forward(self, x):
        print("printed in forward")
        if self.fails == "always" or (self.fails == "training" and self.training):
            raise KeyError("a table")
        return super().forward(x)


def always(): return Net("always")
def training(): return Net("training")
def never(): return Net("never")
def ends(): os._exit(0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "failing.py").write_text(SOURCE)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", images=random.random((40, 1, 2, 2), np.float32), labels=np.arange(40) % 2)
    yield tmp_path
    sys.modules.pop("failing", None)


CONVERT = ("--data", "data.npz", "--steps", "2", "--out", "out")
TRAIN = ("--data", "data.npz", "--epochs", "1", "--batch-size", "8", "--out", "net.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message", "line"),
    [
        (
            ("check", "failing:ends", "--input-shape", "1,2,2"),
            "it ends Python (exit code 0)",
            "def ends(): os._exit(0)",
        ),
        (("convert-and-export", "failing:always", *CONVERT), "KeyError: 'a table'", "raise KeyError"),
        (
            ("train", "failing:training", *TRAIN),
            "a batch of (8, 1, 2, 2) in training: KeyError",
            "raise KeyError",
        ),
        (("train", "failing:never", *TRAIN, "--swap-activations", "--levels", "2"), "has no ReLU to swap", ""),
    ],
)
def test_one_error_with_its_line(folder, arguments, message, line):
    done = run(*arguments, "--json", cwd=folder)
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"]) == (2, 2)
    assert message in document["error"] and line in document["error"]
    assert "failing.py:" in document["error"] or not line
    assert "printed at import" in done.stderr
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == ["data.npz", "failing.py"]


def test_a_check_of_a_forward_that_fails_is_one_finding(folder):
    done = run("check", "failing:always", "--input-shape", "1,2,2", "--json", cwd=folder)
    (finding,) = json.loads(done.stdout)["findings"]
    assert done.returncode == 2
    assert "KeyError: 'a table'" in finding["blocker"] and "failing.py:16: raise KeyError" in finding["line"]
    assert "printed in forward" in done.stderr
    assert run("check", "failing:never", "--input-shape", "1,2,2", cwd=folder).returncode == 0
    fraction = run("check", "failing:never", "--input-shape", "1,2.5,2", cwd=folder)
    assert fraction.returncode == 2 and "--input-shape takes whole numbers" in fraction.stderr
