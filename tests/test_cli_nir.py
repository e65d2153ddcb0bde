"""A .nir file as the MODEL of a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import random_networks as build
from command_line import run
from foreign_files import image_file, labels_of, write_small
from nir_interpreter import interpret

from calibration import COS, Static, calibrate
from cos_export.bundle import load
from cos_export.nir_file import read_nir, write_nir

NOT_SAID = "--reset subtract"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path / "model.nir")
    image_file(tmp_path / "data.npz")
    return tmp_path


def command(name: str, folder: Path, *options: str | Path) -> tuple[int, dict[str, Any], str]:
    done = run(name, folder / "model.nir", "--data", folder / "data.npz", "--json", *options)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_file_becomes_a_bundle_as_it_is(folder: Path) -> None:
    code, document, _ = command(
        "convert-and-export", folder, "--steps", "5", "--out", folder / "out", "--reset", "subtract", "--golden", "24"
    )
    assert code == 0
    bundle = load(folder / "out")
    assert (document["method"], document["parity"]["passed"]) == ("none", True)
    (assumed,) = document["metrics"]["assumed"]
    assert "--condition" in assumed
    assert NOT_SAID not in assumed
    images = bundle.golden.images
    expected = interpret(
        folder / "model.nir", np.broadcast_to(images, (5, *images.shape)), subtract=True, at_threshold=False
    )
    for name, fired in expected.spikes.items():
        np.testing.assert_array_equal(bundle.golden.trace.spikes[name], fired)


def test_a_file_is_run_as_it_is(folder: Path) -> None:
    with np.load(folder / "data.npz") as archive:
        images = archive["images"]
    expected = interpret(
        folder / "model.nir", np.broadcast_to(images, (3, *images.shape)), subtract=False, at_threshold=True
    )
    right = [float(np.mean(step.argmax(-1) == labels_of(len(images)))) for step in expected.logits]
    code, document, _ = command("run", folder, "--steps", "3", "--condition", ">=")
    assert code == 0
    assert list(document["accuracy"].values()) == pytest.approx(right)
    assert any(NOT_SAID in note for note in document["notes"])
    as_it_is = ("run", folder / "model.nir", "--data", folder / "data.npz", "--steps", "3", "--target", "pytorch")
    shown, quiet = run(*as_it_is, cwd=folder), run(*as_it_is, "--quiet", cwd=folder)
    assert NOT_SAID in shown.stdout
    assert (quiet.returncode, quiet.stderr) == (0, "") and "note:" not in quiet.stdout
    assert [line for line in shown.stdout.splitlines() if "note:" not in line] == quiet.stdout.splitlines()


def test_a_method_that_is_named_calibrates_and_integers_follow(folder: Path) -> None:
    options = ("--steps", "2", "--method", "mean-matching", "--reset", "subtract", "--numerics", "int8")
    code, document, _ = command("convert-and-export", folder, *options, "--out", folder / "out")
    assert code == 0
    assert (document["method"], document["numerics"]) == ("mean-matching", "int8")
    assert [row["method"] for row in document["metrics"]["methods"]] == ["none", "mean-matching"]
    assert not np.array_equal(load(folder / "out").network.neurons["1"].v_init, np.full((4, 8, 8), 0.5))


def test_search_measures_the_file_as_it_is_beside_the_methods(folder: Path) -> None:
    options = ("--steps", "2", "--methods", "none,half", "--schedules", "synchronous", "--max-drop", "100")
    code, document, _ = command("search", folder, *options, "--reset", "subtract", "--out", folder / "out")
    assert code == 0
    assert [one["method"]["name"] for one in document["search"]["measured"]] == ["none", "half"]


def test_the_check_of_a_file(folder: Path) -> None:
    done = run("check", folder / "model.nir", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"], document["warnings"]) == (0, True, 1)
    write_small(folder / "model.nir", r=1e4)
    assert run("check", folder / "model.nir").returncode == 1
    assert run("check", folder / "model.nir", "--dt", "1e-4").returncode == 0


def test_what_our_own_file_says_stays(folder: Path) -> None:
    network = build.sequential(
        np.random.default_rng(2), (1, 8, 8), [build.conv2d(np.random.default_rng(2), 1, 4), build.IF], classes=10
    )
    with np.load(folder / "data.npz") as archive:
        images = archive["images"]
    static = calibrate(network, images, Static(updates=2, samples=8), 2)
    write_nir(static, folder / "model.nir")
    code, document, _ = command("convert-and-export", folder, "--steps", "2", "--out", folder / "out")
    assert code == 0
    kept = load(folder / "out").network
    assert (kept.method, kept.calibration, kept.calibrated_timesteps) == ("static", static.calibration, 2)
    for name, spec in static.neurons.items():
        np.testing.assert_array_equal(kept.neurons[name].v_init, spec.v_init)
    assert "assumed" not in document["metrics"]
    # Another T is another calibration, and not the one that the file has.
    options = ("--steps", "4", "--method", "static", "--updates", "2", "--batch", "8")
    command("convert-and-export", folder, *options, "--out", folder / "other")
    assert load(folder / "other").network.calibrated_timesteps == 4
    for bad in (("--reset", "value"), ("--condition", ">"), ("--dt", "0.5")):
        code, document, _ = command("convert-and-export", folder, "--steps", "2", "--out", folder / "no", *bad)
        assert (code, "contradicts" in document["error"]) == (2, True)


def test_a_per_sample_file_is_run_with_its_method(folder: Path) -> None:
    write_small(folder / "source.nir")
    code, _, _ = command(
        "convert-and-export",
        folder,
        "--steps",
        "2",
        "--method",
        "cos",
        "--rho",
        "3",
        "--reset",
        "subtract",
        "--out",
        folder / "cos",
    )
    assert code == 0
    (folder / "model.nir").write_bytes((folder / "cos" / "model.nir").read_bytes())
    code, document, _ = command("convert-and-export", folder, "--steps", "2", "--out", folder / "again")
    assert (code, document["method"], document["calibration"]) == (0, "cos", COS(rho=3).record())
    assert command("run", folder)[1]["calibration"] == COS(rho=3).record()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--levels", "4"), "--levels is about a module"),
        (("--weights", "w.safetensors"), "--weights is about a module"),
        (("--thresholds", "maximum"), "--thresholds is about the activations of a module"),
        (("--max-pool", "average"), "--max-pool is about the activations"),
        (("--dt", "0"), "dt must be a positive number"),
    ],
)
def test_options_that_are_not_for_files(folder: Path, options: tuple[str, str], message: str) -> None:
    code, document, _ = command("convert-and-export", folder, "--steps", "2", "--out", folder / "out", *options)
    assert code == 2
    assert message in document["error"]
    assert not (folder / "out").exists()


def test_options_that_are_only_for_files(tmp_path: Path) -> None:
    options = ("--data", "digits", "--steps", "2", "--out", tmp_path / "out")
    done = run("convert-and-export", "digits", *options, "--reset", "subtract")
    assert (done.returncode, "--reset says what a .nir file does not" in done.stderr) == (2, True)
    done = run("convert-and-export", "digits", *options, "--method", "none")
    assert (done.returncode, "'none' keeps the potentials of a NIR file" in done.stderr) == (2, True)
    done = run("search", "digits", "--data", "digits", "--out", tmp_path / "out", "--methods", "none")
    assert (done.returncode, "'none' keeps the potentials of a NIR file" in done.stderr) == (2, True)
    done = run("train", "model.nir", "--data", "digits", "--out", tmp_path / "w.safetensors")
    assert (done.returncode, "spikes already" in done.stderr) == (2, True)


def test_a_file_of_images_that_do_not_fit(folder: Path) -> None:
    np.savez(folder / "data.npz", images=np.zeros((4, 3, 8, 8), np.float32), labels=np.zeros(4, np.int64))
    code, document, _ = command("run", folder, "--steps", "2")
    assert (code, "takes images of shape (samples, 1, 8, 8)" in document["error"]) == (2, True)


def test_the_file_may_hold_the_steps(folder: Path) -> None:
    code, document, _ = command("run", folder)
    assert (code, "Say for how many steps" in document["error"]) == (2, True)
    network = read_nir(folder / "model.nir", reset="subtract")
    half = calibrate(network, np.zeros((2, 1, 8, 8), np.float32), "half", 3)
    write_nir(half, folder / "model.nir")
    assert list(command("run", folder)[1]["accuracy"]) == ["1", "2", "3"]


def test_writer_options(folder: Path) -> None:
    options = ("--steps", "2", "--reset", "subtract", "--nir-compat", "1.0.4", "--unit-thresholds", "--dense-kernels")
    code, document, _ = command("convert-and-export", folder, *options, "--out", folder / "out")
    assert (code, document["parity"]["passed"]) == (0, True)
    assert {layer["threshold_max"] for layer in document["layers"]} == {1.0}
    with h5py.File(folder / "out" / "model.nir") as file:
        assert not [name for name, node in file["node/nodes"].items() if "v_reset" in node]
        np.testing.assert_array_equal(file["node/nodes/1/v_threshold"], np.ones((4, 8, 8)))
    code, document, _ = command(
        "convert-and-export", folder, *options[:2], "--unit-thresholds", "--numerics", "int8", "--out", "no"
    )
    assert (code, "thresholds of integers" in document["error"]) == (2, True)
