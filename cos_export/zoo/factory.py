"""The network that a user's own function builds, named as package.module:factory."""

from __future__ import annotations

from torch import nn

from cos_export.errors import InputError
from cos_export.user_factory import from_factory
from cos_export.wrappers import unwrapped, unwrapped_within

__all__ = ["build_from_factory"]


def build_from_factory(spec: str) -> nn.Module:
    """What the function called `spec` returns, data-parallel and compiled wrappers and pruning masks taken off.

    Args:
        spec: As for `from_factory`.

    Raises:
        InputError: As for `from_factory`, or it returns something else.
    """
    module = from_factory(spec)
    if not isinstance(module, nn.Module):
        raise InputError(f"{spec!r} returned a {type(module).__name__}, and should return a torch.nn.Module.")
    module = unwrapped(module)
    unwrapped_within(module)
    return module
