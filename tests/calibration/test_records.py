from __future__ import annotations

import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run as command
from numpy.typing import NDArray
from scalar_reference import cos_potential
from small_networks import two_layers
from two_layer_reference import Doubles, dyadic_images, fired, first_currents, held, second_currents

from calibration import COS, METHODS, SRP, Half, Method, Static, calibrate, method_from_record, method_of
from calibration.identity import fingerprint
from cos_export.bundle import Bundle, load, sha256_of
from cos_export.bundle.golden import write_golden
from cos_export.errors import BundleError, CosExportError, InputError
from cos_export.exporting import export
from cos_export.network import check_steps
from cos_export.nir_file import read_nir, write_nir
from cos_export.simulation import simulate
from targets import get
from targets.running import classify
from targets.verification import verify

DATA = Path(__file__).parents[1] / "data"


def calibrated_spikes(currents: Doubles, theta: float, rho: int, iterations: int) -> Doubles:
    """Spikes of a layer under COS, one neuron of one sample at a time: currents (steps, samples, ...)."""
    result = np.zeros_like(currents)
    for sample in range(currents.shape[1]):
        own = currents[:rho, sample].reshape(rho, -1)
        starts = [cos_potential(train.tolist(), theta, theta / 2, iterations) for train in own.T]
        shape = currents.shape[2:]
        result[:, [sample]] = fired(currents[:, [sample]], theta, np.reshape(starts, shape))
    return result


def cos_logits(images: NDArray[np.float32], steps: int, rho: int, iterations: int, seed: int) -> Doubles:
    """The mean readout of `two_layers` for t = 1..steps under COS, by its definition in float64."""
    network, horizon = two_layers(seed, (1.0, 0.25)), max(steps, rho)
    first = calibrated_spikes(held(first_currents(network, images), horizon), 1.0, rho, iterations)
    second = calibrated_spikes(second_currents(network, first), 0.25, rho, iterations)
    head = network.graph.nodes["head"]
    outputs = second[:steps] @ head.weight.T.astype(np.float64) + head.bias
    logits: Doubles = outputs.cumsum(0) / np.arange(1, steps + 1)[:, None, None]
    return logits


@pytest.mark.parametrize("target", ["pytorch", "onnxruntime"])
def test_a_bundle_of_cos_twice_runs_with_two_iterations_everywhere(tmp_path: Path, target: str) -> None:
    images, steps, rho, seed = dyadic_images(48), 3, 4, 22
    expected = {k: cos_logits(images, steps, rho, k, seed) for k in (1, 2)}
    assert np.abs(expected[1] - expected[2]).max() > 0.5, "the two must be told apart by these images"

    network, method = two_layers(seed, (1.0, 0.25)), COS(rho, iterations=2)
    bundle = export(network, tmp_path / "out", steps, golden=images[:4], calibration=method)
    assert bundle.manifest["calibration"] == {"name": "cos", "rho": 4, "iterations": 2}
    recorded = method_of(load(bundle.path))
    assert (recorded.method, recorded.unknown) == (COS(rho=4, iterations=2), "")
    assert method_of(read_nir(bundle.nir_path)).method == COS(rho=4, iterations=2)
    properties = {entry.key: entry.value for entry in onnx.load(bundle.onnx_path).metadata_props}
    assert json.loads(properties["calibration"]) == bundle.manifest["calibration"]
    assert "Options of cos: rho = 4, iterations = 2." in bundle.report_path.read_text()
    trace = classify(get(target), load(bundle.path), images, calibration=recorded.per_sample)
    np.testing.assert_allclose(trace.logits, expected[2], rtol=0, atol=1e-5)
    np.testing.assert_allclose(bundle.golden.trace.logits, expected[2][:, :4], rtol=0, atol=1e-5)
    assert verify(bundle.path, [target]).passed

    # What the command runs is told by labels that only two iterations get right.
    np.savez(tmp_path / "data.npz", images=images, labels=expected[2][-1].argmax(1))
    done = command("run", bundle.path, "--data", tmp_path / "data.npz", "--target", target, "--json")
    printed = json.loads(done.stdout)
    once = (expected[1][-1].argmax(1) == expected[2][-1].argmax(1)).mean()
    assert done.returncode == 0 and printed["accuracy"]["3"] == 1.0 > once
    assert printed["calibration"]["iterations"] == 2 and printed["notes"] == []


