"""Lets every test import this tree, and what tests share in `tests/helpers`; and does once what takes long."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent

if str(_TESTS.parent) not in sys.path:
    sys.path.insert(0, str(_TESTS.parent))
sys.path.append(str(_TESTS / "helpers"))


@pytest.fixture(scope="session", autouse=True)
def shared_work() -> Iterator[None]:
    """`test_hostile_files` reads each file as commands do."""
    from shared_work import charts_drawn_once, one_reading_process

    with one_reading_process(), charts_drawn_once():
        yield


@pytest.fixture
def every_chart() -> Iterator[None]:
    """For tests that compare pages: each of their charts is drawn."""
    from shared_work import every_chart_drawn

    with every_chart_drawn():
        yield
