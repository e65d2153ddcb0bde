from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import relist
from small_networks import two_layers

import cos_export.exporting as exporting
from calibration import COS, SRP, calibrate
from cos_export.bundle import BUNDLE_FORMAT, load, replacing_folder, sha256_of
from cos_export.errors import BundleError, CosExportError, InputError
from cos_export.exporting import export, export_and_verify
from cos_export.simulation import simulate
from targets import get

IMAGES = np.random.default_rng(0).integers(-32, 33, (9, 2, 5, 5)).astype(np.float32) / 16


def test_everything_comes_back(tmp_path: Path) -> None:
    network = calibrate(two_layers(seed=1), IMAGES, "mean-matching", 3)
    written = export(network, tmp_path / "out", golden=IMAGES, labels=np.arange(9) % 4, metrics={"model": "small"})
    bundle = load(tmp_path / "out")
    assert bundle.manifest == json.loads(json.dumps(written.manifest))
    assert sorted(file.name for file in bundle.path.iterdir()) == sorted(
        ["golden.npz", "manifest.json", "model.nir", "model.onnx", "model_step.onnx", "report.html"]
    )
    manifest = bundle.manifest
    assert (manifest["format"], manifest["num_timesteps"], manifest["rho"]) == (BUNDLE_FORMAT, 3, 0)
    assert (manifest["total_timesteps"], manifest["method"], manifest["numerics"]) == (3, "mean-matching", "float32")
    assert manifest["metrics"]["model"] == "small" and manifest["versions"]["onnx"] == onnx.__version__
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": (bundle.path / name).stat().st_size, "sha256": sha256_of(bundle.path / name)}
    trace = simulate(network, IMAGES, 3)
    assert np.array_equal(bundle.golden.images, IMAGES) and np.array_equal(bundle.golden.trace.logits, trace.logits)
    assert bundle.golden.labels is not None and bundle.golden.labels.tolist() == (np.arange(9) % 4).tolist()
    for name in network.layers:
        assert np.array_equal(bundle.golden.trace.spikes[name], trace.spikes[name])
        assert np.array_equal(bundle.network.neurons[name].v_init, network.neurons[name].v_init)


@pytest.mark.parametrize("calibration", [COS(rho=4), SRP(tau=3)])
def test_per_sample_states_travel_and_the_target_runs_from_them(tmp_path: Path, calibration: COS | SRP) -> None:
    bundle, parity = export_and_verify(
        two_layers(seed=2),
        tmp_path / "out",
        3,
        golden=IMAGES,
        calibration=calibration,
        targets=[get("onnxruntime"), get("pytorch")],
    )
    assert parity is not None and parity.passed
    assert all(target.mismatches == 0 for target in parity.values()), "dyadic weights leave nothing to rounding"
    again = load(bundle.path)
    assert (again.manifest["method"], again.manifest["rho"]) == (calibration.name, calibration.rho)
    assert again.manifest["total_timesteps"] == 3 + calibration.rho
    states = again.golden.trace.states
    assert states is not None and set(states.v_init) == {"first", "second"}
    assert set(states.silent) == ({"first", "second"} if calibration.name == "srp" else set())


def test_a_second_export_replaces_the_first(tmp_path: Path) -> None:
    export(two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES)
    export(two_layers(seed=2), tmp_path / "out", 4, golden=IMAGES)
    assert load(tmp_path / "out").steps == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_export_gives_the_same_model_and_golden_run(tmp_path: Path) -> None:
    first, second = (export(two_layers(seed=1), tmp_path / name, 2, golden=IMAGES) for name in "ab")
    for name in ("model.onnx", "golden.npz", "report.html"):
        assert first.manifest["files"][name] == second.manifest["files"][name], name


def test_other_peoples_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis holds what is not a bundle, and will not be replaced: chapter\.txt"):
        export(two_layers(seed=1), tmp_path / "thesis", 2, golden=IMAGES)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        export(two_layers(seed=1), tmp_path / "file", 2, golden=IMAGES)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("step", ["write_nir", "write_onnx", "write_step", "write_golden", "render_report"])
def test_a_failure_leaves_the_earlier_bundle_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    export(two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES)

    def fail(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, step, fail)
    with pytest.raises(KeyboardInterrupt):
        export(two_layers(seed=2), tmp_path / "out", 4, golden=IMAGES)
    assert load(tmp_path / "out").steps == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replacing_a_folder_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), replacing_folder(tmp_path / "new") as staging:
        (staging / "half").write_text("written")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def damage(bundle: Path, how: str) -> None:
    manifest = bundle / "manifest.json"
    if how == "altered":
        (bundle / "model.nir").write_bytes((bundle / "model.nir").read_bytes() + b" ")
    elif how == "missing":
        (bundle / "model.onnx").unlink()
    elif how == "not json":
        manifest.write_text("{")
    elif how == "later":
        manifest.write_text(manifest.read_text().replace(BUNDLE_FORMAT, "cos-export-bundle/9"))
    elif how == "no manifest":
        manifest.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("altered", r"model\.nir was altered"),
        ("missing", r"model\.onnx is missing"),
        ("not json", "is not JSON"),
        ("later", "'cos-export-bundle/9', and this version reads"),
        ("no manifest", r"holds no manifest\.json"),
    ],
)
def test_a_damaged_bundle_is_refused(tmp_path: Path, how: str, message: str) -> None:
    export(two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES)
    damage(tmp_path / "out", how)
    with pytest.raises(BundleError, match=message):
        load(tmp_path / "out")


def test_a_golden_file_with_pickles_is_refused(tmp_path: Path) -> None:
    bundle = export(two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES)
    np.savez(bundle.golden_path, images=np.array([{}], dtype=object), logits=IMAGES, rho=0)
    relist(bundle.path)
    with pytest.raises(BundleError, match="allow_pickle=False"):
        _ = load(bundle.path).golden


def test_wrong_arguments(tmp_path: Path) -> None:
    network = two_layers(seed=1)
    with pytest.raises(CosExportError, match="golden inputs must be one for each image: there are 9 images"):
        export(network, tmp_path / "out", 2, golden=IMAGES, labels=[1, 2])
    with pytest.raises(CosExportError, match="how many with steps="):
        export(network, tmp_path / "out", golden=IMAGES)
    with pytest.raises(BundleError, match="does not exist"):
        load(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_what_is_in_the_bundle(tmp_path: Path) -> None:
    rows = [
        {"method": "half", "num_timesteps": None, "rho": 0, "accuracy": {"1": 0.5, "2": 0.75}},
        {"method": "cos", "num_timesteps": None, "rho": 4, "accuracy": {"1": 0.7, "2": 0.8125}},
    ]
    metrics = {"dataset": "<noise>", "samples": 9, "ann_accuracy": 0.9, "methods": rows}
    targets = [get("onnxruntime")]
    bundle, _ = export_and_verify(
        two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES, metrics=metrics, targets=targets
    )
    page = bundle.report_path.read_text()
    assert "&lt;noise&gt;" in page and "<noise>" not in page
    assert "81.2" in page and page.count("<svg") == 3 and "onnxruntime" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ), "the page needs no network"
