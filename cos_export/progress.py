"""How long work reports itself: one call per piece done. The command line draws it; the library stays silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "one_piece", "silent"]


class Progress(Protocol):
    """A callable that is told how far the work is."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Called as work goes on.

        Args:
            stage: What is being done, in a few words; a new name starts a new line.
            done: Pieces finished.
            total: Pieces there are.
        """


def silent(stage: str, done: int, total: int, /) -> None:
    """Reports nothing."""


@contextmanager
def one_piece(progress: Progress, stage: str) -> Iterator[None]:
    """Reports what the block does as a stage of one piece, of which only the time that has passed is known."""
    progress(stage, 0, 1)
    yield
    progress(stage, 1, 1)
