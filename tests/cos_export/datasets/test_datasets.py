"""Data sets by name and from files."""

import numpy as np
import pytest
from narrowing import in_memory, present

from cos_export.datasets import Dataset, is_named, load_dataset
from cos_export.datasets.intake import image_array
from cos_export.datasets.normalisation import Normalisation
from cos_export.errors import InputError

IMAGES = np.arange(2 * 1 * 2 * 2, dtype=np.uint8).reshape(2, 1, 2, 2)


def archive(tmp_path, **arrays):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    return path


def test_digits_are_split_for_good():
    train, test = load_dataset("digits", "train"), load_dataset("digits")
    assert (len(train), len(test)) == (1297, 500)
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 8, 8)
    for part in (train, test):
        assert in_memory(part.images).dtype == np.float32
        assert present(part.labels).dtype == np.int64
        assert in_memory(part.images).min() == 0.0
        assert in_memory(part.images).max() == 1.0
        assert part.classes == 10
        assert np.ptp(np.bincount(present(part.labels))) <= 7
    assert present(test.labels)[:8].tolist() == present(load_dataset("digits", "test").labels)[:8].tolist()


def test_the_parts_of_digits_are_all_of_it_without_overlap():
    sklearn = pytest.importorskip("sklearn.datasets")
    whole = sklearn.load_digits()
    train, test = load_dataset("digits", "train"), load_dataset("digits")
    ours = np.concatenate([train.images, test.images]).reshape(1797, 64) * 16
    order, expected = np.lexsort(ours.T), np.lexsort(whole.data.T)
    np.testing.assert_array_equal(ours[order], whole.data[expected])
    one, other = ({image.tobytes() for image in in_memory(part.images)} for part in (train, test))
    assert not one & other


def test_the_split_of_digits_has_not_moved():
    labels = load_dataset("digits").labels
    assert present(labels)[:10].tolist() == [0, 7, 9, 1, 2, 3, 0, 5, 8, 4]


def test_names():
    assert is_named("digits")
    assert not is_named("digits.npz")


def test_bytes_are_scaled_and_floats_are_taken_as_they_are(tmp_path):
    scaled = load_dataset(archive(tmp_path, images=IMAGES, labels=np.array([3, 1])))
    np.testing.assert_array_equal(scaled.images, IMAGES.astype(np.float32) / np.float32(255))
    assert present(scaled.labels).tolist() == [3, 1]
    assert (scaled.name, scaled.classes) == ("set.npz", 4)
    assert "255" in scaled.normalisation
    floats = IMAGES.astype(np.float64) - 3.5
    plain = load_dataset(str(archive(tmp_path, images=floats, labels=np.array([0, 1], np.uint8))))
    np.testing.assert_array_equal(plain.images, floats)
    assert in_memory(plain.images).dtype == np.float32


def test_other_arrays_in_the_file_are_no_trouble(tmp_path):
    path = archive(tmp_path, images=IMAGES, labels=np.array([0, 1]), notes=np.array([{"a": 1}], dtype=object))
    assert len(load_dataset(path)) == 2


def test_first_and_split():
    whole = Dataset(np.zeros((5, 1, 2, 2), np.float32), np.arange(5), "five", "none")
    assert whole.first(None) is whole
    assert present(whole.first(2).labels).tolist() == [0, 1]
    left, right = whole.split_at(3)
    assert (present(left.labels).tolist(), present(right.labels).tolist()) == ([0, 1, 2], [3, 4])
    for count, message in ((0, "at least 1"), (6, "five has 5 samples")):
        with pytest.raises(InputError, match=message):
            whole.first(count)
    for count in (0, 5):
        with pytest.raises(InputError, match="cannot be split"):
            whole.split_at(count)


