"""Labelled images from a folder that has a folder of image files for each class."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.stored import StoredImages, bytes_or_values, fits_in_memory
from cos_export.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["read_folder"]

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)
"""What Pillow raises for a damaged file."""

_SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
"""By their content, whatever the file is called: others (EPS) would start programs of this machine."""
_GREY, _COLOUR = ("1", "L"), ("P", "RGB", "RGBA", "LA", "CMYK", "YCbCr")


def read_folder(folder: Path, size: tuple[int, int] | None = None) -> Dataset:
    """The images in `folder/class_name/*.png` (or .jpg, .jpeg), in [0, 1]; more than 1 GiB are read when needed.

    Classes are numbered in the order of their sorted names. Samples take turns: the first of each class, by sorted
    file name, then the second of each, so that the first so many samples hold all classes. Where every file is grey,
    images have one channel, else three; transparency is dropped, and pixels are taken as they lie in the file, whatever
    orientation its EXIF data ask viewers for: as torchvision's ImageFolder does.

    Args:
        folder: The folder of class folders. Files in it, hidden ones and files of other types are passed over.
        size: (height, width) to resize to, bilinearly. Without it all images must have one size.

    Raises:
        InputError: There are no images, a class has none, one cannot be read, or their sizes differ.
        UnavailableError: Pillow is not installed.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            "Image files are read with Pillow, which is not installed: pip install 'cos-export[images]'."
        ) from error
    if size is not None and min(size) < 1:
        raise InputError(f"Images cannot be resized to {size[0]} x {size[1]}.")
    try:
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        files = [_images_in(entry) for entry in classes]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    if not classes or not any(files):
        raise InputError(
            f"{folder} has no images. It must have a folder for each class, with .png or .jpg files in it: "
            f"{folder.name}/class_name/image.png."
        )
    empty = [entry.name for entry, files_of_class in zip(classes, files, strict=True) if not files_of_class]
    if empty:
        raise InputError(
            f"{folder} has no images of the classes {', '.join(empty)}. Fill these folders or remove them."
        )
    counts = [len(files_of_class) for files_of_class in files]
    labels = np.repeat(np.arange(len(classes)), counts)
    turns = np.concatenate([np.arange(count) for count in counts])
    order = np.lexsort((labels, turns))
    labels = labels[order]
    reader = _FolderReader(classes, files, labels, turns[order], size)
    what = f"The images of {folder.name}"
    fits = fits_in_memory(reader.shape)
    images = bytes_or_values(reader.read(range(len(labels))), what) if fits else StoredImages(reader, what)
    resized = "" if size is None else f"resized to {size[0]} x {size[1]}, "
    how = f"{resized}pixels 0..255 divided by 255"
    return Dataset(images, labels, folder.name, how, tuple(entry.name for entry in classes), pixels=True)


class _FolderReader:
    """Decodes the images of a folder by their number, of which nothing but names is held.

    Args:
        classes: The folders.
        files: By class, the names of its files.
        labels: The class of each image.
        turns: The number of each image among the files of its class.
        size: (height, width) to resize to.
    """

    def __init__(
        self,
        classes: Sequence[Path],
        files: Sequence[Sequence[str]],
        labels: NDArray[np.int64],
        turns: NDArray[np.int64],
        size: tuple[int, int] | None,
    ) -> None:
        self._classes, self._files, self._labels, self._turns, self._size = classes, files, labels, turns, size
        self._grey = all(_is_grey(self._path(i)) for i in range(len(labels)))
        self._first = _pixels(self._path(0), self._grey, size).shape
        self.shape = (len(labels), *self._first)

    @property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and dates of all files."""
        digest = hashlib.blake2b(repr((self.shape, self._size)).encode(), digest_size=16)
        for i in range(len(self._labels)):
            status = self._path(i).stat()
            digest.update(f"{self._path(i).name}/{status.st_size}/{status.st_mtime_ns}/".encode())
        return digest.hexdigest()

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """The pixels of some images, uint8 (samples, channels, height, width)."""
        images = np.empty((len(numbers), *self._first), np.uint8)
        for image, number in zip(images, numbers, strict=True):
            pixels = _pixels(self._path(number), self._grey, self._size)
            if pixels.shape != self._first:
                raise InputError(
                    f"{self._path(number)} is {_words(pixels.shape)}, and {self._path(0)} is {_words(self._first)}. "
                    "Give a size for all (--size)."
                )
            image[:] = pixels
        return images

    def _path(self, number: int) -> Path:
        label, turn = int(self._labels[number]), int(self._turns[number])
        return self._classes[label] / self._files[label][turn]


def _images_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        shown = [e for e in entries if e.name.lower().endswith(_SUFFIXES) and not e.name.startswith(".")]
    for entry in sorted(shown, key=lambda entry: entry.name):
        if not Path(entry.path).is_file():
            raise InputError(
                f"{entry.path} is not a file (a folder, a pipe, a device, or a link to nothing). Remove it."
            )
    return sorted(entry.name for entry in shown)


def _open(path: Path) -> Image.Image:
    """The image, whose pixels are read only when they are asked for."""
    from PIL import Image, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(path, formats=_FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGE) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    # Colours of 16 bits have no mode of their own: Pillow takes the upper half of each, and tells by how it decodes.
    deep = next((str(part[3]) for part in getattr(image, "tile", ()) if ";16" in str(part[3])), None)
    if image.mode not in (*_GREY, *_COLOUR) or deep is not None:
        image.close()
        raise InputError(f"{path} has pixels of mode {deep or image.mode}. Convert it to 8 bits per channel.")
    return image


def _is_grey(path: Path) -> bool:
    with _open(path) as image:
        return image.mode in _GREY


def _pixels(path: Path, grey: bool, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """uint8 (channels, height, width)."""
    from PIL import Image

    try:
        with _open(path) as image:
            converted = image.convert("L" if grey else "RGB")
            if size is not None:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(converted, np.uint8)
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    return pixels[None] if grey else np.moveaxis(pixels, -1, 0)


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]}"