EVERY = [
    *(kind() for kind in METHODS.values()),
    COS(rho=7, iterations=4),
    SRP(tau=2),
    Static(tune=("bias", "weight"), learning_rate=0.1, flip=True, seed=3, start_from=two_layers(seed=1)),
]


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.name)
def test_a_record_is_plain_json_and_gives_the_method_back(method: Method) -> None:
    record = method.record()
    assert set(record) == {"name", *(entry.name for entry in fields(method))}
    again = method_from_record(json.loads(json.dumps(record)))
    assert type(again) is type(method) and again.record() == record
    if getattr(method, "start_from", None) is None:
        assert again == method
    else:
        assert record["start_from"] == fingerprint(two_layers(seed=1))
        with pytest.raises(InputError, match="fingerprint alone"):
            calibrate(two_layers(seed=2), dyadic_images(8), again, 1)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "best"}, "no calibration method 'best'"),
        ({"name": "cos", "depth": 2}, "'cos' has no depth"),
        ({"name": "half", "rho": 2}, "'half' has no rho to choose. It has no options"),
        ({"name": "cos", "rho": "4"}, "cos needs a whole number as rho, and got '4'"),
        ({"name": "cos", "rho": 4.5}, "cos needs a whole number as rho, and got 4.5"),
        ({"name": "cos", "rho": True}, "cos needs a whole number as rho, and got True"),
        ({"name": "cos", "iterations": 0}, "cos needs iterations >= 1, and got 0"),
        ({"name": "srp", "tau": 10**9}, "srp needs tau <= 10000, and got 1000000000"),
        ({"name": "static", "seed": -1}, "static needs seed >= 0, and got -1"),
        ({"name": "static", "learning_rate": float("nan")}, "static needs a finite number as learning_rate"),
        ({"name": "static", "tune": ["delay"]}, "some of potential, threshold, bias, weight"),
        ({"name": "static", "tune": "bias"}, "some of potential, threshold, bias, weight"),
        ({"name": "static", "precision": "double"}, "precision of static is one of float32, mixed"),
        ({"name": "static", "start_from": 3}, "a network or nothing as start_from"),
        ({"name": ["cos"]}, "mapping with a name"),
        ({}, "mapping with a name"),
        ([], "mapping with a name"),
        (None, "mapping with a name"),
    ],
)
def test_a_record_that_is_not_known_is_refused_by_name(record: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        method_from_record(record)


def altered(bundle: Bundle, **changes: Any) -> Path:
    """The bundle with another calibration in its NIR file and manifest, and the hash made to agree."""
    network = replace(bundle.network, **changes)
    write_nir(network, bundle.nir_path)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest |= {key: changes[key] for key in changes if key in manifest}
    manifest["files"]["model.nir"]["sha256"] = sha256_of(bundle.nir_path)
    manifest["files"]["model.nir"]["bytes"] = bundle.nir_path.stat().st_size
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    return bundle.path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dream", "calibration": {"name": "dream", "rho": 4}}, "There is no calibration method 'dream'"),
        ({"calibration": {"name": "cos", "rho": 4, "depth": 2}}, "'cos' has no depth to choose"),
        ({"calibration": {"name": "cos", "rho": 5, "iterations": 1}}, "rho = 4, which its method 'cos' contradicts"),
        ({"method": "half", "calibration": {"name": "half"}}, "rho = 4, which its method 'half' contradicts"),
    ],
)
def test_a_bundle_of_a_method_that_is_not_known_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    images = dyadic_images(4)
    bundle = export(two_layers(seed=2), tmp_path / "out", 3, golden=images, calibration=COS(rho=4))
    path = altered(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        verify(path, ["pytorch"])
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(4, np.int64))
    for done in (
        command("verify", path, "--targets", "pytorch"),
        command("run", path, "--data", tmp_path / "data.npz", "--target", "pytorch"),
        command("report", path),
    ):
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_golden_run_without_the_states_of_its_method_is_refused(tmp_path: Path) -> None:
    bundle = export(two_layers(seed=2), tmp_path / "out", 3, golden=dyadic_images(4), calibration=COS(rho=4))
    write_golden(bundle.golden_path, replace(bundle.golden, trace=replace(bundle.golden.trace, states=None)))
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    entry = {"sha256": sha256_of(bundle.golden_path), "bytes": bundle.golden_path.stat().st_size}
    manifest["files"]["golden.npz"] = entry
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="holds no states of each sample, which 'cos' sets"):
        verify(bundle.path, ["pytorch"])


def test_a_manifest_that_contradicts_the_network_is_refused(tmp_path: Path) -> None:
    bundle = export(two_layers(seed=2), tmp_path / "out", 3, golden=dyadic_images(4), calibration=COS(rho=4))
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["calibration"]["iterations"] = 2
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"says calibration = .*'iterations': 2.*, and its model\.nir .*1"):
        method_of(load(bundle.path))


