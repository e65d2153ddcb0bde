"""How large a thing may be that a file claims to hold; what is beyond is refused before anything is allocated."""

from __future__ import annotations

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_HEADER",
    "MAX_INFLATED",
    "MAX_JSON",
    "MAX_JSON_DEPTH",
    "MAX_NAME",
    "MAX_ONNX",
    "MAX_ONNX_TENSOR",
    "MAX_STEPS",
    "MAX_SWOLLEN",
    "MAX_TENSOR_HEADER",
]

MAX_JSON = 4 * 2**20
"""Bytes of a JSON document. The manifest of a network of 100 layers has less than 100 kB."""

MAX_JSON_DEPTH = 32
"""Objects and lists within one another. A manifest has 7."""

MAX_NAME = 1024
"""Characters of a name: of a layer, a method, a class."""

MAX_STEPS = 2**16
"""T. Published conversions go to 4,096 steps."""

MAX_DIMENSIONS = 16
"""Axes of an array."""

MAX_HEADER = 4096
"""Bytes of the header of a .npy. One of plain numbers has about 128."""

MAX_INFLATED = 256 * 2**20
"""Bytes that the compressed members of an archive may inflate to, however few they are on disk."""

MAX_SWOLLEN = 100
"""Beyond `MAX_INFLATED`, the bytes that one byte on disk may inflate to. Zeros reach 1,000, images below 20."""

MAX_TENSOR_HEADER = 2 * 2**20
"""Bytes of the header of a .safetensors, which has about 100 for each tensor."""

MAX_ONNX = 2**31 - 1
"""Bytes of an ONNX graph: protobuf holds no more."""

MAX_ONNX_TENSOR = 2**29
"""Numbers of a constant in an ONNX graph, whose file could not hold more of float32."""
