"""From a module to the graph that is walked and observed, with the replacements that the user asked for made."""

from __future__ import annotations

from torch import Tensor, nn

from cos_export.capturing.findings import Finding
from cos_export.capturing.operators.max_pooling import average_max_pools
from cos_export.capturing.options import Options
from cos_export.capturing.tracing import Traced, trace
from cos_export.wrappers import unwrapped_copy

__all__ = ["prepare"]


def prepare(model: nn.Module, example: Tensor, options: Options) -> Traced | Finding:
    """The graph of a copy of `model`, or why there is none.

    Args:
        model: Left as it is.
        example: From `check_example`.
        options: What the user chose.

    Raises:
        InputError: `model` is not a module.
    """
    traced = trace(unwrapped_copy(model), example, options.levels)
    if isinstance(traced, Traced) and options.max_pool == "average":
        average_max_pools(traced.graph)
    return traced
