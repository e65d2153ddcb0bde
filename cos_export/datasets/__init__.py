"""Images, signals and features: by name, from an `.npz`, a folder of images by class, or a torch Dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets.archive import read_archive
from cos_export.datasets.dataset import Dataset
from cos_export.datasets.digits import read_digits
from cos_export.datasets.folder import read_folder
from cos_export.datasets.from_torch import from_torch
from cos_export.datasets.intake import Images, image_array, labelled
from cos_export.datasets.labels import check_class_names, class_numbers
from cos_export.datasets.normalisation import Normalisation, agree
from cos_export.datasets.stored import ImageArray, StoredImages, in_memory, kept_in_memory, mean_over_frames, some_of
from cos_export.errors import InputError
from cos_export.user_code import user_code
from cos_export.user_factory import from_factory

__all__ = [
    "Dataset",
    "ImageArray",
    "Images",
    "Normalisation",
    "Split",
    "StoredImages",
    "agree",
    "check_class_names",
    "class_numbers",
    "folder_sizes",
    "from_torch",
    "image_array",
    "in_memory",
    "is_named",
    "kept_in_memory",
    "labelled",
    "load_dataset",
    "mean_over_frames",
    "some_of",
]

Split = Literal["train", "test"]

_NAMED: dict[str, Callable[[Split], Dataset]] = {"digits": read_digits}


def is_named(spec: str | Path) -> bool:
    """Whether `spec` is a data set that the package knows, with a training and a test part."""
    return str(spec) in _NAMED


def folder_sizes(size: tuple[int, int] | None, *specs: str | Path | None) -> list[tuple[int, int] | None]:
    """The size for each of several data sets that are named together: that of those which are folders, else None.

    Raises:
        InputError: A size is given, and none of them is a folder.
    """
    folders = [spec is not None and not is_named(spec) and Path(spec).is_dir() for spec in specs]
    if size is not None and not any(folders):
        shown = " and ".join(repr(str(spec)) for spec in specs if spec is not None)
        raise InputError(f"Only folders of images are resized, and {shown} is not one.")
    return [size if folder else None for folder in folders]


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
        spec: `digits`; the path of an `.npz` with `images`, `signals` or `features`, which are (samples, channels,
            height, width), (samples, channels, length) or (samples, features), or with `frames` (samples, T, channels,
            height, width), whose integers are numbers of events, and `labels` (samples,) if they are known; a folder
            with one folder of .png and .jpg images for each class; or package.module:factory, a function that returns
            a torch Dataset or DataLoader. Images of uint8 and image files are divided by 255, and arrays of a float
            type taken as they are.
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
    folder_sizes(size, spec)
    if is_named(spec):
        read = _NAMED[str(spec)](split)
    elif path.is_dir():
        read = read_folder(path, size)
    elif path.exists():
        read = read_archive(path)
    elif ":" in str(spec):
        read = _from_users(str(spec))
    else:
        raise InputError(
            f"{str(spec)!r} is neither a data set ({', '.join(_NAMED)}) nor an existing file or folder. "
            "Give one of these names, the path of an .npz with 'images' and 'labels', a folder of images by class, or "
            "a function that returns a torch Dataset, as package.module:factory."
        )
    return read.normalised(Normalisation.of(mean, std))


def _from_users(spec: str) -> Dataset:
    """What a user's function returns, read to its end."""
    given = from_factory(spec, "data set", "make_data")
    if isinstance(given, Dataset):
        return given
    if not isinstance(given, TorchDataset | DataLoader):
        raise InputError(
            f"{spec!r} returned a {type(given).__name__}, and should return a torch Dataset or DataLoader."
        )
    with user_code(f"The data set of {spec!r} fails"):
        return from_torch(given, spec)
