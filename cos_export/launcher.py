"""What `torchrun`, or another launcher that sets the same variables, has told this process: read without PyTorch."""

from __future__ import annotations

import os

__all__ = ["launched_processes", "local_number", "number_of_process"]


def launched_processes() -> int:
    """How many processes were started together: 1 without a launcher."""
    return max(1, _number("WORLD_SIZE", 1))


def number_of_process() -> int:
    """This process's number among them, from 0."""
    return _number("RANK", 0) if launched_processes() > 1 else 0


def local_number() -> int:
    """This process's number among those of this machine, from 0."""
    return _number("LOCAL_RANK", 0) if launched_processes() > 1 else 0


def _number(variable: str, otherwise: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else otherwise
