"""The examples run, and say what they should."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(sys, "argv", ["digits.py", str(tmp_path / "out")]):
        runpy.run_path(str(EXAMPLES / "digits.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "6,400 neurons in 5 layers" in said and "0 local violations: passed" in said
    assert (tmp_path / "out" / "manifest.json").is_file()
