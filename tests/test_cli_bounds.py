"""Numbers out of reason are refused at once, with the bound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run

import cos_export as ce
from cos_export import zoo
from cos_export.bounds import MAX_STEPS, MOST_CLASSES, MOST_LEVELS
from cos_export.errors import InputError
from cos_export.training import Recipe

HUGE = str(10**20)

CONVERT = ("convert-and-export", "digits", "--data", "digits")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--steps", ["0", "-1", "65537", "1000000000", HUGE, "nan", "2.5"]),
        ("--classes", ["1", "1000000000000", HUGE]),
        ("--levels", ["0", "1000000000000"]),
        ("--samples", ["0", "-5", "1000000000000", HUGE]),
        ("--golden", ["0", HUGE]),
    ],
)
def test_of_a_conversion(option: str, values: list[str], tmp_path: Path) -> None:
    for value in values:
        given = ["--steps", "2"] if option != "--steps" else []
        done = run(*CONVERT, *given, option, value, "--out", tmp_path / "b")
        assert done.returncode == 2 and f"Invalid value for '{option}'" in done.stderr


@pytest.mark.parametrize(
    ("method", "option", "values"),
    [
        ("cos", "--rho", ["0", "1000000000", HUGE]),
        ("cos", "--iterations", ["1000000000"]),
        ("srp", "--rho", ["1000000000"]),
        ("static", "--seed", ["-1", HUGE]),
        ("static", "--updates", ["0", "1000000000", HUGE]),
        ("static", "--batch", ["0", "1000000000"]),
        ("static", "--rounds", ["1000000000"]),
        ("static", "--shift", ["1000000000"]),
        ("static", "--learning-rate", ["nan", "inf", "-1", "0"]),
        ("ftbc", "--batches", ["1000000000"]),
        ("ftbc", "--batch", ["1000000000"]),
        ("ftbc", "--alpha", ["nan", "2"]),
        ("mean-matching", "--rounds", ["1000000000"]),
    ],
)
def test_of_a_method(method: str, option: str, values: list[str], tmp_path: Path) -> None:
    for value in values:
        done = run(*CONVERT, "--steps", "2", "--method", method, option, value, "--out", tmp_path / "b")
        assert done.returncode == 2 and "Traceback" not in done.stderr, value
        # typer's words name the option as it is written, a method's its field.
        assert option in done.stderr or f"{method} needs" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--seed", ["-1", HUGE]),
        ("--epochs", ["0", "1000000000"]),
        ("--batch-size", ["0", HUGE]),
        ("--learning-rate", ["nan", "-1", "inf"]),
    ],
)
def test_of_a_training(option: str, values: list[str], tmp_path: Path) -> None:
    for value in values:
        done = run("train", "digits", "--out", tmp_path / "w.safetensors", option, value)
        assert done.returncode == 2 and option.strip("-").replace("-", "_") in done.stderr.replace("-", "_")


@pytest.mark.parametrize(
    "shape", ["nan", "1,1000000000,8", HUGE, "1e9", "1,,8", "0,8,8", "1,8.5,8", "-1,8,8", "8,8", ""]
)
def test_of_a_shape(shape: str) -> None:
    done = run("check", "digits", f"--input-shape={shape}", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)


@pytest.mark.parametrize("option", ["--rho", "--steps", "--samples"])
def test_of_offset_spikes(option: str, tmp_path: Path) -> None:
    given = ["offsets", "digits", "--data", "digits", "--steps", "2", "--out"]
    done = run(*given, tmp_path / "a.png", option, "1000000000")
    assert done.returncode == 2 and (option in done.stderr or "1000000000 cannot be taken" in done.stderr)


def test_in_python() -> None:
    images = np.zeros((2, 1, 8, 8), np.float32)
    network = ce.capture(zoo.build("digits"), images)
    for refused, bound in (
        (lambda: ce.simulate(network, images, steps=10**9), MAX_STEPS),
        (lambda: zoo.build("digits", classes=10**12), MOST_CLASSES),
        (lambda: zoo.build("digits", levels=10**12), MOST_LEVELS),
        (lambda: zoo.build("digits", seed=10**20), 2**63 - 1),
        (lambda: ce.QCFS(10**12, 1.0), MOST_LEVELS),
        (lambda: ce.COS(rho=10**9), 10_000),
        (lambda: ce.Static(updates=10**9), 10**6),
        (lambda: Recipe(10**9, 0.1, 64), 10**6),
    ):
        with pytest.raises(InputError, match=rf"{bound}"):
            refused()
