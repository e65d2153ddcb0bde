"""The shapes of an operation's results, which must keep the batch axis in front and be of float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cos_export.capturing.findings import Unsupported
from cos_export.network.graph import Shape

__all__ = ["check_results", "sample_shape"]


def sample_shape(result: Any, batch: str) -> Shape | None:
    """The shape of a result without the batch axis, or None if that is not in front.

    Args:
        result: As tracing has left it: a tensor, whose sizes may be symbols, or anything else.
        batch: The symbol of the batch axis.
    """
    if not isinstance(result, Tensor) or result.ndim < 2:
        return None
    size, *rest = result.shape
    sizes = [str(n) for n in rest]
    if str(size) != batch or not all(n.isdigit() for n in sizes) or "0" in sizes:
        return None
    return tuple(int(n) for n in sizes)


def check_results(results: Sequence[Any], batch: str) -> tuple[Shape, ...]:
    """The shapes of all results of an operation without the batch axis.

    Args:
        results: As for `sample_shape`.
        batch: The symbol of the batch axis.

    Raises:
        Unsupported: One has no batch axis in front or is not of float32, or there is none at all.
    """
    shapes = [sample_shape(one, batch) for one in results]
    known = tuple(shape for shape in shapes if shape is not None)
    if len(known) < len(shapes) or not known:
        odd = results[shapes.index(None)] if None in shapes else results
        given = tuple(odd.shape) if isinstance(odd, Tensor) else type(odd).__name__
        if isinstance(odd, Tensor) and odd.ndim == 1 and str(odd.shape[0]) == batch:
            raise Unsupported(
                "its result (batch,) is one number for each sample, and a readout is (batch, classes)",
                "leave the squeeze out: return (batch, 1); or (batch, 2), with logits 0 and z for one logit z",
            )
        raise Unsupported(
            f"its result {given} does not keep the batch axis in front, so samples would be mixed",
            "leave axis 0 alone: flatten with x.flatten(1), average over (2, 3)",
        )
    if results[0].dtype != torch.float32:
        raise Unsupported(f"its result is of type {results[0].dtype}", "compute in float32 throughout")
    return known
