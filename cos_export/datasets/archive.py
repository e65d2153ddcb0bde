"""Labelled images from an `.npz` of the user's."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets.dataset import Dataset
from cos_export.errors import InputError

__all__ = ["read_archive"]


def read_archive(path: Path) -> Dataset:
    """The data set in an `.npz` with `images` (samples, channels, height, width) and `labels` (samples,).

    Raises:
        InputError: The file does not hold what it should.
    """
    arrays = _arrays(path)
    missing = [key for key in ("images", "labels") if key not in arrays]
    if missing:
        held = ", ".join(map(repr, arrays)) or "nothing"
        raise InputError(
            f"{path} has no {' and no '.join(map(repr, missing))}; it holds {held}. "
            "Save it with numpy.savez(path, images=..., labels=...)."
        )
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim != 4:
        raise InputError(
            f"'images' in {path} must be (samples, channels, height, width), and has shape {images.shape}. "
            "Grey images have one channel: images[:, None]."
        )
    if labels.ndim != 1:
        raise InputError(f"'labels' in {path} must be (samples,), and has shape {labels.shape}.")
    if len(images) != len(labels):
        raise InputError(f"{path} has {len(images)} images and {len(labels)} labels.")
    if len(images) == 0:
        raise InputError(f"{path} has no samples.")
    if labels.dtype.kind not in "iu" or int(labels.min()) < 0:
        raise InputError(f"'labels' in {path} must be class numbers from 0, and is of type {labels.dtype}.")
    if images.dtype == np.uint8:
        scaled, how = images.astype(np.float32), "pixels 0..255 divided by 255"
        scaled /= np.float32(255)
    elif images.dtype.kind == "f":
        scaled, how = images.astype(np.float32), "taken as stored"
    else:
        raise InputError(f"'images' in {path} must be uint8 or of a float type, and is {images.dtype}.")
    if not np.isfinite(scaled).all():
        raise InputError(f"'images' in {path} holds values that are not finite numbers (nan or inf).")
    return Dataset(scaled, labels.astype(np.int64), path.name, how)


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of an archive; nothing in it is ever unpickled."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array. Save both with numpy.savez(path, images=..., labels=...).")
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not an .npz archive: {error}") from error
    found: dict[str, NDArray[np.generic]] = {}
    with archive:
        for key in archive.files:
            try:
                found[key] = archive[key]
            except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
                if key in ("images", "labels"):
                    raise InputError(
                        f"{key!r} in {path} cannot be read: {error} An array of Python objects is refused; "
                        "store numbers."
                    ) from error
    return found
