"""Fixed point from the command line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from command_line import run

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
        "float32, mean-matching: accuracy (%) at T = 1: ",
        "of 80 calibration images as float32 does",
    ):
        assert words in done.stdout
    bundle = load(out)
    manifest = bundle.manifest
    assert manifest["numerics"] == bundle.network.numerics == "int8"
    assert manifest["quantisation"]["input_scale"] == bundle.network.quantisation.input_scale  # type: ignore[union-attr]
    assert [layer["range"]["name"] for layer in manifest["quantisation"]["layers"]][-1] == "output"
    beside = manifest["metrics"]["float32"]
    assert [row["method"] for row in beside["methods"]] == ["half", "mean-matching"]
    assert (beside["agreement_samples"], 0.9 < beside["agreement"] <= 1.0) == (80, True)
    float32 = run(*CONVERT, "--method", "mean-matching", "--json", "--out", tmp_path / "float32")
    assert beside["methods"] == json.loads(float32.stdout)["metrics"]["methods"]
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


def test_weights_are_tuned_before_they_become_integers(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    tuned = ("--method", "static", "--tune", "potential,bias,weight", "--updates", "3", "--shift", "1")
    done = run(*CONVERT, *tuned, "--numerics", "int8", "--targets", "pytorch,onnxruntime", "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    for target in json.loads(done.stdout)["parity"]["targets"].values():
        assert target["exact"] and (target["mismatches"], target["logit_difference"]) == (0, 0.0)
    bundle = load(out)
    assert (bundle.network.numerics, bundle.network.method) == ("int8", "static")
    for spec in bundle.network.neurons.values():
        assert spec.bias is not None and (spec.bias % 1 == 0).all() and (spec.v_init % 1 == 0.5).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--numerics", "int4"), "numerics must be float32 or int8"),
        (("--numerics", "int8", "--quantisation", "odd"), "not odd"),
        (("--quantisation", "per-channel"), "With numerics int8 can be chosen per-channel"),
        (("--numerics", "int8", "--method", "rmp"), "weights of int8 are integers"),
    ],
)
def test_numerics_that_there_are_not(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(*CONVERT, "--method", "half", *arguments, "--out", tmp_path / "digits")
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "digits").exists()


def test_the_documents_show_what_was_measured_and_int8_is_within_half_a_point() -> None:
    docs = Path(__file__).parents[1] / "docs"
    table = (docs / "measured" / "int8.md").read_text("utf-8")
    assert f"<!-- docs/measured/int8.md -->\n{table}" in (docs / "numerics.md").read_text("utf-8")
    rows = json.loads((docs / "measured" / "int8.json").read_text("utf-8"))["rows"]
    assert {(row["network"], row["method"]) for row in rows} >= set(
        itertools.product(("resnet20", "vgg9"), ("half", "mean-matching"))
    )
    for row in rows:
        assert row["test_samples"] == 10_000 and abs(row["int8"]["4"] - row["float32"]["4"]) <= 0.005
        for numerics in ("float32", "int8"):
            beginning = f"| {row['network']} | `{row['method']}` | {numerics} |"
            [line] = [line for line in table.splitlines() if line.startswith(beginning)]
            assert all(f" {100 * share:.2f} " in line for share in row[numerics].values())
