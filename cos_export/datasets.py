"""Images with labels, from the package or from an `.npz` of the user's."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import InputError
from cos_export.network import FloatArray

__all__ = ["Dataset", "Split", "is_named", "load_dataset"]

Split = Literal["train", "test"]

_DIGITS = Path(__file__).parent / "zoo" / "data" / "digits.npz"


@dataclass(frozen=True)
class Dataset:
    """Labelled images, ready to be given to a network.

    Attributes:
        images: float32 (samples, channels, height, width).
        labels: int64 (samples,), class numbers from 0.
        name: What it is called in reports.
        normalisation: How the stored pixels became `images`, in words.
    """

    images: FloatArray
    labels: NDArray[np.int64]
    name: str
    normalisation: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max()) + 1

    def first(self, count: int | None) -> Dataset:
        """The first `count` samples, or all if it is None.

        Raises:
            InputError: `count` is below 1 or above the number of samples.
        """
        if count is None:
            return self
        if not 1 <= count <= len(self):
            raise InputError(f"{self.name} has {len(self)} samples: {count} cannot be taken.")
        return Dataset(self.images[:count], self.labels[:count], self.name, self.normalisation)

    def split_at(self, count: int) -> tuple[Dataset, Dataset]:
        """The first `count` samples, and the others.

        Raises:
            InputError: One of the two would be empty.
        """
        if not 1 <= count < len(self):
            raise InputError(f"{self.name} has {len(self)} samples and cannot be split after {count}.")
        rest = Dataset(self.images[count:], self.labels[count:], self.name, self.normalisation)
        return self.first(count), rest


def is_named(spec: str | Path) -> bool:
    """Whether `spec` is a data set that the package knows, with a training and a test part."""
    return str(spec) in _NAMED


def load_dataset(spec: str | Path, split: Split = "test") -> Dataset:
    """The data set called `spec`, or read from a file.

    Args:
        spec: `digits`, or the path of an `.npz` with `images` (samples, channels, height, width) and
            `labels` (samples,). Images of uint8 are divided by 255, and of a float type taken as they are.
        split: Which part of a named data set. A file is one part, and is returned whole.

    Raises:
        InputError: There is no such name or file, or the file does not hold what it should.
    """
    if split not in ("train", "test"):
        raise InputError(f"split must be 'train' or 'test', and is {split!r}.")
    if is_named(spec):
        return _NAMED[str(spec)](split)
    path = Path(spec)
    if path.is_dir():
        raise InputError(f"{path} is a folder. Image folders are not supported yet: give an .npz, or a name.")
    if not path.exists():
        raise InputError(
            f"{str(spec)!r} is neither a data set ({', '.join(_NAMED)}) nor an existing file. "
            "Give one of these names, or the path of an .npz with 'images' and 'labels'."
        )
    return _from_file(path)


def _digits(split: Split) -> Dataset:
    """1,297 training and 500 test samples of the handwritten digits, each in the order of the source.

    Sorted by class, sample i goes to the test part if 731 i mod 1797 < 500. 731 and 1797 have no common factor, so
    that is exactly 500 of them, spread evenly over the classes and their writers; and unlike a seeded generator it
    cannot change with a library.
    """
    with np.load(_DIGITS, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    in_test = np.empty(len(labels), np.bool_)
    in_test[np.argsort(labels, kind="stable")] = (731 * np.arange(len(labels))) % len(labels) < 500
    chosen = in_test if split == "test" else ~in_test
    return Dataset(
        images=images[chosen].astype(np.float32) / np.float32(16),
        labels=labels[chosen].astype(np.int64),
        name=f"digits ({split})",
        normalisation="pixels 0..16 divided by 16",
    )


_NAMED: dict[str, Callable[[Split], Dataset]] = {"digits": _digits}


def _from_file(path: Path) -> Dataset:
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
        scaled, how = images.astype(np.float32) / np.float32(255), "pixels 0..255 divided by 255"
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
