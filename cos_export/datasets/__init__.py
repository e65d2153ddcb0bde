"""Images with labels: by name, from an `.npz`, from a folder of images by class, or from a torch Dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from cos_export.datasets.archive import read_archive
from cos_export.datasets.dataset import Dataset
from cos_export.datasets.digits import read_digits
from cos_export.datasets.folder import read_folder
from cos_export.datasets.from_torch import from_torch
from cos_export.datasets.intake import Images, image_array, labelled
from cos_export.datasets.labels import class_numbers
from cos_export.datasets.normalisation import Normalisation, agree
from cos_export.errors import InputError

__all__ = [
    "Dataset",
    "Images",
    "Normalisation",
    "Split",
    "agree",
    "class_numbers",
    "from_torch",
    "image_array",
    "is_named",
    "labelled",
    "load_dataset",
]

Split = Literal["train", "test"]

_NAMED: dict[str, Callable[[Split], Dataset]] = {"digits": read_digits}


def is_named(spec: str | Path) -> bool:
    """Whether `spec` is a data set that the package knows, with a training and a test part."""
    return str(spec) in _NAMED


def load_dataset(
    spec: str | Path,
    split: Split = "test",
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
) -> Dataset:
    """The data set called `spec`, or read from a file or folder.

        image = (pixel - mean) / std        per channel, where either is given

    Args:
        spec: `digits`; the path of an `.npz` with `images` (samples, channels, height, width) and `labels`
            (samples,); or a folder with one folder of .png and .jpg images for each class. Images of uint8 and image
            files are divided by 255, and arrays of a float type taken as they are.
        split: Which part of a named data set. A file or folder is one part, and is returned whole.
        mean: Of each channel, or one for all, on the scale that the line above leaves; 0 by default.
        std: Likewise; 1 by default.
        size: (height, width) that the images of a folder are resized to. Without it all must have one size.

    Raises:
        InputError: There is no such name or file, it does not hold what it should, or an option does not suit it.
        UnavailableError: The library that reads image files is not installed.
    """
    if split not in ("train", "test"):
        raise InputError(f"split must be 'train' or 'test', and is {split!r}.")
    path = Path(spec)
    if size is not None and (is_named(spec) or not path.is_dir()):
        raise InputError(f"Only folders of images are resized, and {str(spec)!r} is not one.")
    if is_named(spec):
        read = _NAMED[str(spec)](split)
    elif path.is_dir():
        read = read_folder(path, size)
    elif path.exists():
        read = read_archive(path)
    else:
        raise InputError(
            f"{str(spec)!r} is neither a data set ({', '.join(_NAMED)}) nor an existing file or folder. "
            "Give one of these names, the path of an .npz with 'images' and 'labels', or a folder of images by class."
        )
    return read.normalised(Normalisation.of(mean, std))
