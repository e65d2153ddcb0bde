"""What a session of tests does once, and commands do each time: it takes long, and few tests are about it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

from cos_export.reading import hdf5_process

__all__ = ["charts_drawn_once", "every_chart_drawn", "one_reading_process"]

_CHARTS = ("accuracy_chart", "potential_chart", "firing_rate_chart")


@contextmanager
def one_reading_process() -> Iterator[None]:
    """All NIR files are read by one process, which reads several in turn: a start for each takes 0.2 s."""
    process = hdf5_process.Hdf5Process()
    with process, mock.patch.object(hdf5_process, "Hdf5Process", lambda: nullcontext(process)):
        yield


@contextmanager
def charts_drawn_once() -> Iterator[None]:
    """A chart of a report is drawn once for the same numbers: that is half of what a small network's export takes."""
    from cos_export.report import charts, page

    pictures: dict[tuple[str, bytes], str] = {}

    def once(name: str, draw: Callable[[Any], str]) -> Callable[[Any], str]:
        def chart(data: Any) -> str:
            key = name, pickle.dumps(data)
            if key not in pictures:
                pictures[key] = draw(data)
            return pictures[key]

        return chart

    with mock.patch.dict(vars(page), {name: once(name, getattr(charts, name)) for name in _CHARTS}):
        yield


@contextmanager
def every_chart_drawn() -> Iterator[None]:
    """Within `charts_drawn_once`: each is drawn, whether it was before or not."""
    from cos_export.report import charts, page

    with mock.patch.dict(vars(page), {name: getattr(charts, name) for name in _CHARTS}):
        yield
