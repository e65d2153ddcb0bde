from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import change_manifest, relist
from small_networks import two_layers

from cos_export.bundle import load
from cos_export.bundle.file_names import OPTIONAL_FILES
from cos_export.errors import BundleError, InputError
from cos_export.exporting import export

IMAGES = np.random.default_rng(0).integers(-32, 33, (3, 2, 5, 5)).astype(np.float32) / 16
ROW = {"method": "half", "num_timesteps": None, "rho": 0, "accuracy": {"1": 0.5, "2": 0.75}}
METRICS = {"dataset": "noise", "samples": 3, "ann_accuracy": 0.9, "methods": [ROW]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(
        two_layers(seed=1), tmp_path_factory.mktemp("made") / "b", 2, golden=IMAGES, labels=[0, 1, 2], metrics=METRICS
    ).path


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "b")
    return tmp_path / "b"


def paths(value: Any) -> list[tuple[str | int, ...]]:
    """The way to everything within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in [(key,), *((key, *rest) for rest in paths(inner))]]


def refusal(bundle: Path, path: tuple[str | int, ...], change: Callable[[Any, Any], object]) -> str:
    """What `load` says to a manifest whose value at `path` was changed; empty if it takes it."""
    text = (bundle / "manifest.json").read_text()
    manifest = json.loads(text)
    at: Any = manifest
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    try:
        load(bundle)
    except BundleError as error:
        return str(error)
    finally:
        (bundle / "manifest.json").write_text(text)
    return ""


def test_every_key_is_needed(bundle: Path) -> None:
    whole = json.loads((bundle / "manifest.json").read_text())
    fields = [path for path in paths(whole) if isinstance(path[-1], str)]
    free = [path for path in fields if {"versions", "accuracy", "by_node"} & set(path[:-1])]
    free += [
        ("metrics", "methods"),
        ("normalisation",),
        ("classes",),
        ("left_out",),
        ("readout_shape",),
        ("costs",),
        ("schedule",),
        ("input_encoding",),
        ("golden_correct",),
    ]
    assert len(fields) > 50
    for path in fields:
        said = refusal(bundle, path, lambda at, key: at.pop(key))
        assert bool(said) == (path not in free), path
        assert not said or str(path[-1]) in said or "ann_accuracy" in said


@pytest.mark.parametrize("value", [{"not": ["this"]}, [[[]]], True, -1, 1e300, 10**30, "x" * 5000])
def test_every_value_is_of_its_type_and_in_its_range(bundle: Path, value: Any) -> None:
    """What is accepted is what a value of that type may be."""
    whole = json.loads((bundle / "manifest.json").read_text())
    accepted = {path for path in paths(whole) if not refusal(bundle, path, lambda at, key: at.__setitem__(key, value))}
    spans = {path for path in paths(whole) if str(path[-1]).startswith("v_init_")}
    largest = {path for path in paths(whole) if str(path[-1]).startswith("threshold_")}
    if value in (-1, 10**30):
        assert accepted == (spans if value == -1 else spans | largest)
    elif value == 1e300:
        assert accepted == spans | largest
    else:
        assert accepted == ({("metrics",)} if isinstance(value, dict) else set())


def files(entry: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["files"].__setitem__(entry, value)


ENTRY = {"bytes": 4, "sha256": "0" * 64}

HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unlisted model.nir": (lambda m: m["files"].pop("model.nir"), r"files lacks model\.nir"),
    "no files": (lambda m: m.pop("files"), "files: Field required"),
    "no steps": (lambda m: m.pop("num_timesteps"), "num_timesteps: Field required"),
    "no metrics": (lambda m: m.pop("metrics"), "metrics: Field required"),
    "the folder above": (files("../../secret", ENTRY), r"'\.\./\.\./secret', which is not a file of a bundle"),
    "an absolute path": (files("/etc/passwd", ENTRY), "not a file of a bundle"),
    "a device": (files("/dev/zero", ENTRY), "not a file of a bundle"),
    "a path of one's own": (files("./model.nir", ENTRY), "not a file of a bundle"),
    "another file": (files("notes.txt", ENTRY), "not a file of a bundle"),
    "the manifest": (files("manifest.json", ENTRY), "not a file of a bundle"),
    "a hash in capitals": (lambda m: m["files"]["model.nir"].update(sha256="A" * 64), "sha256"),
    "a TiB": (lambda m: m["files"]["model.nir"].update(bytes=2**40), "bytes"),
    "steps": (lambda m: m.update(num_timesteps=10**9, total_timesteps=10**9), "num_timesteps"),
    "a total that is not": (lambda m: m.update(total_timesteps=7), "total_timesteps is not rho"),
    "20,000 methods": (lambda m: m["metrics"].update(methods=[ROW] * 20_000), r"metrics\.methods"),
    "methods of nothing": (lambda m: m.update(metrics={"methods": [ROW]}), "needs 'dataset'"),
    "10^6 layers": (lambda m: m.update(layers=m["layers"] * 5_001), "layers"),
    "classes": (lambda m: m.update(classes=[1, 2]), "classes"),
    "std of 0": (lambda m: m.update(normalisation={"mean": [0.0], "std": [0.0]}), "normalisation"),
    "a method without a name": (lambda m: m.update(calibration={"rho": 4}), "calibration lacks its name"),
    "costs at another T": (
        lambda m: m["metrics"]["methods"][0].update(latency={"1": 1}),
        "costs at other T than accuracies",
    ),
    "operations below 0": (lambda m: m["costs"]["operations"].update(spikes=-1.0), r"costs\.operations\.spikes"),
    "calibrated for 0": (lambda m: m.update(calibrated_timesteps=0), "calibrated_timesteps"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_refused(bundle: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=message):
        load(bundle)


def test_later_keys_and_formats_are_read(bundle: Path) -> None:
    later = {
        "format": "cos-export-bundle/3",
        "calibration": {"name": "cos", "rho": 4, "iterations": 2},
        "calibrated_timesteps": 4,
        "something": {"new": [1]},
    }
    change_manifest(bundle, lambda manifest: manifest.update(later))
    loaded = load(bundle)
    assert {key: loaded.manifest[key] for key in later} == later and loaded.steps == 2
    assert np.array_equal(loaded.golden.images, IMAGES)


@pytest.mark.parametrize("name", ["model.nir", "model.onnx", "golden.npz", "report.html", "manifest.json"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "dangling"])
def test_a_file_that_is_not_a_file_is_refused_at_once(bundle: Path, name: str, kind: str) -> None:
    held = bundle.parent / "held"
    (bundle / name).rename(held)
    if kind == "pipe":
        os.mkfifo(bundle / name)
    elif kind == "folder":
        (bundle / name).mkdir()
    else:
        (bundle / name).symlink_to(held if kind == "link" else bundle.parent / "nothing")
    with pytest.raises(BundleError, match=r"named pipe|symbolic link|a folder"):
        load(bundle)


def test_a_longer_file_is_not_hashed(bundle: Path) -> None:
    with (bundle / "model.nir").open("r+b") as file:
        file.truncate(2**42)
    with pytest.raises(BundleError, match="was altered after the export: it has"):
        load(bundle)


def test_hard_links_and_other_files_are_fine(bundle: Path) -> None:
    os.link(bundle / "model.nir", bundle.parent / "kept.nir")
    (bundle / "notes.txt").write_text("mine")
    assert load(bundle).steps == 2
    for name in OPTIONAL_FILES:
        (bundle / name).write_bytes(b"once")
        change_manifest(bundle, files(name, ENTRY))
        relist(bundle)
    assert set(OPTIONAL_FILES) < set(load(bundle).manifest["files"])


@pytest.mark.parametrize(
    ("key", "value"), [("numerics", "int8"), ("neurons", 7), ("input_shape", [2, 5, 6]), ("output_shape", [5])]
)
def test_a_manifest_that_tells_of_another_network_is_refused(bundle: Path, key: str, value: Any) -> None:
    change_manifest(bundle, lambda manifest: manifest.update({key: value}))
    with pytest.raises(BundleError, match=f"has {key}"):
        _ = load(bundle).network


@pytest.mark.parametrize(("key", "value"), [("num_timesteps", 3), ("rho", 1), ("golden_samples", 4)])
def test_a_manifest_that_tells_of_another_run_is_refused(bundle: Path, key: str, value: int) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest[key] = value
        manifest["total_timesteps"] = manifest["rho"] + manifest["num_timesteps"]

    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=f"has {key}"):
        _ = load(bundle).golden


@pytest.mark.parametrize("metrics", [{"x": float("nan")}, {"x": {1, 2}}, {"samples": -1}, {"methods": [1]}])
def test_metrics_that_could_not_be_read_back_are_not_written(tmp_path: Path, metrics: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"JSON|metrics"):
        export(two_layers(seed=1), tmp_path / "b", 2, golden=IMAGES, metrics=metrics)
    assert list(tmp_path.iterdir()) == []
