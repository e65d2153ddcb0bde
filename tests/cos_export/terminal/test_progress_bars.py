"""How far work is, how fast it goes and how long it takes yet, on terminals and elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from cos_export.terminal import progress_bars as bars
from cos_export.terminal.progress_bars import Pace, _Lines, progress_bars


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that stand still until a test sets them."""
    now = [100.0]
    monkeypatch.setattr("cos_export.terminal.progress_bars.time.monotonic", lambda: now[0])
    yield now


@pytest.mark.parametrize(
    ("done", "now", "rate", "left"),
    [
        (0, 5.0, "", ""),
        (64, 1.0, "64/s", "00:15"),
        (64, 16.0, "4.0/s", "03:54"),
        (2, 60.0, "30.0 s each", "8:19:00"),
        (1000, 250.0, "4.0/s", ""),
    ],
)
def test_rate_and_what_is_left(done: int, now: float, rate: str, left: str) -> None:
    """1,000 pieces from second 0 on; what is left is (1000 - done) * now / done."""
    pace = Pace(0.0)
    assert pace.rate(done, now) == rate
    assert pace.left(done, 1000, now) == left


def test_pieces_that_an_earlier_run_has_done_took_none_of_this_ones_time() -> None:
    pace = Pace(10.0, first=90)
    assert (pace.rate(95, 20.0), pace.left(95, 100, 20.0)) == ("2.0 s each", "00:10")
    assert pace.left(90, 100, 20.0) == ""


def test_lines_have_rate_and_time_left(clock: list[float]) -> None:
    screen = io.StringIO()
    lines = _Lines(Console(file=screen, width=200))
    for done, seconds in ((0, 0.0), (10, 5.0), (25, 12.5), (50, 20.0), (100, 40.0)):
        clock[0] = 100.0 + seconds
        lines("simulating", done, 100)
    lines("reading", 0, 1)
    clock[0] += 4.0
    lines("reading", 1, 1)
    lines("short", 0, 1)
    lines("short", 1, 1)
    assert screen.getvalue().splitlines() == [
        "simulating: 25 of 100 after 12 s, 2.0/s, 00:38 left",
        "simulating: 100 in 40.0 s, 2.5/s",
        "reading: 4.0 s",
    ]


def test_bars_have_rate_and_time_left(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=200)
    monkeypatch.setattr(bars, "Console", lambda stderr: terminal)
    with progress_bars() as progress:
        progress("training", 3, 9)
        clock[0] += 8.0
        progress("training", 5, 9)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "training" in plain and "5/9" in plain and "4.0 s each, 00:16 left" in plain
