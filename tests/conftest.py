"""Lets every test import this tree, and what tests share in `tests/helpers`; and one process read all NIR files."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest

_TESTS = Path(__file__).parent

if str(_TESTS.parent) not in sys.path:
    sys.path.insert(0, str(_TESTS.parent))
sys.path.append(str(_TESTS / "helpers"))


@pytest.fixture(scope="session", autouse=True)
def one_reading_process() -> Iterator[None]:
    """All NIR files are read by one process, as if it read several in turn: a start for each takes 0.2 s.

    `test_hostile_files` has each of its files read by a process of its own, as commands do.
    """
    from cos_export.reading import hdf5_process

    with hdf5_process.Hdf5Process() as process:
        with mock.patch.object(hdf5_process, "Hdf5Process", lambda: nullcontext(process)):
            yield
