"""Image files in a folder for each class, and torch data sets."""

import os
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from narrowing import in_memory, present
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

from cos_export.datasets import from_torch, load_dataset
from cos_export.errors import InputError, UnavailableError

Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two cats, three dogs, and things to pass over."""
    for i, name in enumerate(["dog/b.png", "dog/a.png", "dog/c.PNG", "cat/10.png", "cat/2.png"]):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(path)
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "pets" / "cat" / ".hidden.png").write_text("x")
    (tmp_path / "pets" / ".cache").mkdir()
    (tmp_path / "pets" / "README").write_text("x")
    return tmp_path / "pets"


def test_classes_are_sorted_and_take_turns(folder):
    read = load_dataset(folder)
    assert read.class_names == ("cat", "dog")
    assert present(read.labels).tolist() == [0, 1, 0, 1, 1]
    expected = PIXELS[[3, 1, 4, 0, 2]].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(read.images, expected)
    assert in_memory(read.images).dtype == np.float32
    assert (read.name, read.normalisation) == ("pets", "pixels 0..255 divided by 255")
    assert load_dataset(str(folder), mean=0.5, std=(1, 2, 4)).images.shape == (5, 3, 4, 5)


def test_grey_images_have_one_channel_unless_one_is_coloured(folder):
    for path in folder.glob("*/*"):
        if path.suffix.lower() == ".png" and path.name[0] != ".":
            Image.open(path).convert("L").save(path)
    assert load_dataset(folder).images.shape == (5, 1, 4, 5)
    Image.fromarray(PIXELS[5]).save(folder / "cat" / "z.png")
    coloured = load_dataset(folder)
    assert coloured.images.shape == (6, 3, 4, 5)
    pixels = in_memory(coloured.images)
    assert (pixels[0, 0] == pixels[0, 2]).all()


def test_sizes_must_agree_or_be_given(folder):
    Image.fromarray(np.zeros((8, 7, 3), np.uint8)).save(folder / "cat" / "z.jpg")
    with pytest.raises(InputError, match=r"z\.jpg is 8 x 7, and .*10\.png is 4 x 5\. Give a size"):
        load_dataset(folder)
    read = load_dataset(folder, size=(6, 3))
    assert read.images.shape == (6, 3, 6, 3)
    assert read.normalisation == "resized to 6 x 3, pixels 0..255 divided by 255"
    with pytest.raises(InputError, match="resized to 0 x 3"):
        load_dataset(folder, size=(0, 3))


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_no_image(folder, content):
    (folder / "cat" / "z.png").write_bytes(content)
    with pytest.raises(InputError, match=r"z\.png cannot be read as an image"):
        load_dataset(folder)


def test_a_file_that_is_cut_short(folder):
    path = folder / "cat" / "10.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"10\.png cannot be read as an image"):
        load_dataset(folder)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pixels_of_sixteen_bits(folder, kind, channels):
    """PNG's kinds of pixels: grey, RGB, and both with transparency."""
    _write_deep(folder / "cat" / "z.png", kind, channels)
    with pytest.raises(InputError, match=r"z\.png has pixels of mode .*16.*8 bits per channel"):
        load_dataset(folder)


def _write_deep(path, kind, channels):
    def piece(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 5, 4, 16, kind, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(5 * channels * 2)) * 4)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", rows) + piece(b"IEND", b""))


def test_a_class_without_images(folder):
    (folder / "emu").mkdir()
    with pytest.raises(InputError, match="no images of the classes emu"):
        load_dataset(folder)


def test_a_class_whose_name_is_not_text(folder):
    """It would fail in the files that name the classes, after the calibration."""
    (folder / "cat").rename(folder / os.fsdecode(b"c\xe4t"))
    with pytest.raises(InputError, match=r"pets has a class called 'c\\udce4t', which is not UTF-8"):
        load_dataset(folder)


