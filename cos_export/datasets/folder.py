"""Labelled images from a folder that has a folder of image files for each class."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets.dataset import Dataset
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
    """The images in `folder/class_name/*.png` (or .jpg, .jpeg), in [0, 1].

    Classes are numbered in the order of their sorted names. Samples take turns: the first of each class, by sorted
    file name, then the second of each, so that the first so many samples hold all classes. Where every file is grey,
    images have one channel, else three; transparency is dropped.

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
    turns = sorted((turn, label) for label, files_of_class in enumerate(files) for turn in range(len(files_of_class)))
    paths = [files[label][turn] for turn, label in turns]
    grey = all(_is_grey(path) for path in paths)
    first = _pixels(paths[0], grey, size)
    images = np.empty((len(paths), *first.shape), np.float32)
    for i, path in enumerate(paths):
        pixels = _pixels(path, grey, size)
        if pixels.shape != first.shape:
            raise InputError(
                f"{path} is {_words(pixels)}, and {paths[0]} is {_words(first)}. Give a size for all (--size)."
            )
        images[i] = pixels
    images /= np.float32(255)
    resized = "" if size is None else f"resized to {size[0]} x {size[1]}, "
    labels = np.array([label for _, label in turns], np.int64)
    how = f"{resized}pixels 0..255 divided by 255"
    return Dataset(images, labels, folder.name, how, tuple(entry.name for entry in classes))


def _images_in(folder: Path) -> list[Path]:
    files_of_class = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
    for path in files_of_class:
        if not path.is_file():
            raise InputError(f"{path} is not a file (a folder, a pipe, a device, or a link to nothing). Remove it.")
    return files_of_class


def _open(path: Path) -> Image.Image:
    """The image, whose pixels are read only when they are asked for."""
    from PIL import Image, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(path, formats=_FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGE) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    if image.mode not in (*_GREY, *_COLOUR):
        image.close()
        raise InputError(f"{path} has pixels of mode {image.mode}. Convert it to 8 bits per channel.")
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


def _words(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[2]}"