ODD = {
    "no images": (
        {"x": IMAGES, "labels": [0, 1]},
        "must have one of 'images', 'signals', 'features', 'frames', and holds 'x', 'l",
    ),
    "nothing": ({}, "must have one of 'images', 'signals', 'features', 'frames', and holds nothing"),
    "two of them": ({"images": IMAGES, "signals": IMAGES[0], "labels": [0, 1]}, "must have one of"),
    "one number each": ({"features": IMAGES[:, 0, 0, 0], "labels": [0, 1]}, r"or \(samples, features\), and has shape"),
    "videos": ({"images": IMAGES[None], "labels": [0]}, r"must be \(samples, channels, height, width\)"),
    "labels by class": ({"images": IMAGES, "labels": np.eye(2, dtype=int)}, "must be \\(samples,\\)"),
    "lengths": ({"images": IMAGES, "labels": [0, 1, 2]}, "2 images and 3 labels"),
    "empty": ({"images": IMAGES[:0], "labels": np.zeros(0, int)}, "no samples"),
    "float labels": ({"images": IMAGES, "labels": [0.0, 1.0]}, "class numbers"),
    "negative labels": ({"images": IMAGES, "labels": [0, -1]}, "class numbers"),
    "wide integers": ({"images": IMAGES.astype(np.int32), "labels": [0, 1]}, "uint8 or of a float type"),
    "nan": ({"images": IMAGES * np.nan, "labels": [0, 1]}, "not finite"),
    "objects": ({"images": IMAGES.astype(object), "labels": [0, 1]}, "Python objects is refused"),
}


@pytest.mark.parametrize(("arrays", "message"), ODD.values(), ids=ODD)
def test_files_that_do_not_hold_what_they_should(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        load_dataset(archive(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_files_that_are_no_archive(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not an \.npz archive"):
        load_dataset(path)


def test_a_single_array(tmp_path):
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(InputError, match="is a single array"):
        load_dataset(tmp_path / "one.npy")


def test_an_empty_folder_and_a_name_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="has no images"):
        load_dataset(tmp_path)
    with pytest.raises(InputError, match="'mnist' is neither a data set \\(digits\\) nor an existing file or folder"):
        load_dataset("mnist")


def test_a_split_that_is_not_there():
    with pytest.raises(InputError, match="'train' or 'test'"):
        load_dataset("digits", "validation")  # type: ignore[arg-type]


def test_normalisation_by_channel_is_done_and_said(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    path = archive(tmp_path, images=images, labels=np.arange(5))
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.5, 1.0)
    plain, scaled = load_dataset(path), load_dataset(path, mean=mean, std=std)
    expected = (plain.images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(in_memory(scaled.images), expected, rtol=1e-5, atol=1e-6)
    assert in_memory(scaled.images).dtype == np.float32
    assert scaled.normalisation == "pixels 0..255 divided by 255, less 0.5 / 0.25 / 0.1, divided by 0.2 / 0.5 / 1"
    assert scaled.first(2).normalisation == scaled.normalisation
    np.testing.assert_allclose(in_memory(load_dataset(path, mean=0.5).images), in_memory(plain.images) - 0.5)
    halved, whole = (in_memory(load_dataset("digits", std=std).images) for std in (2.0, None))
    np.testing.assert_allclose(halved * 2, whole)


@pytest.mark.parametrize("mean", [127, (0.5, -0.1), 1.01])
def test_a_mean_that_pixels_between_0_and_1_cannot_have(tmp_path, mean):
    path = archive(tmp_path, images=np.zeros((3, 2, 4, 4), np.uint8))
    for refused in (
        lambda: load_dataset(path, mean=mean, std=50),
        lambda: image_array(np.zeros((3, 2, 4, 4), np.uint8), Normalisation.of(mean)),
        lambda: Dataset(np.zeros((3, 2, 4, 4), np.uint8), None, "own", "").normalised(Normalisation.of(mean)),
    ):
        with pytest.raises(InputError, match="divided by 255 first, so that they lie between 0 and 1"):
            refused()
    floats = archive(tmp_path, images=np.full((3, 2, 4, 4), 200, np.float32))
    assert in_memory(load_dataset(floats, mean=127).images).max() == 73


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 values, and the images of digits"),
        ({"std": 0.0}, "std must be positive"),
        ({"std": float("nan")}, "std must be finite"),
        ({"mean": float("inf")}, "mean must be finite"),
        ({"mean": [[0.5]]}, "mean has 1 values"),
        ({"size": (8, 8)}, "Only folders of images are resized"),
    ],
    ids=str,
)
def test_normalisation_that_does_not_suit(options, message):
    with pytest.raises(InputError, match=message):
        load_dataset("digits", **options)


def test_class_names_go_along():
    named = Dataset(np.zeros((4, 1, 2, 2), np.float32), np.array([0, 1, 0, 1]), "four", "none", ("cat", "dog", "owl"))
    assert named.classes == 3
    assert all(part.class_names == ("cat", "dog", "owl") for part in (named.first(2), *named.split_at(1)))
