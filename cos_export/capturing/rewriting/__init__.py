"""Operations that are written as others before the graph is walked, each exactly."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx

from cos_export.capturing.rewriting.activations import rewrite_activations
from cos_export.capturing.rewriting.bounds import rewrite_bounds
from cos_export.capturing.rewriting.stacks import rewrite_stacks
from cos_export.capturing.rewriting.windows import rewrite_selections, rewrite_windows

__all__ = ["rewrite"]


def rewrite(graph: fx.Graph, constants: Mapping[fx.Node, Tensor]) -> None:
    """Rewrites, in place, what has a form in operations that convert.

    Args:
        graph: Of the module.
        constants: The parameters, buffers and other tensors of the module.
    """
    rewrite_bounds(graph, constants)
    rewrite_activations(graph)
    rewrite_stacks(graph)
    rewrite_selections(graph)
    rewrite_windows(graph)
