"""Which device computes, and with full float32 precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from cos_export.errors import InputError, UnavailableError

__all__ = ["full_precision", "mixed_precision", "mixed_precision_type", "plain_sums", "resolve_device", "to_device"]


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; "auto" is the first CUDA device if there is one, else the CPU.

    Raises:
        InputError: `name` is not a device.
        UnavailableError: The device is not on this machine.
    """
    if str(name) == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is not a device. Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"{name!r} is not a device that is supported. Use auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or (device.index or 0) >= count:
        raise UnavailableError(f"{name!r} is not on this machine, which has {count} CUDA devices. Use --device cpu.")
    return torch.device("cuda", device.index or 0)


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor of the host's on a device, for which the host does not wait; on the CPU the same one."""
    where = torch.device(device)
    return tensor.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else tensor.to(where)


def mixed_precision_type(device: torch.device) -> torch.dtype | None:
    """What convolutions and products are quickest in while gradients are computed; None if that is float32.

    bfloat16 on a CUDA device and on a CPU with instructions for it (AVX-512 BF16, AMX); float16 on a CUDA device that
    knows no bfloat16, which wants a scaled loss, for it has too few exponents for small gradients.
    """
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Convolutions and products in `dtype`, all else in float32; float32 throughout if `dtype` is None."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


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
