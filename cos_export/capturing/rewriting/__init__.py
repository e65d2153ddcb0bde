"""Operations that are written as others before the graph is walked, each exactly."""

from __future__ import annotations

from torch import fx

from cos_export.capturing.rewriting.activations import rewrite_activations

__all__ = ["rewrite"]


def rewrite(graph: fx.Graph) -> None:
    """Rewrites, in place, what has a form in operations that convert."""
    rewrite_activations(graph)
