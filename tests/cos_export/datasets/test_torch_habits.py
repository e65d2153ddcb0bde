"""What data sets of torch do in the wild: lengths that guess, memory that is used again, random transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from narrowing import present
from small_networks import two_layers
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from calibration.data import calibration_data
from cos_export.datasets import StoredImages, image_array, stored
from cos_export.datasets.from_torch import from_torch
from cos_export.errors import InputError, Notice

IMAGES = torch.rand(12, 2, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4


class Mapped(TorchDataset[Any]):
    """A data set with a length that gives what a function says."""

    def __init__(self, give: Callable[[int], Any], length: int = 12) -> None:
        self._give, self._length = give, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Any:
        return self._give(i)


class Stream(IterableDataset[Any]):
    """One whose length, as webdataset's, is only what somebody expects."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __iter__(self) -> Iterator[Any]:
        yield from zip(IMAGES, LABELS.tolist(), strict=True)

    def __len__(self) -> int:
        return self._length


@pytest.mark.parametrize("length", [12, 9, 20])
def test_a_stream_is_read_to_its_end_whatever_its_length_says(length: int) -> None:
    read = from_torch(Stream(length), "stream")
    np.testing.assert_array_equal(read.images, IMAGES)
    assert present(read.labels).tolist() == LABELS.tolist()
    np.testing.assert_array_equal(image_array(Stream(length)), IMAGES)


def test_a_loader_without_batches_gives_samples_or_batches() -> None:
    """A label says which: torch itself hands on what the data set gives."""
    whole = TensorDataset(IMAGES, LABELS)
    batches = Mapped(lambda i: (IMAGES[4 * i : 4 * i + 4], LABELS[4 * i : 4 * i + 4]), length=3)
    for dataset in (whole, batches):
        read = from_torch(DataLoader(dataset, batch_size=None), "loader")
        np.testing.assert_array_equal(read.images, IMAGES)
        assert present(read.labels).tolist() == LABELS.tolist()
    alone = DataLoader(Mapped(lambda i: IMAGES[i]), batch_size=None)
    with pytest.raises(InputError, match=r"loader makes no batches .* and gives no labels"):
        from_torch(alone, "loader")


def in_one_memory(array: bool) -> Mapped:
    memory = torch.zeros(2, 5, 5)

    def give(i: int) -> Any:
        memory.copy_(IMAGES[i])
        return (memory.numpy() if array else memory), int(LABELS[i])

    return Mapped(give)


@pytest.mark.parametrize("array", [False, True])
def test_images_that_are_written_over_each_other_are_refused(array: bool) -> None:
    """They were all read as the last."""
    message = "changed the image of its first sample .* Let it return a copy of each"
    with pytest.raises(InputError, match=message):
        from_torch(in_one_memory(array), "data")
    with pytest.raises(InputError, match=message):
        image_array(in_one_memory(array))
    with pytest.raises(InputError, match=message):
        calibration_data(two_layers(0), in_one_memory(array), 4).take([3, 5])
    same = from_torch(Mapped(lambda i: (IMAGES[0], 0)), "the same sample again and again")
    assert (same.images[:] == IMAGES[0].numpy()).all()


class Jittered(Mapped):
    """Random noise in each look at a sample, and a count of the looks."""

    def __init__(self) -> None:
        generator, self.looks = torch.Generator().manual_seed(0), 0

        def give(i: int) -> Any:
            self.looks += 1
            return IMAGES[i] + torch.rand((), generator=generator) / 100, int(LABELS[i])

        super().__init__(give)


def test_random_transforms_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than memory holds would be others in each pass: the network and its teacher would see different."""
    monkeypatch.setattr(stored, "IN_MEMORY", 5 * 4 * IMAGES[0].numel())
    images = from_torch(Jittered(), "jittered").images
    assert isinstance(images, StoredImages)
    first = images[:]
    np.testing.assert_array_equal(images[:], first)
    np.testing.assert_allclose(first, IMAGES, atol=0.0101)
    assert not np.array_equal(first, IMAGES)


def test_a_calibration_sees_random_transforms_drawn_once() -> None:
    jittered = Jittered()
    data = calibration_data(two_layers(0), jittered, 4)
    looks = jittered.looks
    assert torch.equal(data.take(range(12)), data.take(range(12))) and jittered.looks == looks
    plain = Mapped(lambda i: (IMAGES[i], int(LABELS[i])))
    assert calibration_data(two_layers(0), plain, 4).images is plain, "what repeats is still read when it is needed"


def test_which_of_several_things_is_the_label_is_not_guessed() -> None:
    with pytest.warns(Notice, match=r"data gives 2 things beside each image.*Let it give \(image, label\)"):
        read = from_torch(TensorDataset(IMAGES, LABELS, LABELS), "data")
    assert read.labels is None


LABELS_THAT_ARE_NONE = {
    "one-hot": (torch.eye(4)[2], "one-hot: give its argmax, 2"),
    "whole": (torch.tensor(3.0), r"give int\(label\)"),
    "missing": (None, "give the images alone"),
    "image": (IMAGES[0], r"is a Tensor of shape \(2, 5, 5\), and should"),
    "name": ("cat", "is 'cat', and should be a class number from 0.$"),
}


@pytest.mark.parametrize("name", LABELS_THAT_ARE_NONE)
def test_labels_that_are_not_class_numbers_are_shown_with_what_to_do(name: str) -> None:
    label, message = LABELS_THAT_ARE_NONE[name]
    with pytest.raises(InputError, match=message) as raised:
        from_torch(Mapped(lambda i: (IMAGES[i], label)), "data")
    assert len(str(raised.value)) < 200


def test_arrays_among_tensors_are_named_as_such() -> None:
    mixed = Mapped(lambda i: (IMAGES[i].numpy() if i % 2 else IMAGES[i], 0))
    with pytest.raises(InputError, match=r"sample 1 of data is an ndarray, \(2, 5, 5\) float32, .* a Tensor, \(2"):
        from_torch(mixed, "data")