def test_orientation_is_left_as_the_pixels_lie(folder):
    """As torchvision's ImageFolder leaves it, which networks are trained with."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(PIXELS[5]).save(folder / "cat" / "2.png", exif=turned)
    read = load_dataset(folder)
    second = np.flatnonzero(present(read.labels) == 0)[1]
    np.testing.assert_array_equal(in_memory(read.images)[second], np.moveaxis(PIXELS[5], -1, 0) / np.float32(255))


def test_without_pillow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnavailableError, match=r"pip install 'cos-export\[images\]'"):
        load_dataset(folder)


class Map(TorchDataset[Any]):
    """A list as a data set that never says that it is over."""

    def __init__(self, samples, classes=None):
        self.samples, self.classes = samples, classes

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i % len(self.samples)]


class Stream(IterableDataset[Any]):
    def __iter__(self):
        yield torch.zeros(1, 2, 2), 1
        yield torch.ones(1, 2, 2), 0


def test_torch_data_sets():
    images, labels = torch.rand(4, 3, 2, 2), torch.tensor([2, 0, 1, 1])
    read = from_torch(TensorDataset(images, labels), "tensors")
    np.testing.assert_array_equal(read.images, images.numpy())
    assert present(read.labels).tolist() == [2, 0, 1, 1]
    assert (read.name, read.classes, read.class_names) == ("tensors", 3, None)
    stream = from_torch(Stream(), "stream")
    assert present(stream.labels).tolist() == [1, 0]
    pixels = np.full((1, 2, 2), 255, np.uint8)
    scaled = from_torch(Map([(pixels, np.int64(0)), [pixels, 1]], classes=["a", "b", "c"]), "bytes")
    assert (in_memory(scaled.images) == 1.0).all()
    assert "255" in scaled.normalisation
    assert scaled.class_names == ("a", "b", "c")


GOOD = (torch.zeros(1, 2, 2), 0)
ODD = {
    "empty": ([], "has no samples"),
    "no pair": ([GOOD, torch.zeros(1)], "Sample 1 of odd has no label, unlike those before"),
    "no tensor": ([("image", 0)], "image of sample 0 of odd is a str.*ToTensor"),
    "five axes": ([(torch.zeros(1, 1, 1, 2, 2), 0)], "should be a tensor \\(channels, height, width\\)"),
    "integers": ([(torch.zeros(1, 2, 2, dtype=torch.int32), 0)], "uint8 or of a float type"),
    "another shape": ([GOOD, (torch.zeros(1, 2, 3), 0)], "sample 1 of odd is \\(1, 2, 3\\) float32"),
    "a float label": ([(GOOD[0], 0.5)], "label of sample 0 of odd is 0.5"),
    "a negative label": ([(GOOD[0], torch.tensor(-1))], "class number from 0"),
    "one-hot": ([(GOOD[0], torch.tensor([0, 1]))], "class number from 0"),
    "nan": ([(GOOD[0] * float("nan"), 0)], "not finite"),
}


@pytest.mark.parametrize(("samples", "message"), ODD.values(), ids=ODD)
def test_torch_data_sets_that_do_not_hold_what_they_should(samples, message):
    with pytest.raises(InputError, match=message):
        from_torch(Map(samples), "odd")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n%%EOF\n"


def test_what_is_called_png_and_is_not_starts_no_program(folder, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    (folder / "cat" / "z.png").write_bytes(EPS)
    with pytest.raises(InputError, match=r"z\.png cannot be read as an image"):
        load_dataset(folder)
    Image.fromarray(PIXELS[5]).save(folder / "cat" / "z.png", format="GIF")
    with pytest.raises(InputError, match=r"z\.png cannot be read as an image"):
        load_dataset(folder)


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "dangling", "folder"])
def test_what_is_no_file_is_refused_at_once(folder, kind):
    path = folder / "cat" / "z.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": folder / "nothing"}[kind])
    with pytest.raises(InputError, match=r"z\.png is not a file"):
        load_dataset(folder)


def test_an_image_that_unpacks_to_too_much(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(InputError, match=r"cannot be read as an image: .*decompression bomb"):
        load_dataset(folder)
