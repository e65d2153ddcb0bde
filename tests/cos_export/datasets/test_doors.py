"""Every way into a data set: signals, features, no labels, and a user's own torch data set by its factory."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from narrowing import in_memory, present
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets import Dataset, folder_sizes, from_torch, labelled, load_dataset
from cos_export.errors import InputError, Notice

SHAPES = {"images": (6, 3, 4, 5), "signals": (6, 2, 16), "features": (6, 7)}


def values(shape, kind=np.float32):
    drawn = np.random.default_rng(0).uniform(0, 255, shape)
    return drawn.astype(kind)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_arrays_of_every_shape_under_every_name(tmp_path, name, shape, kind):
    array = values(shape, kind)
    np.savez(tmp_path / "a.npz", **{name: array}, labels=np.arange(6))
    read = load_dataset(tmp_path / "a.npz", mean=0.5)
    np.testing.assert_allclose(
        in_memory(read.images), array / (255 if kind == np.uint8 else 1) - 0.5, rtol=1e-6, atol=1e-6
    )
    assert present(read.labels).tolist() == list(range(6))


def test_labels_may_be_missing(tmp_path):
    np.savez(tmp_path / "a.npz", signals=values((6, 2, 16)))
    read = load_dataset(tmp_path / "a.npz")
    assert read.labels is None and len(read) == 6
    left, right = read.split_at(4)
    assert (len(left), len(right), left.labels) == (4, 2, None)
    for needing in (lambda: read.truth, lambda: read.classes, lambda: labelled(read)):
        with pytest.raises(InputError, match=r"a\.npz has no labels, and they are needed here"):
            needing()


def test_decisions_stand_in_for_missing_labels():
    known = Dataset(np.zeros((2, 4), np.float32), np.array([2, 2]), "known", "none")
    assert known.labelled_by(np.array([1, 0])) is known
    unknown = Dataset(np.zeros((2, 4), np.float32), None, "unknown", "none")
    with pytest.warns(Notice, match="unknown has no labels. In their place stand the decisions"):
        decided = unknown.labelled_by(np.array([1, 0]))
    assert present(decided.labels).tolist() == [1, 0] and unknown.labels is None


class Alone(TorchDataset[Any]):
    def __init__(self, shape):
        self.array = values((6, *shape))

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.array[i]


@pytest.mark.parametrize("shape", [(7,), (2, 16), (3, 4, 5)], ids=str)
def test_torch_data_sets_of_every_shape(shape):
    alone = from_torch(Alone(shape), "alone")
    np.testing.assert_array_equal(alone.images, values((6, *shape)))
    assert alone.labels is None
    tensors = TensorDataset(torch.from_numpy(values((6, *shape))), torch.arange(6))
    for given in (tensors, DataLoader(tensors, batch_size=4)):
        read = from_torch(given, "given")
        np.testing.assert_array_equal(read.images, alone.images)
        assert present(read.labels).tolist() == list(range(6))


def test_samples_that_are_labelled_in_part():
    items: Any = [(torch.zeros(3), 0), torch.zeros(3)]
    too_many_axes: Any = [(torch.zeros(1, 1, 2, 3, 4), 0)]
    with pytest.raises(InputError, match="Sample 1 of some has no label, unlike those before"):
        from_torch(items, "some")
    with pytest.raises(InputError, match="Sample 1 of some has a label, unlike those before"):
        from_torch(items[::-1], "some")
    with pytest.raises(InputError, match=r"has shape \(1, 1, 2, 3, 4\), and should be a tensor"):
        from_torch(too_many_axes, "some")


FACTORIES = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def signals():
    return TensorDataset(torch.arange(24.0).reshape(4, 2, 3), torch.tensor([0, 1, 0, 1]))

def loader():
    return DataLoader(signals(), batch_size=3)

def ours():
    from cos_export.datasets import load_dataset
    return load_dataset("digits")

def tuple_():
    return 1, 2

class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        raise KeyError("no file")

held = signals()
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    (tmp_path / "door_data.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("door_data", None)


def test_a_data_set_by_its_factory(users):
    for factory in ("signals", "loader"):
        read = load_dataset(f"door_data:{factory}", std=2.0)
        assert read.name == f"door_data:{factory}"
        np.testing.assert_array_equal(read.images, np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 2)
        assert present(read.labels).tolist() == [0, 1, 0, 1]
    assert len(load_dataset("door_data:ours")) == 500


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("door_data:tuple_", "returned a tuple, and should return a torch Dataset or DataLoader"),
        ("door_data:Broken", "(?s)The data set of 'door_data:Broken' fails: KeyError.*no file.*door_data.py"),
        ("door_data:held", "Name a function that returns the data set"),
        ("door_data:absent", "cannot be found"),
        ("no_such_module:make", "cannot be imported"),
        ("door_data.py:signals", "names a file. Name the module as Python imports it"),
    ],
)
def test_factories_that_do_not_suit(users, spec, message):
    with pytest.raises(InputError, match=message):
        load_dataset(spec)


def test_which_of_several_are_resized(tmp_path):
    assert folder_sizes((4, 5), "digits", tmp_path) == [None, (4, 5)]
    assert folder_sizes(None, "digits", tmp_path) == [None, None]
    with pytest.raises(InputError, match=r"Only folders of images are resized, and 'digits' and 'a\.npz' is not one"):
        folder_sizes((4, 5), "digits", "a.npz")
