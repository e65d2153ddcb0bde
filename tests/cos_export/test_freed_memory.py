"""Memory that large stages leave behind."""

from __future__ import annotations

import weakref

import pytest

from cos_export.freed_memory import LARGE, give_back_memory


class _Graph:
    """What refers to itself, as an evaluator of ONNX does."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize(("size", "left"), [(LARGE - 1, True), (LARGE, False)])
def test_what_only_refers_to_itself_goes_after_a_large_stage(size: int, left: bool) -> None:
    graph = weakref.ref(_Graph())
    give_back_memory(size)
    assert (graph() is not None) == left
