"""What to say of a shape that has one axis too many."""

from __future__ import annotations

__all__ = ["batch_axis_hint"]


def batch_axis_hint(actual: tuple[int, ...], expected: int) -> str:
    """What to do about a batch axis, or nothing where `actual` does not have just one axis more than `expected`.

    Args:
        actual: The shape.
        expected: The number of axes that belong there.
    """
    if len(actual) != expected + 1:
        return ""
    return (
        f" Its first axis, of {actual[0]}, looks like a batch axis, which shapes in NIR do not have: write the file "
        "anew from an example without one, or take that axis off the Input's shape and the neurons' parameters."
    )
