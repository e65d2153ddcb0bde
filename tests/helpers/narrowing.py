"""What a test knows to be there, or of a type, and the type checker does not: asserted, and returned as such."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from torch import nn

from cos_export.network import FloatArray

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which is not None."""
    assert value is not None
    return value


def of_type(value: Any, kind: type[T]) -> T:
    """The value, which is of `kind`: a part of a module, mostly, whose parts are all modules or tensors for torch."""
    assert isinstance(value, kind), f"{type(value).__name__} is not {kind.__name__}"
    return value


def statistics(norm: nn.Module) -> tuple[Any, Any]:
    """The running mean and variance of a batch norm that keeps them."""
    kept = of_type(norm, nn.modules.batchnorm._BatchNorm)
    return present(kept.running_mean), present(kept.running_var)


def in_memory(images: Any) -> FloatArray:
    """The images, which are an array and not read from a file as they are needed."""
    assert isinstance(images, np.ndarray)
    return images
