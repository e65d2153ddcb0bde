"""`cos-export golden`, and `verify --results`: the exit codes and figures of a runtime that is not a target here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from eight_bit_networks import in_integers, pictures, topology

from cos_export.bundle import Bundle
from cos_export.datasets import Normalisation
from cos_export.exporting import export


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    network = replace(in_integers(topology("residual"), 1), normalisation=Normalisation.of(0.5, 0.25))
    return export(network, tmp_path_factory.mktemp("bundles") / "net", 2, golden=pictures(network, 4))


def results(bundle: Bundle, path: Path, flipped: int = 0) -> Path:
    arrays: dict[str, Any] = {f"spikes/{name}": value.copy() for name, value in bundle.golden.trace.spikes.items()}
    arrays["spikes/if1"].ravel()[:flipped] ^= True
    np.savez(path, logits=bundle.golden.trace.logits, **arrays)
    return path


def test_the_inputs_are_handed_out_with_what_is_expected_back(bundle: Bundle, tmp_path: Path) -> None:
    done = run("golden", bundle.path, "--out", tmp_path / "inputs.npz", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["results"] == {"spikes/if1": [2, 4, 4, 6, 5], "spikes/if2": [2, 4, 4, 6, 5], "logits": [2, 4, 3]}
    assert document["normalisation"] == {"mean": [0.5], "std": [0.25]}
    with np.load(tmp_path / "inputs.npz") as given:
        assert given.files == document["arrays"]
        assert given["mean"] == [0.5] and len(given["images"]) == 4
    shown = run("golden", bundle.path, "--out", tmp_path / "inputs.npz")
    assert shown.returncode == 0 and "2 x 4 x 4 x 6 x 5" in shown.stdout
    assert "The images are pixels / 255, less 0.5, divided by 0.25: nothing is left to be done." in shown.stdout
    refused = run("golden", bundle.path, "--out", tmp_path / "no" / "inputs.npz")
    assert refused.returncode == 2 and "there is no folder" in refused.stderr


def test_results_are_judged_as_a_target_is(bundle: Bundle, tmp_path: Path) -> None:
    done = run("verify", bundle.path, "--results", results(bundle, tmp_path / "right.npz"), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["passed"] and list(document["targets"]) == ["results"]
    assert document["targets"]["results"]["version"] == "right.npz"
    wrong = results(bundle, tmp_path / "wrong.npz", flipped=3)
    done = run("verify", bundle.path, "--results", wrong, "--targets", "onnxruntime", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1 and list(document["targets"]) == ["onnxruntime", "results"]
    assert document["targets"]["onnxruntime"]["passed"] and document["targets"]["results"]["mismatches"] == 3
    assert document["targets"]["results"]["first_divergence"]["layer"] == "if1"
    shown = run("verify", bundle.path, "--results", wrong)
    assert shown.returncode == 1 and "results: first differs at layer if1" in shown.stdout and "FAILED" in shown.stdout


def test_results_of_some_golden_inputs_are_judged_on_those_and_the_table_says_so(
    bundle: Bundle, tmp_path: Path
) -> None:
    done = run("golden", bundle.path, "--out", tmp_path / "inputs.npz", "--samples", 2, "--json")
    assert json.loads(done.stdout)["results"]["logits"] == [2, 2, 3]
    with np.load(tmp_path / "inputs.npz") as given, np.load(results(bundle, tmp_path / "all.npz")) as all_of_them:
        some = {name: all_of_them[name][:, :2] for name in all_of_them.files}
        np.savez(tmp_path / "unsaid.npz", **some)
        np.savez(tmp_path / "some.npz", samples=given["samples"], **some)
    done = run("verify", bundle.path, "--results", tmp_path / "some.npz", "--targets", "onnxruntime")
    assert done.returncode == 0 and "Not all of the golden samples, but 2: 0, 1 (from 0)" in done.stdout
    refused = run("verify", bundle.path, "--results", tmp_path / "unsaid.npz")
    assert refused.returncode == 2 and "'samples' must list them" in refused.stderr


def test_results_of_other_images_are_compared_with_a_run_of_those(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, *bundle.network.input_shape), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(3, np.int64))
    right = results(bundle, tmp_path / "four.npz")
    done = run("verify", bundle.path, "--data", tmp_path / "data.npz", "--results", right)
    assert done.returncode == 2 and "must be floats of shape (2, 3, 3)" in done.stderr


def test_what_is_not_a_file_of_results_exits_with_2(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    for path, message in (
        (tmp_path / "missing.npz", "missing.npz"),
        (tmp_path / "text.npz", "not an .npz archive"),
        (bundle.nir_path, "not an .npz archive"),
    ):
        refused = run("verify", bundle.path, "--results", path)
        assert refused.returncode == 2 and message in refused.stderr
