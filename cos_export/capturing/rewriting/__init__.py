"""Operations that are written as others before the graph is walked, each exactly."""

from __future__ import annotations

from torch import fx

from cos_export.capturing.rewriting.activations import rewrite_activations
from cos_export.capturing.rewriting.stacks import rewrite_stacks
from cos_export.capturing.rewriting.windows import rewrite_selections, rewrite_windows

__all__ = ["rewrite"]


def rewrite(graph: fx.Graph) -> None:
    """Rewrites, in place, what has a form in operations that convert."""
    rewrite_activations(graph)
    rewrite_stacks(graph)
    rewrite_selections(graph)
    rewrite_windows(graph)
