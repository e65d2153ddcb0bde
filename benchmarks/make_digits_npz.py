"""Writes the digits data set that the package ships, from the copy in scikit-learn.

python benchmarks/make_digits_npz.py [cos_export/zoo/data/digits.npz]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

DEFAULT = Path(__file__).resolve().parent.parent / "cos_export" / "zoo" / "data" / "digits.npz"


def main(path: Path) -> None:
    """Writes images (1797, 1, 8, 8) uint8 in 0..16 and labels (1797,) to `path`."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.uint8)
    if not np.array_equal(images[:, 0], digits.images):
        raise SystemExit("The pixels are not whole numbers.")
    np.savez_compressed(path, images=images, labels=labels)
    print(f"{path}: images {images.shape}, labels {labels.shape}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
