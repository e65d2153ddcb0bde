"""The highest memory of a process, in main memory or on a GPU."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from cos_export.device import resolve_device

__all__ = ["memory_now"]


def memory_now(device: str, *, reset: bool = False) -> int:
    """The highest memory in bytes since the last reset; with `reset` what is in use now, where the count begins."""
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(chosen)
        return torch.cuda.max_memory_allocated(chosen)
    if reset:
        # Linux forgets the highest resident memory on this write; loading has used more than stays.
        Path("/proc/self/clear_refs").write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
