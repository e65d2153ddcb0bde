"""NIR files as other tools write them: without our metadata."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import random_networks as build

__all__ = ["image_file", "labels_of", "write_chain", "write_small"]


def write_chain(path: Path, shape: Sequence[int], nodes: Sequence[nir.NIRNode], classes: Sequence[int]) -> None:
    """A chain of nodes between an Input and an Output, named 0, 1, 2, ..., its edges last to first."""
    named = {
        "input": nir.Input(np.array(shape)),
        **{str(number): node for number, node in enumerate(nodes)},
        "output": nir.Output(np.array(classes)),
    }
    edges = list(pairwise(named))[::-1]
    nir.write(path, nir.NIRGraph(named, edges, type_check=False))


def write_small(path: Path, *, r: float = 1.0, batch: bool = False, neurons: Any = nir.IF) -> None:
    """Conv2d, IF, SumPool2d, Flatten, Affine, IF from (1, 8, 8) to 10, in multiples of 1/8."""
    rng = np.random.default_rng(3)
    first = (1,) if batch else ()
    conv = build.conv2d(rng, 1, 4)
    conv.input_shape = np.array([8, 8])
    flatten = nir.Flatten(np.array([*first, 4, 4, 4]), len(first), -1)
    write_chain(
        path,
        (*first, 1, 8, 8),
        [
            conv,
            _layer(neurons, (*first, 4, 8, 8), r),
            build.pool(nir.SumPool2d),
            flatten,
            build.affine(rng, 64, 10),
            _layer(nir.IF, (*first, 10), r),
        ],
        (*first, 10),
    )


def _layer(kind: Any, shape: tuple[int, ...], r: float) -> nir.NIRNode:
    resistance, threshold = np.full(shape, r, np.float32), np.full(shape, 1.25, np.float32)
    if kind is nir.IF:
        return nir.IF(resistance, threshold)
    ones = np.ones(shape, np.float32)
    count = {nir.LIF: 1, nir.CubaLIF: 2}[kind]
    return kind(*[ones] * count, r=resistance, v_leak=0 * ones, v_threshold=threshold)


def labels_of(count: int) -> Any:
    return np.arange(count) % 10


def image_file(path: Path, count: int = 24) -> Path:
    """An .npz of images (1, 8, 8) in multiples of 1/8, with labels."""
    images = build.dyadic(np.random.default_rng(9), count, 1, 8, 8, low=0, high=8)
    np.savez(path, images=images, labels=labels_of(count))
    return path
