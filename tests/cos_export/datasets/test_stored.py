"""Data sets larger than what is held in memory: read when they are needed, to the numbers that memory would hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from narrowing import in_memory
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets import StoredImages, from_torch, load_dataset, stored
from cos_export.errors import InputError

FEW = 200 * 64 * 4
"""Bytes of 200 digits."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were read at once, from now on, where 200 digits are all that memory holds."""
    counts: list[int] = []
    index = StoredImages.__getitem__

    def counting(images: StoredImages, which: slice) -> object:
        part = index(images, which)
        counts.append(len(part))
        return part

    monkeypatch.setattr(stored, "IN_MEMORY", FEW)
    monkeypatch.setattr(StoredImages, "__getitem__", counting)
    return counts


PIXELS = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), np.uint8)
LABELS = np.arange(300) % 7


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, ">f4"])
def test_an_archive_is_read_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save, kind) -> None:  # type: ignore[no-untyped-def]
    images = PIXELS if kind == np.uint8 else (PIXELS / 77).astype(kind)
    save(tmp_path / "data.npz", more=np.ones(3), images=images, labels=LABELS)
    expected = load_dataset(tmp_path / "data.npz", mean=0.3, std=0.2)
    monkeypatch.setattr(stored, "IN_MEMORY", FEW)
    actual = load_dataset(tmp_path / "data.npz", mean=0.3, std=0.2)
    assert isinstance(actual.images, StoredImages) and isinstance(expected.images, np.ndarray)
    assert (actual.images.shape, actual.normalisation) == (expected.images.shape, expected.normalisation)
    np.testing.assert_array_equal(actual.images[:], expected.images)
    np.testing.assert_array_equal(actual.images[np.array([299, 3, 3])], expected.images[[299, 3, 3]])
    np.testing.assert_array_equal(actual.truth, LABELS)
    begin, rest = actual.split_at(50)
    assert isinstance(begin.images, np.ndarray) and isinstance(rest.images, StoredImages)
    np.testing.assert_array_equal(rest.images[10:12], expected.images[60:62])


def test_frames_that_count_events_are_averaged_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = np.random.default_rng(0).integers(0, 9, (300, 3, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "data.npz", frames=events)
    monkeypatch.setattr(stored, "IN_MEMORY", FEW)
    actual = load_dataset(tmp_path / "data.npz")
    assert isinstance(actual.images, StoredImages) and actual.frames == 3
    mean = actual.mean_over_time().images
    assert isinstance(mean, StoredImages) and mean.shape == (300, 1, 8, 8)
    np.testing.assert_array_equal(mean[7:9], events[7:9].mean(axis=1).astype(np.float32))


def test_a_damaged_archive_is_refused_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=PIXELS)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    monkeypatch.setattr(stored, "IN_MEMORY", FEW)
    with pytest.raises(InputError, match="CRC"):
        load_dataset(path)
    np.savez(path, images=np.asfortranarray(PIXELS.astype(np.float32)))
    with pytest.raises(InputError, match="Fortran"):
        load_dataset(path)


def test_a_folder_is_decoded_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    for i, pixels in enumerate(PIXELS[:, 0]):
        path = tmp_path / str(i % 3) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        image.fromarray(pixels).save(path)
    expected = load_dataset(tmp_path)
    monkeypatch.setattr(stored, "IN_MEMORY", FEW)
    actual = load_dataset(tmp_path)
    assert isinstance(actual.images, StoredImages)
    np.testing.assert_array_equal(actual.images[:], expected.images)
    np.testing.assert_array_equal(actual.truth, expected.truth)
    before = actual.images.fingerprint
    image.fromarray(PIXELS[0, 0][::-1].copy()).save(tmp_path / "2" / "299.png")
    assert load_dataset(tmp_path).images.fingerprint != before  # type: ignore[union-attr]


class _Stream(IterableDataset[tuple[torch.Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        yield from ((torch.from_numpy(p), int(n)) for p, n in zip(PIXELS, LABELS, strict=True))


@pytest.mark.parametrize("form", ["asked again", "streamed", "loaded in an order of its own"])
def test_a_torch_data_set_is_asked_again_or_kept_in_a_file(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    held: TorchDataset[tuple[torch.Tensor, ...]] = TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    shuffled = DataLoader(held, 32, shuffle=True, generator=torch.Generator().manual_seed(0))
    source = {"asked again": held, "streamed": _Stream()}.get(form, shuffled)
    monkeypatch.setattr(stored, "IN_MEMORY", FEW)
    actual = from_torch(source, "data")
    assert isinstance(actual.images, StoredImages)
    expected = PIXELS / np.float32(255)
    # By label and content, for sums of pixels have ties, whose order is the sorting's own.
    mine, theirs = (
        sorted(zip(labels.tolist(), map(np.ndarray.tobytes, images), strict=True))
        for labels, images in ((actual.truth, actual.images[:]), (LABELS, expected))
    )
    assert mine == theirs


def test_commands_read_a_batch_at_a_time_and_come_to_the_same(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stored, "IN_MEMORY", 2**30)
        digits = load_dataset("digits", "train")
        np.savez(tmp_path / "digits.npz", images=in_memory(digits.images), labels=digits.truth)
    commands = {
        "calibrate": [
            *("calibrate", "digits", "--data", "digits.npz", "--steps", "2", "--method", "mean-matching", "--rounds"),
            *("1", "--samples", "300", "--golden", "4", "--out", "OUT", "--json"),
        ],
        "run": ["run", "OUT", "--data", "digits.npz", "--json"],
        "train": ["train", "digits", "--data", "digits.npz", "--epochs", "1", "--out", "OUT.safetensors", "--json"],
    }
    results: dict[bool, list[object]] = {}
    for large in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(stored, "IN_MEMORY", FEW if large else 2**30)
            results[large] = []
            for name, command in commands.items():
                out = f"{'large' if large else 'small'}"
                done = run(*[part.replace("OUT", out) for part in command], cwd=tmp_path)
                assert done.returncode == 0, done.stderr
                told = json.loads(done.stdout)
                results[large].append(told["metrics"]["methods"] if name == "calibrate" else told.get("accuracy"))
    assert results[True] == results[False]
    # `run` hands 512 to a target, and all else takes at most a batch of 128, or what memory holds.
    assert read and max(read) <= 512 and sorted(read)[len(read) // 2] <= 128
