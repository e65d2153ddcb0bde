"""Labelled images from an `.npz` of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cos_export.datasets.dataset import Dataset
from cos_export.errors import InputError
from cos_export.reading.npz import open_npz

__all__ = ["read_archive"]

_MAX_CLASSES = 2**24
"""No readout is as wide."""


def read_archive(path: Path) -> Dataset:
    """The data set in an `.npz` with `images` (samples, channels, height, width) and `labels` (samples,).

    Raises:
        InputError: The file does not hold what it should.
    """
    with open_npz(path) as archive:
        missing = [key for key in ("images", "labels") if key not in archive.names]
        if missing:
            held = ", ".join(repr(name[:80]) for name in archive.names[:20]) or "nothing"
            raise InputError(
                f"{path} has no {' and no '.join(map(repr, missing))}; it holds {held}. "
                "Save it with numpy.savez(path, images=..., labels=...)."
            )
        _check_shapes(path, archive.header("images").shape, archive.header("labels").shape)
        images, labels = archive.read("images"), archive.read("labels")
    if labels.dtype.kind not in "iu":
        raise InputError(f"'labels' in {path} must be class numbers from 0, and is of type {labels.dtype}.")
    least, largest = int(labels.min()), int(labels.max())
    if least < 0 or largest >= _MAX_CLASSES:
        raise InputError(
            f"'labels' in {path} must be class numbers from 0 to {_MAX_CLASSES - 1:,}, and are {least} to {largest}."
        )
    if images.dtype == np.uint8:
        scaled, how = images.astype(np.float32), "pixels 0..255 divided by 255"
        scaled /= np.float32(255)
    elif images.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 does not hold becomes inf, which is refused below
            scaled, how = images.astype(np.float32, copy=False), "taken as stored"
    else:
        raise InputError(f"'images' in {path} must be uint8 or of a float type, and is {images.dtype}.")
    if not np.isfinite(scaled).all():
        raise InputError(f"'images' in {path} holds values that are not finite numbers (nan or inf).")
    return Dataset(scaled, labels.astype(np.int64), path.name, how)


def _check_shapes(path: Path, images: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if len(images) != 4:
        raise InputError(
            f"'images' in {path} must be (samples, channels, height, width), and has shape {images}. "
            "Grey images have one channel: images[:, None]."
        )
    if len(labels) != 1:
        raise InputError(f"'labels' in {path} must be (samples,), and has shape {labels}.")
    if images[0] != labels[0]:
        raise InputError(f"{path} has {images[0]} images and {labels[0]} labels.")
    if 0 in images:
        raise InputError(f"{path} has no samples.")
