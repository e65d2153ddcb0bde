"""One way in for images: what each form of them means, at every entry of the API."""

import warnings
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from narrowing import in_memory, present
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import cos_export as ce
from calibration.offset_spikes import offset_spikes
from calibration.thresholds import relu_thresholds
from cos_export.datasets import Dataset, Normalisation, class_numbers, image_array
from cos_export.errors import InputError
from cos_export.qcfs import QCFS
from cos_export.training import Recipe, accuracy, swap_activations, train
from targets.pytorch import PyTorchTarget

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 2, 4, 4), np.uint8)
LABELS = np.arange(12) % 3
# By hand: what uint8 means, and what floats of each type hold.
SCALED = (PIXELS.astype(np.float64) / 255).astype(np.float32)
MEAN, STD = (0.3, 0.6), (0.1, 0.25)
NORMALISED = (SCALED - np.array(MEAN, np.float32)[:, None, None]) / np.array(STD, np.float32)[:, None, None]


class Unlabelled(TorchDataset[Any]):
    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        return torch.from_numpy(PIXELS[i])


class Labelled(Unlabelled):
    def __getitem__(self, i):
        return PIXELS[i], int(LABELS[i])


class Stream(IterableDataset[Any]):
    def __iter__(self):
        yield from zip(PIXELS, LABELS, strict=True)


