"""What becomes of memory that has been freed: kept while layers are computed, and given back after large stages.

Both are about the GNU C library; elsewhere nothing is kept, and nothing is given back.
"""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

__all__ = ["LARGE", "give_back_memory", "keep_freed_memory"]

LARGE = 2**26
"""Bytes of a file, 64 MiB, from which on it is worth a second to get rid of what it became in memory."""


def keep_freed_memory() -> None:
    """Lets what a layer computes lie where what an earlier one has computed lay.

    Linux clears every page that it lends, which can cost more than a tenth of a run. The GNU C library hands freed
    blocks back only above the size of the largest one, of up to 32 MiB, ever freed. One that nobody writes into
    costs nothing.
    """
    torch.empty(30 << 20, dtype=torch.uint8)


def give_back_memory(size: int) -> None:
    """Frees what only refers to itself, and hands the pages that are kept back to the system.

    ONNX's evaluator refers to itself and holds the weights of its graph twice. After the stages of a VGG-16 at
    224 x 224 that write files a gibibyte was held so, and 0.6 more were kept that nobody used.

    Args:
        size: Bytes of the file that a stage was about; below `LARGE` nothing is done.
    """
    if size < LARGE:
        return
    gc.collect()
    if sys.platform == "linux":  # where other C libraries have no such function
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
