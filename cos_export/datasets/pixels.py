"""What the numbers of an image mean: one rule for every array and tensor that a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.errors import InputError

__all__ = ["FRAME_AXES", "PixelArray", "is_raw", "pixel_values"]

PixelArray = NDArray[np.float32]

_MEANING = "uint8 are pixels 0..255, which are divided by 255; floats are taken as they are."
_FRAMES = (
    "Frames (samples, T, channels, height, width) of uint8 may be pixels or numbers of events: give frames / 255 or "
    "frames.astype(numpy.float32)."
)
FRAME_AXES = 5
"""Axes of frames of images, which no array of images has."""


def pixel_values(images: Any, what: str = "The images") -> PixelArray:
    """Images as float32 values.

        x = pixel / 255     of uint8
        x = pixel           of every float type, bfloat16 and float16 included
        x = events          of frames (samples, T, channels, height, width) of any other type of integers: they count

    All else is refused: what 200 means in an array of int64, only its owner knows.

    Args:
        images: An array or tensor, or nested lists of numbers, samples first.
        what: What the error calls them.

    Returns:
        A C-contiguous, writable array of the same shape. One of float32 may share the memory of `images`, so whatever
        writes into it, or hands it to code of the user's, takes a copy.

    Raises:
        InputError: They are of another type, or a value is not finite in float32; the message says of which sample.
    """
    plain = _from_tensor(images, what) if isinstance(images, Tensor) else _from_array(images, what)
    finite = np.isfinite(plain)
    if not finite.all():
        where = f", first in sample {int(np.argwhere(~finite)[0][0])}" if plain.ndim else ""
        raise InputError(f"{what} hold values that are not finite numbers in float32 (nan or inf){where}.")
    return plain


def is_raw(images: Any) -> bool:
    """Whether images of this type are pixels 0..255, which no normalisation can have been applied to."""
    return getattr(images, "dtype", None) in (torch.uint8, np.dtype(np.uint8))


def _from_tensor(tensor: Tensor, what: str) -> PixelArray:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        form = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else str(tensor.layout)
        raise InputError(f"{what} are a tensor of form {form}. Give a dense tensor: tensor.to_dense().")
    if tensor.ndim == FRAME_AXES and not tensor.is_floating_point() and not tensor.is_complex():
        return _events(tensor.detach().cpu().numpy(), what)
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise InputError(f"{what} must be uint8 or of a float type, and are {kind}: {_MEANING}")
    values = tensor.detach().to("cpu", torch.float32).resolve_neg().contiguous().numpy()
    return _of_bytes(values) if tensor.dtype == torch.uint8 else values


def _from_array(given: Any, what: str) -> PixelArray:
    if isinstance(given, np.ma.MaskedArray):
        raise InputError(f"{what} are a masked array, and the masked values have no meaning here. Fill them first.")
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what} are not one array of numbers: {error}. Stack images of one shape.") from error
    # bfloat16 and its like have kind V, and a name of their own.
    is_float = array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))
    if array.ndim == FRAME_AXES and array.dtype.kind in "biu":
        return _events(array, what)
    if array.dtype != np.uint8 and not is_float:
        hint = " bfloat16 lost its name in the file: store float32." if array.dtype.str in ("|V2", "|V1") else ""
        raise InputError(f"{what} must be uint8 or of a float type, and are {array.dtype}: {_MEANING}{hint}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    if array.dtype == np.uint8:
        return _of_bytes(values)
    # torch takes no memory that may not be written.
    return values if values.flags.writeable else values.copy()


def _events(frames: NDArray[Any], what: str) -> PixelArray:
    """Numbers of events as they are."""
    if frames.dtype == np.uint8:
        raise InputError(f"{what} are frames of uint8. {_FRAMES}")
    return np.ascontiguousarray(frames, np.float32)


def _of_bytes(values: PixelArray) -> PixelArray:
    values /= np.float32(255)
    return values
