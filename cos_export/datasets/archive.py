"""Images, signals or features from an `.npz` of the user's, with their labels if it has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.labels import class_numbers
from cos_export.datasets.pixels import FRAME_AXES, is_raw, pixel_values
from cos_export.errors import InputError
from cos_export.reading.npz import open_npz

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
        shape = archive.header(name).shape
        _check_shapes(path, name, shape, archive.header("labels").shape if labelled else shape[:1])
        images, labels = archive.read(name), archive.read("labels") if labelled else None
    numbers = None if labels is None else class_numbers(labels, len(images), _MAX_CLASSES, f"'labels' in {path}")
    if name == FRAMES and images.dtype.kind in "biu":
        return Dataset(images.astype(np.float32), numbers, path.name, "numbers of events as stored")
    how = "pixels 0..255 divided by 255" if is_raw(images) else "taken as stored"
    return Dataset(pixel_values(images, f"{name!r} in {path}"), numbers, path.name, how)


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
