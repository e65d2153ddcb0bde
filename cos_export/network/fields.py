"""What the fields of a NIR node must hold before anything is computed from them.

NIR's constructors take whatever they are given. A weight that is not a number, a stride of 0 or a bias of the wrong
length would otherwise show up as a traceback deep in PyTorch, or not at all.
"""

from __future__ import annotations

from functools import lru_cache, singledispatch
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError

__all__ = ["LARGEST_WIRE", "check_fields", "check_size", "numbers", "spelled_padding", "whole_number", "whole_numbers"]

LARGEST_WIRE = 2**26
"""Numbers that one node may send for one sample: 20 times what the largest layer of VGG-16 sends for ImageNet."""

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_LARGEST_WHOLE = 2**31 - 1


def numbers(field: str, value: Any) -> NDArray[Any]:
    """`value` as an array of finite numbers that float32 can hold.

    Raises:
        NetworkError: It is of another type, has no elements, or holds nan, inf or a number beyond float32.
    """
    array = _array(field, value)
    if array.dtype.kind not in "biuf":
        raise NetworkError(f"{field} is of type {array.dtype}; it must be an array of numbers.")
    if array.size == 0:
        raise NetworkError(f"{field} has shape {array.shape}: it has no elements.")
    # The extremes carry nan along, and take no memory.
    low, high = float(array.min()), float(array.max())
    if not (-_LARGEST_FLOAT32 <= low <= high <= _LARGEST_FLOAT32):
        at = np.argmax(~(np.abs(array.astype(np.float64)) <= _LARGEST_FLOAT32))
        index = tuple(int(i) for i in np.unravel_index(int(at), array.shape))
        raise NetworkError(
            f"{field} holds {array[index]} at {index}; every number of it must be finite, also in float32."
        )
    return array


def whole_numbers(field: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """`count` whole numbers of at least `least`, of which one may stand for all.

    Raises:
        NetworkError: They are of another type, as many as neither 1 nor `count`, fractions, or out of range.
    """
    array = _array(field, value)
    if array.dtype.kind not in "iuf" or array.ndim > 1 or array.size not in (1, count):
        words = "a whole number" if count == 1 else f"{count} whole numbers, or one for all"
        raise NetworkError(f"{field} must be {words}, and is {_shown(value)}.")
    numbers = _whole(array.dtype.str, array.tobytes(), least)
    if numbers is None:
        raise NetworkError(f"{field} must be whole and at least {least}, and is {_shown(value)}.")
    return numbers if len(numbers) == count else numbers * count


@lru_cache(maxsize=4096)
def _whole(kind: str, held: bytes, least: int) -> tuple[int, ...] | None:
    """The numbers of an array, or None if one is not whole or out of range.

    Kept, for a network is asked for the geometry of its nodes, which are much alike, thousands of times.
    """
    numbers = np.frombuffer(held, kind).tolist()
    # A comparison with nan is false.
    if not all(least <= number <= _LARGEST_WHOLE and number == int(number) for number in numbers):
        return None
    return tuple(int(number) for number in numbers)


def whole_number(field: str, value: Any, least: int) -> int:
    """`value` as one whole number of at least `least`; an array of one is not a number.

    Raises:
        NetworkError: It is not.
    """
    if np.ndim(_array(field, value)) != 0:
        raise NetworkError(f"{field} must be a whole number, and is {_shown(value)}.")
    return whole_numbers(field, value, 1, least)[0]


def check_size(shape: tuple[int, ...]) -> None:
    """Refuses a shape that no memory is meant to hold.

    Raises:
        NetworkError: Its numbers are more than `LARGEST_WIRE`.
    """
    count = 1
    for size in shape:
        count *= size
    if count > LARGEST_WIRE:
        raise NetworkError(
            f"it would send {count:,} numbers of shape {shape} for a sample; {LARGEST_WIRE:,} can be run."
        )


def spelled_padding(value: Any) -> str | None:
    """The word that a convolution's padding is spelled with, or None if it is numbers.

    Raises:
        NetworkError: The word is neither "same" nor "valid".
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU" and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value not in ("same", "valid"):
        raise NetworkError(f'padding must be "same", "valid" or numbers, and is {value!r}.')
    return value if isinstance(value, str) else None


@singledispatch
def check_fields(node: nir.NIRNode) -> None:
    """Checks every field of a node that has a value of its own: types, ranks, sizes and finite numbers.

    Sizes that follow from what arrives at the node are the matter of `output_shape`.

    Raises:
        NetworkError: A field cannot be used; the message names it. The caller knows the node.
    """


@check_fields.register(nir.Conv1d)
@check_fields.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d) -> None:
    weight, axes = numbers("weight", node.weight), 1 if isinstance(node, nir.Conv1d) else 2
    if weight.ndim != axes + 2:
        raise NetworkError(
            f"its weight must be (out, in, {', '.join(['kernel'] * axes)}), and has shape {weight.shape}."
        )
    groups = whole_number("groups", node.groups, 1)
    if weight.shape[0] % groups:
        raise NetworkError(f"groups is {groups}, which does not divide its {weight.shape[0]} output channels.")
    whole_numbers("stride", node.stride, axes, 1)
    whole_numbers("dilation", node.dilation, axes, 1)
    if spelled_padding(node.padding) is None:
        whole_numbers("padding", node.padding, axes, 0)
    _check_bias(node.bias, weight.shape[0])


@check_fields.register(nir.Affine)
@check_fields.register(nir.Linear)
def _(node: nir.Affine | nir.Linear) -> None:
    weight = numbers("weight", node.weight)
    if weight.ndim != 2:
        raise NetworkError(f"its weight must be (out, in), and has shape {weight.shape}.")
    if isinstance(node, nir.Affine):
        _check_bias(node.bias, weight.shape[0])


def _check_bias(value: Any, count: int) -> None:
    bias = numbers("bias", value)
    if bias.shape != (count,):
        raise NetworkError(f"bias must be ({count},), one number for each output, and has shape {bias.shape}.")


@check_fields.register
def _(node: nir.Scale) -> None:
    numbers("scale", node.scale)


@check_fields.register
def _(node: nir.IF) -> None:
    for field in ("r", "v_threshold", "v_reset"):
        numbers(field, getattr(node, field))


@check_fields.register(nir.SumPool2d)
@check_fields.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d) -> None:
    kernel = whole_numbers("kernel_size", node.kernel_size, 2, 1)
    whole_numbers("stride", node.stride, 2, 1)
    padding = whole_numbers("padding", node.padding, 2, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise NetworkError(
            f"padding {padding} is more than half of the window {kernel}: some windows would hold nothing but padding."
        )


@check_fields.register
def _(node: nir.Flatten) -> None:
    for field in ("start_dim", "end_dim"):
        whole_number(field, getattr(node, field), -_LARGEST_WHOLE)


@check_fields.register(nir.Input)
@check_fields.register(nir.Output)
def _(node: nir.Input | nir.Output) -> None:
    key = "input" if isinstance(node, nir.Input) else "output"
    declared = getattr(node, f"{key}_type")
    value = declared.get(key) if isinstance(declared, dict) else None
    if value is None and isinstance(node, nir.Output):
        return
    shape = _array("shape", value)
    if value is None or shape.ndim > 1 or shape.size == 0:
        raise NetworkError(f"its shape must be a list of whole numbers, and is {_shown(value)}.")
    check_size(whole_numbers("shape", value, shape.size, 1))


def _array(field: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise NetworkError(f"{field} is a masked array, which a network has no meaning for: fill it first.")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise NetworkError(f"{field} is not an array of numbers: {error}.") from error


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