@pytest.fixture
def before(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A bundle of format cos-export-bundle/1, as it was written: calibrated at T = 4, exported at 8; or cos twice."""
    with zipfile.ZipFile(DATA / f"bundle_format_1_{request.param}.zip") as archive:
        archive.extractall(tmp_path / "before")
    return tmp_path / "before"


NOTES = {
    "cos": "cos is run with the default iterations = 1",
    "static": "not known are its rounds and whether it was calibrated for T = 8, or for another T",
}


@pytest.mark.parametrize("before", list(NOTES), indirect=True)
def test_a_bundle_of_the_format_before_loads_verifies_and_says_what_it_cannot_know(
    before: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["before"]
    bundle = load(before)
    assert bundle.manifest["format"] == "cos-export-bundle/1"
    method = method_of(bundle).method
    assert method is not None and (method.name, method.rho) == (bundle.manifest["method"], bundle.manifest["rho"])
    assert verify(before, ["pytorch", "onnxruntime"]).passed

    np.savez(tmp_path / "data.npz", images=dyadic_images(6), labels=np.arange(6) % 4)
    for arguments in (
        ("verify", before, "--targets", "pytorch"),
        ("run", before, "--data", tmp_path / "data.npz", "--target", "pytorch"),
        ("report", before, "--out", tmp_path / "page.html"),
    ):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
        assert NOTES[kind] in done.stdout
        [note] = json.loads(command(*arguments, "--json").stdout)["notes"]
        assert NOTES[kind] in note
    assert NOTES[kind] in (tmp_path / "page.html").read_text()


def test_what_no_method_has_calibrated_has_none(tmp_path: Path) -> None:
    network = replace(two_layers(seed=1), method="none")
    assert method_of(network).method is None
    assert method_of(two_layers(seed=1)).method == Half() and method_of(two_layers(seed=1)).unknown == ""


def test_a_network_of_a_per_sample_bundle_is_not_exported_without_its_method(tmp_path: Path) -> None:
    bundle = export(two_layers(seed=2), tmp_path / "out", 3, golden=dyadic_images(4), calibration=COS(rho=4))
    with pytest.raises(CosExportError, match="'cos', which calibrates each sample: pass calibration="):
        export(bundle.network, tmp_path / "again", golden=dyadic_images(4))
    again = export(
        bundle.network, tmp_path / "again", golden=dyadic_images(4), calibration=method_of(bundle).per_sample
    )
    assert np.array_equal(again.golden.trace.logits, bundle.golden.trace.logits)


def test_the_t_of_the_calibration_stays_when_another_is_exported(tmp_path: Path) -> None:
    images = dyadic_images(8)
    network = calibrate(two_layers(seed=2), images, "mean-matching", 4)
    assert (network.num_timesteps, network.calibrated_timesteps) == (4, 4)
    bundle = export(network, tmp_path / "out", 8, golden=images)
    again = load(bundle.path)
    for actual in (again.manifest["num_timesteps"], again.network.num_timesteps, check_steps(None, again.network)):
        assert actual == 8
    assert (again.manifest["calibrated_timesteps"], again.network.calibrated_timesteps) == (4, 4)
    assert "T = 8 (calibrated for T = 4)" in bundle.report_path.read_text()
    assert np.array_equal(simulate(again.network, images).logits[:4], simulate(network, images).logits)


@pytest.mark.parametrize("method", ["half", "opi"])
def test_half_and_opi_are_made_for_any_t(tmp_path: Path, method: str) -> None:
    """v_init = theta / 2 whatever T: nothing of T is in it, and none is recorded."""
    networks = [calibrate(two_layers(seed=2), dyadic_images(4), method, steps) for steps in (1, 8)]
    for name, spec in networks[0].neurons.items():
        assert np.array_equal(spec.v_init, networks[1].neurons[name].v_init)
    assert [network.calibrated_timesteps for network in networks] == [None, None]
    bundle = export(networks[0], tmp_path / "out", 4, golden=dyadic_images(4))
    assert load(bundle.path).network.calibrated_timesteps is None
    assert bundle.manifest["calibrated_timesteps"] is None and bundle.manifest["calibration"] == {"name": method}
    np.savez(tmp_path / "data.npz", images=dyadic_images(4), labels=np.arange(4))
    done = command("run", bundle.path, "--data", tmp_path / "data.npz", "--target", "pytorch")
    assert done.returncode == 0 and [line.split()[1] for line in done.stdout.splitlines() if method in line] == ["any"]
