"""Fixed point from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import run

from cos_export.bundle import load

CONVERT = ("convert-and-export", "digits", "--data", "digits", "--steps", "2", "--samples", "80", "--golden", "8")


def test_int8_is_converted_verified_and_run(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    done = run(*CONVERT, "--method", "mean-matching", "--numerics", "int8", "--limits", "--out", out)
    assert done.returncode == 0, done.stderr
    for words in (
        "500 images, int8",
        "steps per input, int8",
        "not one spike or logit may differ",
        "onnxruntime: 0 of 102,400 spikes differ.",
        "Ranges of integers",
    ):
        assert words in done.stdout
    bundle = load(out)
    manifest = bundle.manifest
    assert manifest["numerics"] == bundle.network.numerics == "int8"
    assert manifest["quantisation"]["input_scale"] == bundle.network.quantisation.input_scale  # type: ignore[union-attr]
    assert [layer["range"]["name"] for layer in manifest["quantisation"]["layers"]][-1] == "output"
    [target] = manifest["parity"]["targets"].values()
    assert target["exact"] and (target["mismatches"], target["logit_difference"]) == (0, 0.0)
    # The images that were recorded are those that the user gave.
    assert bundle.golden.images.min() >= 0.0 and bundle.golden.images.max() <= 1.0
    verified = run("verify", out, "--targets", "pytorch,onnxruntime", "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["passed"]
    ran = run("run", out, "--data", "digits", "--samples", "100", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["accuracy"]["2"] > 0.95


def test_a_choice_of_scales(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    choice = ("--numerics", "int8", "--quantisation", "power-of-two, even-weights")
    done = run(*CONVERT, "--method", "half", *choice, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    for layer in json.loads(done.stdout)["quantisation"]["layers"][:-1]:
        assert layer["odd_weights"] == 0 and layer["range"]["threshold_maximum"].bit_count() == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--numerics", "int4"), "numerics must be float32 or int8"),
        (("--numerics", "int8", "--quantisation", "odd"), "not odd"),
        (("--quantisation", "per-channel"), "With numerics int8 can be chosen per-channel"),
    ],
)
def test_numerics_that_there_are_not(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(*CONVERT, "--method", "half", *arguments, "--out", tmp_path / "digits")
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "digits").exists()
