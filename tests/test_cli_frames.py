"""Frames as the --data of a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from foreign_files import labels_of, write_small
from nir_interpreter import interpret

from cos_export.bundle import load
from targets.c import CTarget

SAMPLES, STEPS = 24, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "model.nir")
    events = np.random.default_rng(2).poisson(0.6, (SAMPLES, STEPS, 1, 8, 8)).astype(np.int16)
    np.savez(tmp_path / "events.npz", frames=events, labels=labels_of(SAMPLES))
    return tmp_path


def command(name: str, folder: Path, *options: str | Path) -> tuple[int, dict[str, Any]]:
    done = run(name, *options, "--data", folder / "events.npz", "--json")
    return done.returncode, json.loads(done.stdout)


def test_a_file_is_run_on_frames(folder: Path) -> None:
    with np.load(folder / "events.npz") as archive:
        frames = archive["frames"]
    expected = interpret(folder / "model.nir", frames.swapaxes(0, 1), subtract=True, at_threshold=True)
    right = [float(np.mean(step.argmax(-1) == labels_of(SAMPLES))) for step in expected.logits]
    options = ("--steps", str(STEPS), "--reset", "subtract", "--condition", ">=")
    code, document = command("run", folder, folder / "model.nir", *options)
    assert code == 0
    assert list(document["accuracy"].values()) == pytest.approx(right)


def test_a_bundle_of_frames_in_integers(folder: Path) -> None:
    options = ("--steps", "3", "--reset", "subtract", "--method", "half", "--numerics", "int8", "--golden", "6")
    code, document = command("convert-and-export", folder, folder / "model.nir", *options, "--out", folder / "out")
    assert (code, document["parity"]["passed"], document["input_encoding"]) == (0, True, "frames")
    assert load(folder / "out").golden.images.shape == (6, 3, 1, 8, 8)
    if CTarget().available().ready:
        code, document = command("verify", folder, folder / "out", "--targets", "c")
        assert (code, document["targets"]["c"]["mismatches"]) == (0, 0)
        assert run("code", folder / "out", "--language", "c", "--out", folder / "c").returncode == 0
        assert "#define OUT_FRAMES 3u" in (folder / "c" / "out.h").read_text()
    code, document = command("run", folder, folder / "out")
    assert (code, list(document["accuracy"])) == (0, ["1", "2", "3"])
    done = run("run", folder / "out", "--data", "digits")
    assert (done.returncode, "takes frames of shape" in done.stderr) == (2, True)
    code, document = command("analyze", folder, folder / "out")
    assert (code, "These are frames" in document["error"]) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "5"), "has 4 frames for each sample, and 5 steps"),
        (("--steps", "2", "--method", "cos"), "'cos' pre-simulates an input that is held"),
    ],
)
def test_what_frames_do_not_allow_is_refused_before_any_work(folder: Path, options: tuple[str], message: str) -> None:
    code, document = command("convert-and-export", folder, folder / "model.nir", *options, "--out", folder / "out")
    assert (code, message in document["error"]) == (2, True)


MODULE = """
import torch
from torch import nn
from cos_export import QCFS

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), QCFS(4, 1.0), nn.Flatten(), nn.Linear(256, 10))
"""


def test_a_module_is_converted_on_the_mean_over_time(folder: Path) -> None:
    (folder / "mine.py").write_text(MODULE)
    options = ("--data", folder / "events.npz", "--steps", "2", "--method", "mean-matching", "--golden", "4")
    done = run("convert-and-export", "mine:net", *options, "--out", folder / "out", "--json", cwd=folder)
    code, document = done.returncode, json.loads(done.stdout)
    assert (code, document["parity"]["passed"], document["input_encoding"]) == (0, True, "frames")
