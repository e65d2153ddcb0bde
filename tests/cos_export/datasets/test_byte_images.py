"""Pixels that stay bytes, held against the same pixels as float32, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from cos_export import device_images
from cos_export.datasets import (
    Dataset,
    Normalisation,
    StoredImages,
    byte_images,
    image_array,
    load_dataset,
    stored,
)
from cos_export.datasets.byte_images import Pixels
from cos_export.device_images import DeviceImages
from cos_export.errors import InputError
from cos_export.training.state import fingerprint

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 5), np.uint8)
PIXELS[0].flat[:] = np.arange(60)
LABELS = np.arange(40) % 4
NORMALISED = Normalisation.of([0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616])
ORDER = np.random.default_rng(1).permutation(40)[:7]


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of more than 1,000 bytes stay bytes."""
    for module in (byte_images, stored):
        monkeypatch.setattr(module, "AS_BYTES", 1000)


def as_floats(normalisation: Normalisation | None = NORMALISED) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std, one rounding after each operation."""
    values = PIXELS.astype(np.float32) / np.float32(255)
    if normalisation is None:
        return values
    mean, std = (
        np.resize(np.array(v, np.float32), 3).reshape(3, 1, 1) for v in (normalisation.mean, normalisation.std)
    )
    return np.asarray((values - mean) / std, np.float32)


def held_as_bytes(images: object) -> Pixels:
    assert isinstance(images, StoredImages)
    pixels = images.pixels()
    assert pixels is not None and pixels.bytes.dtype == np.uint8
    return pixels


def test_every_way_in_leaves_many_pixels_as_bytes(few_are_many: None, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=PIXELS, labels=LABELS)
    given = [
        Dataset(PIXELS, LABELS, "array", "").images,
        load_dataset(tmp_path / "some.npz").images,
        image_array(PIXELS),
        image_array(torch.from_numpy(PIXELS)),
        image_array(TensorDataset(torch.from_numpy(PIXELS))),
        image_array(PIXELS[:, ::-1])[:],
    ]
    for images in given[:-1]:
        np.testing.assert_array_equal(held_as_bytes(images).bytes, PIXELS)
        np.testing.assert_array_equal(images, as_floats(None))
    np.testing.assert_array_equal(given[-1], as_floats(None)[:, ::-1])


@pytest.mark.parametrize("normalisation", [None, NORMALISED, Normalisation.of(0.5, 0.25)], ids=str)
def test_batches_on_a_device_are_what_the_host_makes_of_them(
    few_are_many: None, normalisation: Normalisation | None
) -> None:
    expected = as_floats(normalisation)
    images = Dataset(PIXELS, LABELS, "array", "").normalised(normalisation).images
    assert held_as_bytes(images).values.shape == (3, 256)
    there = DeviceImages(images, "cpu")
    actual = there.take(torch.from_numpy(ORDER), ORDER)
    assert there._held is not None and there._held.dtype == torch.uint8
    np.testing.assert_array_equal(actual, expected[ORDER])
    np.testing.assert_array_equal(image_array(PIXELS, normalisation), expected)


def test_parts_are_bytes_as_long_as_they_are_many(few_are_many: None) -> None:
    whole = Dataset(PIXELS, LABELS, "array", "").normalised(NORMALISED)
    begin, rest = whole.split_at(3)
    np.testing.assert_array_equal(held_as_bytes(rest.images).bytes, PIXELS[3:])
    assert np.shares_memory(held_as_bytes(rest.images).bytes, PIXELS)
    assert isinstance(begin.images, np.ndarray)
    np.testing.assert_array_equal(begin.images, as_floats()[:3])
    taken = DeviceImages(rest.images, "cpu").take(torch.arange(5), np.arange(5))
    np.testing.assert_array_equal(taken, as_floats()[3:8])


def test_what_is_not_many_pixels_goes_the_old_way(few_are_many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Dataset(as_floats(), LABELS, "floats", "").images, np.ndarray)
    assert isinstance(image_array(PIXELS[:2]), np.ndarray)
    assert isinstance(image_array(PIXELS.reshape(40, 60)), np.ndarray), "of features each would be a channel"
    floats = DeviceImages(as_floats(), "cpu")
    assert floats._held is None
    np.testing.assert_array_equal(floats.take(torch.from_numpy(ORDER), ORDER), as_floats()[ORDER])
    monkeypatch.setattr(device_images, "ON_DEVICE", PIXELS.nbytes - 1)
    images = Dataset(PIXELS, LABELS, "array", "").normalised(NORMALISED).images
    beyond = DeviceImages(images, "cpu")
    assert beyond._held is None, "more than may lie on a device is read batch by batch"
    np.testing.assert_array_equal(beyond.take(torch.from_numpy(ORDER), ORDER), as_floats()[ORDER])


def test_a_change_that_is_not_pixel_by_pixel_has_no_table(few_are_many: None) -> None:
    images = image_array(PIXELS)
    assert isinstance(images, StoredImages)
    turned = images.changed("turned", lambda some: some[..., ::-1].copy())
    assert turned.pixels() is None and turned.part(slice(20)).pixels() is None  # type: ignore[union-attr]
    taken = DeviceImages(turned, "cpu").take(torch.from_numpy(ORDER), ORDER)
    np.testing.assert_array_equal(taken, as_floats(None)[ORDER][..., ::-1])


def test_a_normalisation_of_other_channels_is_refused_at_once(few_are_many: None) -> None:
    with pytest.raises(InputError, match="mean has 2 values"):
        image_array(PIXELS, Normalisation.of([0.1, 0.2], [1.0, 1.0]))


def test_the_fingerprint_is_that_of_the_pixels(few_are_many: None) -> None:
    one, same, other = (image_array(pixels) for pixels in (PIXELS, PIXELS.copy(), PIXELS ^ 1))
    assert isinstance(one, StoredImages) and isinstance(same, StoredImages) and isinstance(other, StoredImages)
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("mean", [0.4, 0.5])
def test_another_normalisation_makes_other_images_of_the_same_pixels(few_are_many: None, mean: float) -> None:
    """States of a search, a calibration or a training on the one are not gone on from with the other."""
    plain = Dataset(PIXELS, LABELS, "array", "")
    given, again, other = (plain.normalised(Normalisation.of([one] * 3, None)) for one in (mean, mean, 0.3))
    marks = [one.images.fingerprint for one in (given, again, other, plain) if isinstance(one.images, StoredImages)]
    assert marks[0] == marks[1] and len(set(marks)) == 3
    kept = [fingerprint(one)["digest"] for one in (given, again, other, plain)]
    assert kept[0] == kept[1] and len(set(kept)) == 3
