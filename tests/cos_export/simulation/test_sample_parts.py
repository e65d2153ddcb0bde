"""Arrays that come in parts are the same in memory and in a temporary file, and nothing is left of the file."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cos_export.errors import ParityError, StorageError
from cos_export.simulation.sample_parts import IN_MEMORY, SampleParts, blocks

BEYOND = IN_MEMORY + 1


def arrays(axis: int) -> dict[str, NDArray[Any]]:
    """Seven samples on `axis`, of sizes that are no multiples of the alignment."""
    generator = np.random.default_rng(axis)
    steps = (3,) * axis
    return {
        "first": generator.random((*steps, 7, 2, 5)) < 0.5,
        "second": generator.random((*steps, 7, 11)).astype(np.float32),
    }


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_are_joined_in_a_file_without_a_name(axis: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected, parts = arrays(axis), SampleParts(7, axis, BEYOND)
    for start, end in ((0, 3), (3, 4), (4, 7)):
        for name, array in expected.items():
            parts.add(name, array.take(range(start, end), axis))
    actual = parts.joined()
    assert list(tmp_path.iterdir()) == [], "while the arrays are there"
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and type(actual[name]) is np.ndarray
        np.testing.assert_array_equal(actual[name], array)
    kept = actual.pop("second")
    del actual, parts
    np.testing.assert_array_equal(kept, expected["second"], "the file is there as long as one array is")


def test_what_fits_is_not_copied() -> None:
    whole, parts = arrays(1)["first"], SampleParts(7, 1, IN_MEMORY)
    parts.add("first", whole)
    assert parts.joined()["first"] is whole


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: io.FileIO("/dev/full", "r+"))
    parts = SampleParts(7, 1, BEYOND)
    with pytest.raises(StorageError, match=r"No space left on device.*TMPDIR"):
        parts.add("first", arrays(1)["first"])


def test_samples_that_do_not_fit_are_refused() -> None:
    whole = arrays(1)["first"]
    for wrong in (whole[:, :5], whole[:2, :1], whole[:, :1, :1], whole[:, :1].astype(np.uint8)):
        parts = SampleParts(7, 1, BEYOND)
        parts.add("first", whole[:, :3])
        with pytest.raises(ParityError, match="'first' came as"):
            parts.add("first", wrong)
        with pytest.raises(ParityError, match="3 samples of 'first'"):
            parts.joined()


def test_blocks_are_all_samples_in_order() -> None:
    assert list(blocks(5, 2**25)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(blocks(2, 2**40)) == [slice(0, 1), slice(1, 2)]
    assert list(SampleParts(5, 1, 0).blocks(2**40)) == [slice(0, 5)], "in memory all at once"
