"""Data sets whose inputs change with time: numbers of events, one frame for each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from narrowing import in_memory
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets import Normalisation, image_array, labelled, load_dataset
from cos_export.errors import InputError

EVENTS = np.random.default_rng(0).poisson(0.5, (4, 3, 2, 5, 6))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_frames_of_a_file_are_numbers_of_events(tmp_path, dtype):
    np.savez(tmp_path / "data.npz", frames=EVENTS.astype(dtype), labels=np.arange(4))
    dataset = load_dataset(tmp_path / "data.npz")
    assert dataset.frames == 3
    assert in_memory(dataset.images).dtype == np.float32
    np.testing.assert_array_equal(dataset.images, EVENTS)
    np.testing.assert_array_equal(dataset.first(2).images, EVENTS[:2])
    held = dataset.mean_over_time()
    assert held.frames is None
    np.testing.assert_array_equal(held.images, EVENTS.mean(axis=1).astype(np.float32))
    assert "mean over 3 frames" in held.normalisation


def test_each_frame_is_normalised_by_channel(tmp_path):
    np.savez(tmp_path / "data.npz", frames=EVENTS, labels=np.arange(4))
    dataset = load_dataset(tmp_path / "data.npz", mean=[0.5, 0.25], std=[2.0, 4.0])
    expected = (EVENTS - np.array([0.5, 0.25]).reshape(2, 1, 1)) / np.array([2.0, 4.0]).reshape(2, 1, 1)
    np.testing.assert_array_equal(dataset.images, expected)
    assert dataset.applied == Normalisation((0.5, 0.25), (2.0, 4.0))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frames": EVENTS[:, :, 0], "labels": np.arange(4)}, "must be \\(samples, T, channels, height, width\\)"),
        ({"frames": EVENTS, "images": EVENTS[:, 0], "labels": np.arange(4)}, "must have one of 'images'"),
        ({"frames": EVENTS, "labels": np.arange(3)}, "4 frames and 3 labels"),
        ({"frames": EVENTS.astype(complex), "labels": np.arange(4)}, "must hold plain booleans, integers or floats"),
    ],
)
def test_files_that_do_not_hold_frames(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "data.npz")


class Events(TorchDataset[Any]):
    """As tonic's data sets with ToFrame: int16 arrays (T, channels, height, width) and class numbers."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return len(EVENTS)

    def __getitem__(self, i):
        return self.kind(EVENTS[i].astype(np.int16)), i


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda frames: torch.from_numpy(frames).float()])
def test_frames_of_a_torch_data_set(kind):
    dataset = labelled(Events(kind))
    assert dataset.frames == 3
    np.testing.assert_array_equal(dataset.images, EVENTS)
    np.testing.assert_array_equal(image_array(Events(kind)), EVENTS)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint16, np.bool_])
def test_arrays_of_integers_with_five_axes_are_numbers_of_events(kind):
    np.testing.assert_array_equal(image_array(EVENTS.astype(kind)), EVENTS.astype(kind).astype(np.float32))


@pytest.mark.parametrize("frames", [EVENTS.astype(np.uint8), torch.from_numpy(EVENTS.astype(np.uint8))])
def test_frames_of_uint8_may_be_pixels_or_events(frames):
    with pytest.raises(InputError, match=r"frames of uint8.*frames / 255 or frames\.astype"):
        image_array(frames)


def test_integers_of_fewer_axes_are_still_refused():
    with pytest.raises(InputError, match="must be uint8 or of a float type"):
        image_array(EVENTS[:, 0])
