"""The handwritten digits that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from cos_export.datasets.dataset import Dataset

__all__ = ["read_digits"]

_DIGITS = Path(__file__).parents[1] / "zoo" / "data" / "digits.npz"


def read_digits(split: Literal["train", "test"]) -> Dataset:
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