RAW: dict[str, Any] = {
    "array": PIXELS,
    "tensor": torch.from_numpy(PIXELS),
    "list of arrays": list(PIXELS),
    "tuple of tensors": tuple(torch.from_numpy(PIXELS)),
    "list of samples": [(image, label) for image, label in zip(PIXELS, LABELS, strict=True)],
    "tensors": TensorDataset(torch.from_numpy(PIXELS)),
    "tensors and labels": TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
    "data set": Unlabelled(),
    "labelled data set": Labelled(),
    "stream": Stream(),
    "loader": DataLoader(Unlabelled(), batch_size=5),
    "labelled loader": DataLoader(Labelled(), batch_size=5),
    "our own": Dataset(PIXELS, LABELS, "ours", "as stored"),
    "channels last in memory": np.ascontiguousarray(PIXELS.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
}

FLOATS = {
    "float32": SCALED,
    "float64": SCALED.astype(np.float64),
    "big-endian": SCALED.astype(">f4"),
    "reversed": SCALED[::-1].copy()[::-1],
    "broadcast": np.broadcast_to(SCALED[:1], SCALED.shape),
    "float16": SCALED.astype(np.float16),
    "bfloat16": SCALED.astype(ml_dtypes.bfloat16),
    "tensor": torch.from_numpy(SCALED),
    "tensor with gradient": torch.from_numpy(SCALED).clone().requires_grad_(),
    "tensor of float64": torch.from_numpy(SCALED).double(),
    "tensor of float16": torch.from_numpy(SCALED).half(),
    "tensor of bfloat16": torch.from_numpy(SCALED).bfloat16(),
    "nested lists": SCALED.tolist(),
}


@pytest.mark.parametrize("images", RAW.values(), ids=RAW)
def test_bytes_are_pixels_whatever_they_come_in(images):
    np.testing.assert_array_equal(image_array(images), SCALED)
    np.testing.assert_array_equal(image_array(images, Normalisation(MEAN, STD)), NORMALISED)


@pytest.mark.parametrize("images", FLOATS.values(), ids=FLOATS)
def test_floats_are_what_they_are(images):
    exact = images.detach().double().numpy() if isinstance(images, torch.Tensor) else np.asarray(images, np.float64)
    for normalisation in (None, Normalisation(MEAN, STD)):
        actual = image_array(images, normalisation)
        assert in_memory(actual).dtype == np.float32
        assert in_memory(actual).flags.c_contiguous
        np.testing.assert_array_equal(actual, exact.astype(np.float32))


class Dictionaries(Unlabelled):
    def __getitem__(self, i):
        return {"x": 1.0}


def hole(value):
    array = SCALED.astype(np.float64)
    array[7, 1, 2, 3] = value
    return array


ODD = {
    "int64": (PIXELS.astype(np.int64), "uint8 or of a float type, and are int64"),
    "int8": (PIXELS.astype(np.int8), "are int8"),
    "uint16": (PIXELS.astype(np.uint16), "are uint16"),
    "bool": (PIXELS > 9, "are bool"),
    "complex": (SCALED + 0j, "are complex64"),
    "objects": (SCALED.astype(object), "are object"),
    "text": (np.full((2, 2, 4, 4), "1"), "are <U1"),
    "raw bytes": (SCALED.astype(ml_dtypes.bfloat16).view("V2"), "bfloat16 lost its name"),
    "whole numbers": (PIXELS.tolist(), "are int64"),
    "int32 tensor": (torch.from_numpy(PIXELS).int(), "are int32"),
    "bool tensor": (torch.from_numpy(PIXELS) > 9, "are bool"),
    "complex tensor": (torch.from_numpy(SCALED) + 0j, "are complex64"),
    "sparse": (torch.from_numpy(SCALED).to_sparse(), "sparse_coo"),
    "on no device": (torch.zeros(2, 2, 4, 4, device="meta"), "form meta"),
    "masked": (np.ma.masked_greater(SCALED, 0.5), "masked array"),
    "nan": (hole(np.nan), "not finite numbers in float32 .*first in sample 7"),
    "inf": (torch.from_numpy(hole(-np.inf)), "first in sample 7"),
    "beyond float32": (hole(1e300), "first in sample 7"),
    "none": (None, "are object"),
    "a path": ("images.npz", "are <U"),
    "a generator": ((image for image in PIXELS), "are object"),
    "a dictionary": ({"images": PIXELS}, "are object"),
    "ragged": ([[1.0, 2.0], [3.0]], "not one array of numbers"),
    "nothing": (PIXELS[:0], "There are no images"),
    "an empty list": ([], "There are no images"),
    "an empty data set": (TensorDataset(torch.zeros(0, 2, 4, 4)), "There are no images"),
    "a pair of arrays": ((PIXELS, LABELS), "sample 1 of the images is \\(12,\\) int64"),
    "mixed types": ([PIXELS[0], SCALED[0]], "sample 1 of the images is \\(2, 4, 4\\) float32"),
    "mixed shapes": ([PIXELS[0], PIXELS[1, :, 1:]], "sample 1 of the images is \\(2, 3, 4\\) uint8"),
    "dictionaries": (DataLoader(Dictionaries()), "Batch 0 of the DataLoader is a dict"),
}


@pytest.mark.parametrize(("images", "message"), ODD.values(), ids=ODD)
def test_what_has_no_meaning_is_refused(images, message):
    with pytest.raises(InputError, match=message):
        image_array(images)


class Module(nn.Module):
    """What nothing here computes but torch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.act, self.fc = nn.Conv2d(2, 4, 3, padding=1), QCFS(4, 1.0), nn.Linear(64, 3)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def module():
    return Module().eval()


@pytest.fixture(scope="module")
def network(module):
    return ce.capture(module, SCALED)


@pytest.fixture(scope="module")
def normalising(module):
    return ce.capture(module, Dataset(SCALED, LABELS, "x", "as stored").normalised(Normalisation(MEAN, STD)))


def test_the_artificial_network_is_the_module_on_pixels_by_hand(module, network, normalising):
    with torch.no_grad():
        plain = module(torch.from_numpy(PIXELS) / 255).numpy()
        shifted = module(
            (torch.from_numpy(PIXELS) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        ).numpy()
    for images in RAW.values():
        np.testing.assert_allclose(ce.ann_logits(network, images), plain, atol=1e-5)
        np.testing.assert_allclose(ce.ann_logits(normalising, images), shifted, atol=1e-5)
    np.testing.assert_allclose(ce.ann_logits(normalising, NORMALISED), shifted, atol=1e-5)
    assert np.abs(plain - shifted).max() > 0.1


def potentials(network):
    return np.concatenate([spec.v_init.ravel() for spec in network.neurons.values()])


ENTRIES = {
    "simulate": lambda network, images: ce.simulate(network, images, 4).logits,
    "calibrate": lambda network, images: potentials(ce.calibrate(network, images, "mean-matching", 4)),
    "quantise": lambda network, images: np.array([present(ce.quantise(network, images).quantisation).input_scale]),
    "offset_spikes": lambda network, images: np.array(
        [layer.mse for by_k in offset_spikes(network, images, 4).layers.values() for layer in by_k.values()]
    ),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_entry_reads_bytes_as_pixels(entry, network, normalising):
    for held, by_hand in ((network, SCALED), (normalising, NORMALISED)):
        expected = entry(held, by_hand)
        for images in RAW.values():
            np.testing.assert_array_equal(entry(held, images), expected)


def test_a_module_has_no_normalisation_of_its_own():
    relu = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    expected = relu_thresholds(relu, SCALED, "maximum")
    with torch.no_grad():
        by_hand = float(relu[:2](torch.from_numpy(SCALED)).max())
    assert float(expected["2"]) == pytest.approx(by_hand, rel=1e-5)
    for images in RAW.values():
        assert relu_thresholds(relu, images, "maximum") == expected
    shifted = Dataset(SCALED, LABELS, "x", "as stored").normalised(Normalisation(MEAN, STD))
    with torch.no_grad():
        by_hand = float(relu[:2](torch.from_numpy(NORMALISED)).max())
    assert float(relu_thresholds(relu, shifted, "maximum")["2"]) == pytest.approx(by_hand, rel=1e-5)
    assert swap_activations(relu, PIXELS, percentile=100)["2"] == pytest.approx(float(expected["2"]), rel=1e-5)


def test_training_and_accuracy_take_data_sets_of_torch():
    def trained(data):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
        return train(net, data, Recipe(2, 0.1, 6), test=data, device="cpu"), accuracy(net, data)

    plain = trained(Dataset(SCALED, LABELS, "x", "as stored"))
    for name in ("tensors and labels", "labelled data set", "labelled loader", "stream", "our own"):
        result, share = trained(RAW[name])
        assert (result.history, share) == (plain[0].history, plain[1])
    for name in ("array", "loader"):
        with pytest.raises(InputError, match=r"Images with labels are needed|has no labels, and they are needed"):
            accuracy(nn.Flatten(), RAW[name])


def test_golden_inputs_are_what_the_network_takes(normalising, tmp_path):
    for name in ("array", "labelled loader", "our own"):
        bundle = ce.export(normalising, tmp_path / "b", 2, golden=RAW[name])
        np.testing.assert_array_equal(bundle.golden.images, NORMALISED)
        trace = PyTorchTarget().run(bundle, PIXELS, 2)
        np.testing.assert_array_equal(trace.logits, bundle.golden.trace.logits)
    assert present(bundle.golden.labels).tolist() == LABELS.tolist()


def test_labels_of_golden_inputs_are_numbers_of_the_networks_classes(network, tmp_path):
    """A data set that numbers them otherwise would say of right answers that they are wrong."""
    named = replace(network, class_names=("ant", "bee", "cat"))
    other = Dataset(SCALED, LABELS, "set", "as stored", class_names=("bee", "ant", "cat"))
    with pytest.raises(InputError, match="classes of set are bee, ant, cat, and those of the network are ant, bee"):
        ce.export(named, tmp_path / "b", 2, golden=other)
    assert not (tmp_path / "b").exists()
    bundle = ce.export(named, tmp_path / "b", 2, golden=replace(other, class_names=("ant", "bee", "cat")))
    assert present(bundle.golden.labels).tolist() == LABELS.tolist()


def test_nothing_of_the_users_is_written_to(network, tmp_path):
    own = SCALED.copy()
    own.flags.writeable = False
    shared = torch.from_numpy(SCALED.copy())
    relu = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(32, 3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for images in (own, shared):
            for entry in ENTRIES.values():
                entry(network, images)
            ce.export(network, tmp_path / "b", 2, golden=images)
            relu_thresholds(relu, images, "maximum")
    np.testing.assert_array_equal(own, SCALED)
    np.testing.assert_array_equal(shared.numpy(), SCALED)


def test_a_data_set_that_was_normalised_otherwise(network, normalising):
    other = Dataset(SCALED, LABELS, "set", "as stored").normalised(Normalisation((0.5,), (0.5,)))
    with pytest.raises(InputError, match=r"set was normalised \(less 0.5, divided by 0.5\), and the network takes"):
        ce.simulate(normalising, other, 2)
    assert ce.calibrate(network, other, "half", 2).normalisation == Normalisation((0.5,), (0.5,))
    assert ce.calibrate(normalising, NORMALISED, "mean-matching", 2).normalisation == Normalisation(MEAN, STD)


@pytest.mark.parametrize("steps", [2.5, 2.0, "2", [2]], ids=str)
def test_steps_that_are_not_whole_numbers(network, steps):
    with pytest.raises(InputError, match="whole number"):
        ce.simulate(network, SCALED, steps)
    two: Any = np.int64(2)
    assert ce.simulate(network, SCALED, two).steps == 2


LABELS_WRONG = {
    "one-hot": (np.eye(3, dtype=int)[LABELS], "one-hot: give labels.argmax"),
    "a column": (LABELS[:, None], "must be \\(samples,\\).*shape \\(12, 1\\)"),
    "floats": (LABELS.astype(float), "integer type, and are of type float64"),
    "bool": (LABELS > 1, "of type bool"),
    "negative": (np.where(LABELS == 1, -1, LABELS), "that of sample 1 is -1"),
    "too large": (np.where(np.arange(12) == 4, 3, LABELS), "sample 4 is 3: there are 3 classes, 0 to 2"),
    "huge": (np.where(np.arange(12) == 4, 2**62, LABELS), f"sample 4 is {2**62}"),
    "unsigned": (np.full(12, 2**63, np.uint64), f"sample 0 is {2**63}"),
    "few": (LABELS[:5], "12 images and 5 labels"),
    "text": (["cat"] * 12, "of type <U3"),
    "ragged": ([[1], [1, 2]], "not one array"),
}


@pytest.mark.parametrize(("labels", "message"), LABELS_WRONG.values(), ids=LABELS_WRONG)
def test_labels_that_are_not_class_numbers(network, labels, message, tmp_path):
    with pytest.raises(InputError, match=message):
        class_numbers(labels, 12, 3)
    with pytest.raises(InputError, match=message):
        ce.export(network, tmp_path / "b", 2, golden=SCALED, labels=labels)
    assert not (tmp_path / "b").exists()


def test_labels_beyond_the_logits(network):
    beyond = Dataset(SCALED, np.arange(12), "beyond", "as stored")
    with pytest.raises(InputError, match=r"Sequential knows 3 classes, and beyond has labels up to 11 \(sample 11\)"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), beyond, Recipe(1, 0.1, 6), device="cpu")
    with pytest.raises(InputError, match="labels up to 11"):
        accuracy(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), beyond)
    with pytest.raises(InputError, match="sample 3 is 3: there are 3 classes"):
        ce.simulate(network, SCALED, 2).accuracy(np.arange(12))
