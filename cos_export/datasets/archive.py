"""Images, signals or features from an `.npz` of the user's, with their labels if it has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.labels import class_numbers
from cos_export.datasets.pixels import FRAME_AXES
from cos_export.datasets.stored import StoredImages, bytes_or_values, fits_in_memory
from cos_export.errors import InputError
from cos_export.reading.npz import NpzReader, open_npz

__all__ = ["read_archive"]

FRAMES = "frames"
_NAMES = ("images", "signals", "features", FRAMES)
"""What the samples may be called; all but the last whatever their shape."""

_MAX_CLASSES = 2**24
"""No readout is as wide."""


def read_archive(path: Path) -> Dataset:
    """The data set in an `.npz` with `images`, `signals` or `features`, and `labels` (samples,) if they are known.

    The three names mean the same: (samples, channels, height, width), (samples, channels, length) or
    (samples, features). `frames` (samples, T, channels, height, width) hold one input for each step; integers of any
    type are numbers of events there, taken as they are.

    Raises:
        InputError: The file does not hold what it should.
    """
    with open_npz(path) as archive:
        given = [name for name in _NAMES if name in archive.names]
        if len(given) != 1:
            held = ", ".join(repr(name[:80]) for name in archive.names[:20]) or "nothing"
            raise InputError(
                f"{path} must have one of {', '.join(map(repr, _NAMES))}, and holds {held}. "
                "Save it with numpy.savez(path, images=..., labels=...)."
            )
        name, labelled = given[0], "labels" in archive.names
        header = archive.header(name)
        shape = header.shape
        _check_shapes(path, name, shape, archive.header("labels").shape if labelled else shape[:1])
        labels = archive.read("labels") if labelled else None
        stored = _stored(path, archive, name)
        images = archive.read(name) if stored is None else stored
    numbers = None if labels is None else class_numbers(labels, len(images), _MAX_CLASSES, f"'labels' in {path}")
    kind = header.dtype.kind
    if name == FRAMES and kind in "biu":
        events = images if isinstance(images, StoredImages) else images.astype(np.float32)
        return Dataset(events, numbers, path.name, "numbers of events as stored")
    pixels = header.dtype == np.uint8
    how = "pixels 0..255 divided by 255" if pixels else "taken as stored"
    if not isinstance(images, StoredImages):
        images = bytes_or_values(images, f"{name!r} in {path}")
    return Dataset(images, numbers, path.name, how, pixels=pixels)


def _stored(path: Path, archive: NpzReader, name: str) -> StoredImages | None:
    """The array called `name` as images that are read when they are needed, or None if it fits in memory.

    All of it is read once, whose checksum is compared, and unpacked into a temporary file if it is compressed.

    Raises:
        InputError: It is damaged, in Fortran's order, or of a type that has no meaning.
    """
    header, what = archive.header(name), f"{name!r} in {path}"
    if fits_in_memory(header.shape):
        return None
    if header.fortran_order:
        raise InputError(f"{what} is in Fortran's order, of which single samples cannot be read: save it in C order.")
    events = name == FRAMES and header.dtype.kind in "biu"
    images = StoredImages(archive.stored(name, np.dtype(np.float32) if events else None), what)
    images[:1]  # What has no meaning is refused at once.
    return images


def _check_shapes(path: Path, name: str, images: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if name == FRAMES and len(images) != FRAME_AXES:
        raise InputError(
            f"{name!r} in {path} must be (samples, T, channels, height, width), and has shape {images}. Frames of one "
            "channel have it as an axis: frames[:, :, None]."
        )
    if name != FRAMES and len(images) not in (2, 3, 4):
        raise InputError(
            f"{name!r} in {path} must be (samples, channels, height, width), (samples, channels, length) or "
            f"(samples, features), and has shape {images}."
        )
    if len(labels) != 1:
        raise InputError(f"'labels' in {path} must be (samples,), and has shape {labels}.")
    if images[0] != labels[0]:
        raise InputError(f"{path} has {images[0]} {name} and {labels[0]} labels.")
    if 0 in images:
        raise InputError(f"{path} has no samples.")
