from __future__ import annotations

import os
from pathlib import Path

import pytest

from cos_export.errors import InputError
from cos_export.reading.json_file import parse_json, read_json
from cos_export.reading.limits import MAX_JSON_DEPTH

BAD = {
    "cut short": ('{"a": 1', "is not JSON"),
    "twice": ('{"a": 1, "b": {"a": 2, "a": 3}}', "'a' stands twice"),
    "nan": ('{"a": NaN}', "NaN is not a finite number"),
    "infinity": ("[-Infinity]", "-Infinity is not a finite number"),
    "beyond float64": ("[1e999]", "1e999 is not a finite number"),
    "beyond float64, long": ("[" + "9" * 400 + ".0]", "not a finite number"),
    "5,000 digits": ("[" + "9" * 5000 + "]", "is not JSON"),
    "a million lists": ("[" * 10**6, "nested deeper"),
    "a million lists, closed": ("[" * 10**6 + "]" * 10**6, "nested deeper"),
    "objects": ('{"a":' * 10**5 + "1" + "}" * 10**5, "nested deeper"),
    "just too deep": ("[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1), "nested deeper"),
    "bytes": (b'{"a": "\xff"}', "is not JSON"),
    "too long": (b" " * (5 * 2**20), "may have"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said(text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_json(text, "it")


def test_what_is_right_is_read(tmp_path: Path) -> None:
    deepest = "[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH
    (tmp_path / "a.json").write_text(f'{{"a": [1, 2.5, null, true, "x"], "b": {deepest[1:-1]}}}')
    assert read_json(tmp_path / "a.json")["a"] == [1, 2.5, None, True, "x"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="named pipe"):
        read_json(tmp_path / "a.json")
