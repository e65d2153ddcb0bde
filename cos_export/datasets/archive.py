"""Labelled images from an `.npz` of the user's."""

from __future__ import annotations

from pathlib import Path

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.labels import class_numbers
from cos_export.datasets.pixels import is_raw, pixel_values
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
    numbers = class_numbers(labels, len(images), _MAX_CLASSES, f"'labels' in {path}")
    how = "pixels 0..255 divided by 255" if is_raw(images) else "taken as stored"
    return Dataset(pixel_values(images, f"'images' in {path}"), numbers, path.name, how)


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
