"""What stands beside every figure: the machine, the versions and the command that measured it."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["command", "machine", "processor", "versions"]


def processor() -> str:
    """The processor's name where Linux tells it, and its architecture elsewhere."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def machine() -> str:
    """The processor, its cores, and the threads that PyTorch computes with."""
    threads = torch.get_num_threads()
    return f"{processor()}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''} used"


def versions(*packages: str) -> dict[str, str]:
    """The versions of this package, of PyTorch and Python, and of others that are installed."""
    names = ("cos-export", "torch", *packages)
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def command() -> str:
    """What was typed, from the root of the repository."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
