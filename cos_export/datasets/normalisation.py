"""The shift and scale of each channel that a network was trained with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cos_export.datasets.pixels import PixelArray
from cos_export.errors import InputError

__all__ = ["Normalisation", "agree"]


@dataclass(frozen=True)
class Normalisation:
    """What turns pixel values into what a network takes, channel by channel, in float32.

        input = (x - mean) / std

    where x are the pixels divided by 255, or the floats of a file. Each number is kept as the shortest decimal that
    gives its float32 value, so that 0.3 is 0.3 in Python, in the manifest and in every file.

    Attributes:
        mean: One number for all channels, or one for each.
        std: Likewise; above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if not all(value > 0 for value in self.std):
            raise InputError(f"std must be positive, and is {_words(self.std)}.")
        if len({1, len(self.mean), len(self.std)}) > 2:
            raise InputError(f"mean has {len(self.mean)} values and std {len(self.std)}: give one for each channel.")

    @classmethod
    def of(
        cls, mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None
    ) -> Normalisation | None:
        """The normalisation with this mean (by default 0) and std (by default 1), or None if neither is given.

        Raises:
            InputError: A number is not finite, or one of `std` is not positive.
        """
        if mean is None and std is None:
            return None
        return cls(_numbers("mean", 0.0 if mean is None else mean), _numbers("std", 1.0 if std is None else std))

    @classmethod
    def in_words(cls, text: str) -> Normalisation | None:
        """What `words` has written at the end of `text`, or None if nothing of the kind stands there."""
        match = re.search(r", less ([^,]+), divided by ([^,]+)$", text)
        return None if match is None else cls(*(tuple(map(float, part.split(" / "))) for part in match.groups()))

    def apply(self, images: PixelArray, what: str = "The images") -> PixelArray:
        """(images - mean) / std, of images (samples, channels, ...), as a new array.

        Raises:
            InputError: There are not as many numbers as channels.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if images.ndim < 2 or len(values) not in (1, images.shape[1]):
                raise InputError(
                    f"{name} has {len(values)} values, and {what} have shape (samples, channels, ...) = "
                    f"{images.shape}. Give one value, or one for each channel."
                )
        column = (-1, *[1] * (images.ndim - 2))
        shift, scale = (np.array(values, np.float32).reshape(column) for values in (self.mean, self.std))
        return (images - shift) / scale

    def check_for_pixels(self, what: str) -> None:
        """Refuses a mean that no channel of pixels divided by 255 can have.

        Args:
            what: What the error calls the images.

        Raises:
            InputError: It is not from 0 to 1.
        """
        beyond = next((value for value in self.mean if not 0 <= value <= 1), None)
        if beyond is not None:
            hint = " Divide mean and std by 255, too." if 0 <= beyond <= 255 else ""
            raise InputError(
                f"mean has the value {beyond:g}, and the pixels of {what} are divided by 255 first, so that they lie "
                f"between 0 and 1.{hint}"
            )

    def words(self) -> str:
        """For people."""
        return f"less {_words(self.mean)}, divided by {_words(self.std)}"

    def to_dict(self) -> dict[str, list[float]]:
        """Plain JSON values."""
        return {"mean": list(self.mean), "std": list(self.std)}


def agree(one: Normalisation | None, other: Normalisation | None) -> bool:
    """Whether both do the same; None does nothing, and one number stands for all channels."""
    a, b = (given or Normalisation((0.0,), (1.0,)) for given in (one, other))
    return _equal(a.mean, b.mean) and _equal(a.std, b.std)


def _equal(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len({1, len(one), len(other)}) <= 2 and bool((np.array(one) == np.array(other)).all())


def _numbers(name: str, given: float | Sequence[float]) -> tuple[float, ...]:
    try:
        with np.errstate(over="ignore"):
            values = np.atleast_1d(np.asarray(given, np.float32))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number, or one for each channel, and is {given!r}.") from error
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{name} has {values.size} values of shape {values.shape}. Give one, or one for each channel.")
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite in float32, and is {_words(values)}.")
    return tuple(float(str(value)) for value in values)


def _words(values: Sequence[float] | PixelArray) -> str:
    # The shortest decimals that give these float32 values.
    return " / ".join(np.format_float_positional(np.float32(value), trim="-") for value in values)
