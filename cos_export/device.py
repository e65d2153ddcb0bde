"""Which device computes, and with full float32 precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cos_export.errors import InputError, UnavailableError

__all__ = ["full_precision", "plain_sums", "resolve_device"]


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; "auto" is the first CUDA device if there is one, else the CPU.

    Raises:
        InputError: `name` is no device.
        UnavailableError: The device is not on this machine.
    """
    if str(name) == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is no device. Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"{name!r} is no device that is supported. Use auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or (device.index or 0) >= count:
        raise UnavailableError(f"{name!r} is not on this machine, which has {count} CUDA devices. Use --device cpu.")
    return torch.device("cuda", device.index or 0)


@contextmanager
def full_precision() -> Iterator[None]:
    """Turns off TensorFloat-32, whose 10-bit mantissa breaks the rounding bound that spikes are checked with."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@contextmanager
def plain_sums() -> Iterator[None]:
    """Keeps cuDNN out, which may compute a convolution by a transform (Winograd's) whose fractions round integers.

    What PyTorch does without it is a product of matrices: sums of products, exact for integers below 2^24.
    """
    with torch.backends.cudnn.flags(enabled=False):
        yield
