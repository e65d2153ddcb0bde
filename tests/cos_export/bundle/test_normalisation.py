"""What a bundle says of its images and classes: the same in the manifest and in both files, and read back."""

import json
from dataclasses import replace

import nir
import numpy as np
import onnx
import pytest
from narrowing import present
from small_networks import two_layers

import cos_export as ce
from cos_export.bundle import Bundle, load
from cos_export.bundle.data import dataset_for
from cos_export.datasets import Dataset, Normalisation
from cos_export.errors import BundleError, InputError, NetworkError
from cos_export.nir_file import read_nir, write_nir

NAMES = ("cat", "Hündin", "a/b", "[/x]")
NORMALISATION = Normalisation((0.3, 0.45), (0.1, 0.25))
MEAN, STD = (np.array(values, np.float32)[:, None, None] for values in ([0.3, 0.45], [0.1, 0.25]))
IMAGES = np.random.default_rng(0).random((3, 2, 5, 5), np.float32)


@pytest.fixture
def network():
    return replace(two_layers(seed=1), normalisation=NORMALISATION, class_names=NAMES)


@pytest.fixture
def bundle(network, tmp_path):
    return ce.export(network, tmp_path / "b", 2, golden=IMAGES)


def test_every_file_says_so(bundle):
    expected = {"mean": [0.3, 0.45], "std": [0.1, 0.25]}
    assert json.loads((bundle.path / "manifest.json").read_text("utf-8"))["normalisation"] == expected
    assert bundle.manifest["classes"] == list(NAMES)
    metadata = nir.read(bundle.nir_path).metadata
    np.testing.assert_array_equal(metadata["input_mean"], np.array([0.3, 0.45], np.float32))
    np.testing.assert_array_equal(metadata["input_std"], np.array([0.1, 0.25], np.float32))
    assert metadata["input_mean"].dtype == np.float32
    assert json.loads(metadata["class_names"]) == list(NAMES)
    held = {entry.key: entry.value for entry in onnx.load(bundle.onnx_path).metadata_props}
    assert {key: json.loads(held[f"input_{key}"]) for key in expected} == expected
    assert json.loads(held["class_names"]) == list(NAMES)


def test_it_is_read_back(bundle):
    network = load(bundle.path).network
    assert (network.normalisation, network.class_names) == (NORMALISATION, NAMES)
    again = ce.export(network, bundle.path.parent / "again", 2, golden=IMAGES)
    assert (again.path / "model.nir").read_bytes() == bundle.nir_path.read_bytes()
    assert (again.path / "model.onnx").read_bytes() == bundle.onnx_path.read_bytes()


def test_what_is_not_known_is_not_said(tmp_path):
    bundle = ce.export(two_layers(seed=1), tmp_path / "b", 2, golden=IMAGES)
    assert (bundle.manifest["normalisation"], bundle.manifest["classes"]) == (None, None)
    assert not {"input_mean", "input_std", "class_names"} & set(nir.read(bundle.nir_path).metadata)
    assert (bundle.network.normalisation, bundle.network.class_names) == (None, None)


def test_a_data_set_brings_its_own(tmp_path):
    data = Dataset(IMAGES, np.array([0, 3, 1]), "pets", "as stored", NAMES).normalised(NORMALISATION)
    bundle = ce.export(two_layers(seed=1), tmp_path / "b", 2, golden=data)
    assert (bundle.network.normalisation, bundle.network.class_names) == (NORMALISATION, NAMES)
    by_hand = (IMAGES - MEAN) / STD
    np.testing.assert_array_equal(bundle.golden.images, by_hand)
    assert present(bundle.golden.labels).tolist() == [0, 3, 1]
    assert bundle.manifest["golden_correct"] == int((bundle.golden.trace.logits[-1].argmax(1) == [0, 3, 1]).sum())


CONTRADICTIONS = {
    "steps": (lambda m: m.update(num_timesteps=3, total_timesteps=3), "has num_timesteps 2, and the manifest says 3"),
    "rho": (lambda m: m.update(rho=1, total_timesteps=3), "has rho 0, and the manifest says 1"),
    "method": (lambda m: m.update(method="static"), "has method half, and the manifest says static"),
    "mean": (
        lambda m: m["normalisation"].update(mean=[0.3, 0.4]),
        r".*says .*0\.4",
    ),
    "none": (lambda m: m.update(normalisation=None), "has normalisation .*, and the manifest says None"),
    "classes": (lambda m: m["classes"].reverse(), "has classes .*, and the manifest says"),
}


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_manifest_that_says_otherwise_is_not_believed(bundle, change, message):
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match=rf"model\.nir {message}"):
        _ = load(bundle.path).network


ODD = {
    "half": ({"input_mean": np.array([0.5], np.float32)}, "has input_mean alone"),
    "text": ({"input_mean": "0.5", "input_std": "1"}, "input_mean in the graph's metadata must be one number"),
    "a table": ({"input_mean": np.eye(2), "input_std": np.eye(2)}, "one number, or one for each channel"),
    "zero": ({"input_mean": np.array([0], np.float32), "input_std": np.array([0], np.float32)}, "std must be positive"),
    "nan": ({"input_mean": np.array([np.nan], np.float32), "input_std": np.array([1], np.float32)}, "finite|nan"),
    "channels": (
        {"input_mean": np.zeros(3, "f4"), "input_std": np.ones(3, "f4")},
        "3 values of mean",
    ),
    "names": ({"class_names": "cat"}, "class_names in the graph's metadata is not JSON"),
    "numbers": ({"class_names": "[1, 2, 3, 4]"}, "JSON list of text"),
    "few names": ({"class_names": '["cat"]'}, r"1 class names, and the readout has shape \(4,\)"),
}


@pytest.mark.parametrize(("metadata", "message"), ODD.values(), ids=ODD)
def test_metadata_that_cannot_be_used(tmp_path, metadata, message):
    write_nir(two_layers(seed=1), tmp_path / "plain.nir")
    graph = nir.read(tmp_path / "plain.nir")
    graph.metadata |= metadata
    nir.write(tmp_path / "odd.nir", graph)
    with pytest.raises(NetworkError, match=message):
        read_nir(tmp_path / "odd.nir")


def test_data_is_normalised_as_the_bundle_says(bundle, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 2, 5, 5), np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.array([0, 1, 2, 3]))
    by_hand = pixels.astype(np.float32) / np.float32(255)
    by_hand = (by_hand - MEAN) / STD
    for asked in (None, NORMALISATION):
        np.testing.assert_array_equal(dataset_for(bundle, tmp_path / "set.npz", asked).images, by_hand)
    with pytest.raises(InputError, match=r"divided by 0\.1 / 0\.25, and --mean and --std ask for less 0\.5"):
        dataset_for(bundle, tmp_path / "set.npz", Normalisation.of(0.5))
    np.savez(tmp_path / "beyond.npz", images=pixels, labels=np.array([0, 1, 4, 3]))
    with pytest.raises(InputError, match="sample 2 is 4: there are 4 classes, 0 to 3"):
        dataset_for(bundle, tmp_path / "beyond.npz")


def test_a_bundle_of_the_first_format_says_it_in_words(bundle):
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    write_nir(replace(bundle.network, normalisation=None), bundle.nir_path)
    for key in ("normalisation", "classes"):
        del manifest[key]
    words = f"pixels 0..255 divided by 255, {NORMALISATION.words()}"
    old = Bundle(bundle.path, manifest | {"metrics": {"normalisation": words}})
    assert old.network.normalisation == NORMALISATION
    assert Bundle(bundle.path, manifest).network.normalisation is None
