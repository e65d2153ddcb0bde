"""How large a number of a user's may be: beyond these lies no use, but memory that is not there and time without end.

Steps have their bound where files have it (`cos_export.reading.limits`).
"""

from __future__ import annotations

from cos_export.reading.limits import MAX_STEPS

__all__ = [
    "LARGEST_SEED",
    "LEAST_OPSET",
    "MAX_STEPS",
    "MOST_BATCH",
    "MOST_CLASSES",
    "MOST_EXTRA_STEPS",
    "MOST_LEVELS",
    "MOST_OPSET",
    "MOST_PIXELS",
    "MOST_ROUNDS",
    "MOST_SAMPLES",
    "MOST_SHIFT",
    "MOST_THREADS",
]

LARGEST_SEED = 2**63 - 1
"""What a generator of random numbers takes."""

MOST_EXTRA_STEPS = 10_000
"""Extra steps for each sample: more than any run can tell apart, and few enough to end."""

MOST_LEVELS = 2**16
"""L: a count of spikes in as many steps is told exactly, and beyond that an activation is not quantised."""

MOST_CLASSES = 2**17
"""Classes of a zoo network; ImageNet-21k has 21,843."""

MOST_SAMPLES = 2**31 - 1
"""Images, of which a data set has as many or fewer."""

MOST_BATCH = 2**20
"""Images computed at once."""

MOST_THREADS = 2**12
"""Threads or processes at once."""

MOST_ROUNDS = 10**6
"""Rounds, updates, batches and epochs. An update takes a millisecond or more, so that as many take hours or more."""

MOST_SHIFT = 2**14
"""Pixels that an image is moved by."""

MOST_PIXELS = 2**26
"""Numbers of one image that is made up as an example, 256 MiB of float32."""

LEAST_OPSET = 13
"""Of ONNX: the first in which every operator takes what it takes in all later ones, axes as inputs for one."""

MOST_OPSET = 23
"""Of ONNX: the last that is tested; its graphs need ONNX Runtime 1.23 or later."""
