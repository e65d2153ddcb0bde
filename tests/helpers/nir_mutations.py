"""Damaged NIR files: bytes of a file changed at random, and its fields one by one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

__all__ = ["mutated_bytes", "mutated_fields", "mutations"]


def mutations(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` damaged copies of a NIR file, each with what was done to it: half by bytes, half by fields."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield mutated_bytes(content, rng) if number % 2 else mutated_fields(content, rng)


def mutated_bytes(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Bytes flipped, cut off, zeroed, doubled, or made the largest."""
    data, at = bytearray(content), int(rng.integers(len(content)))
    kind = ["flip", "flips", "cut", "zeros", "ones", "copy", "swap"][int(rng.integers(7))]
    length = int(rng.integers(1, 256))
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "flips":
        for place in rng.integers(len(data), size=8):
            data[place] = int(rng.integers(256))
    elif kind == "cut":
        del data[at:]
    elif kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "ones":
        data[at : at + 8] = b"\xff" * len(data[at : at + 8])
    elif kind == "copy":
        data[at:at] = data[at : at + length]
    else:
        other = int(rng.integers(len(content)))
        data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
    return f"{kind} at {at}", bytes(data)


_VALUES: tuple[Callable[[Any], Any], ...] = (
    lambda old: np.full_like(old, np.nan, np.float32),
    lambda old: np.full_like(old, np.inf, np.float64),
    lambda old: np.full_like(old, 1e300, np.float64),
    lambda old: -np.asarray(old, np.float64),
    lambda old: np.asarray(old, np.float64) + 0.5,
    lambda old: np.asarray(old, np.float64) * 0,
    lambda old: np.asarray(old).reshape(-1),
    lambda old: np.asarray(old)[..., None],
    lambda old: np.concatenate([np.atleast_1d(old)] * 2),
    lambda old: np.atleast_1d(old)[:0],
    lambda old: np.int64(2**62),
    lambda old: np.int64(-1),
    lambda old: np.asarray(old, ">f8"),
    lambda old: np.asarray(old, np.complex64),
    lambda old: "text",
    lambda old: np.bytes_(b"\xff\xfe\x00bytes"),
    lambda old: np.zeros(3, [("a", "f4"), ("b", "i2")]),
    lambda old: np.zeros(2, "V7"),
    lambda old: np.array(["a", "b"], object),
    lambda old: np.array([True, False]),
    lambda old: h5py.Empty("f4"),
)


def mutated_fields(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One data set of the graph with another value, type or shape; or gone; or renamed."""
    image = io.BytesIO(content)
    with h5py.File(image, "r+") as file:
        datasets: list[str] = []
        file["node"].visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        name = datasets[int(rng.integers(len(datasets)))]
        number = int(rng.integers(len(_VALUES) + 3))
        place = file["node"]
        old = place[name][()]
        del place[name]
        if number < len(_VALUES):
            try:
                value = _VALUES[number](old)
            except (TypeError, ValueError):
                value = np.arange(4)
            place.create_dataset(name, data=value, dtype=h5py.string_dtype() if _is_text(value) else None)
        elif number == len(_VALUES):
            place.create_group(name)
        elif number == len(_VALUES) + 1:
            place[f"{name}_"] = old
    return f"field {name}, value {number}", image.getvalue()


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"
